"""What is said of each round: whose answers, what was kept and dropped, what came of it."""

from __future__ import annotations

from typing import Any

from strop.recipes.rounds import rounds_of, rounds_told

FIGURE = {"value": 0.75, "low": 0.7, "high": 0.8, "n": 40}


def entry(name: str, kind: str, **more: Any) -> dict[str, Any]:
    blank = {"state": "finished", "metrics": {}, "artifacts": {}, "artifact_hashes": {}, "inputs": {}, "seed": 7}
    return {"name": name, "kind": kind, **blank, **more}


def in_round(number: int, policy: str) -> list[dict[str, Any]]:
    """The stages of a round whose peak is its own average."""
    asked = {"inputs": {"model": policy}, "input_hashes": {"model": f"hash of {policy}"}}
    refused = {"kept": 37, "dropped": {"answers cut by the length limit": 2, "repeated": 1}}
    best = {"inputs": {"best": f"@eval-average-{number}"}, "metrics": {"gold": FIGURE}}
    return [
        entry(f"sample-{number}", "sample", data={"kept": 40, "dropped": {}}, seed=number, **asked),
        entry(f"reward-{number}", "reward", metrics={"accuracy": FIGURE}, artifact_hashes={"model": "rm"}),
        entry(f"best-{number}", "select", data=refused),
        entry(f"sft-{number}", "sft", artifact_hashes={"model": "tuned"}),
        entry(f"average-{number}", "average", artifact_hashes={"model": "mean"}),
        entry(f"peak-{number}", "best", **best),
    ]


def test_a_round_brings_together_what_its_stages_left() -> None:
    found = rounds_of([entry("eval-start", "evaluate"), *in_round(1, "base"), *in_round(2, "@peak-1")])
    assert [made["round"] for made in found] == [1, 2]
    second = found[1]
    assert second["policy"] == {"name": "@peak-1", "hash": "hash of @peak-1"}
    assert second["prompts"] == 40 and second["kept"] == {"sample-2": 40, "best-2": 37}
    assert second["dropped"] == {"best-2": {"answers cut by the length limit": 2, "repeated": 1}}
    assert second["reward_model"] == {"name": "reward-2", "hash": "rm", "accuracy": 0.75, "n": 40}
    assert second["leaves"] == {"name": "average-2", "hash": "mean"}
    assert second["seeds"]["sample-2"] == 2 and len(second["seeds"]) == 6
    assert second["best"] == {"name": "eval-average-2", "metric": "gold", **FIGURE}
    assert second["state"] == "finished" and "sft-2" in second["stages"] and "eval-start" not in second["stages"]


def test_a_refresh_asks_the_policy() -> None:
    """How many of its answers were labelled, and not how many prompts PPO has to draw from."""
    asked = {"inputs": {"model": "@reward", "policy": "@sft"}, "input_hashes": {"model": "rm", "policy": "tuned"}}
    data = {"kept": 36, "prompts": 32, "dropped": {"prompts whose answers' scores are all the same": 12}}
    stages = [
        entry("refresh-1", "refresh", data=data, **asked),
        entry("ppo-1", "ppo", data={"kept": 2048, "dropped": {}}, inputs={"model": "@sft"}),
    ]
    (made,) = rounds_of(stages)
    assert made["policy"] == {"name": "@sft", "hash": "tuned"} and made["prompts"] == 32
    assert made["dropped"] == {"refresh-1": {"prompts whose answers' scores are all the same": 12}}


def test_a_skipped_round_still_has_its_choice() -> None:
    skipped = [{**made, "state": "skipped", "metrics": {}} for made in in_round(2, "@peak-1")[:-1]]
    last = entry("peak-2", "best", inputs={"best": "@eval-average-1"}, metrics={"gold": FIGURE})
    first, second = rounds_of([*in_round(1, "base"), *skipped, last, entry("eval-peak-2", "evaluate")])
    assert first["state"] == "finished"
    assert second["state"] == "skipped" and second["stages"] == ["peak-2", "eval-peak-2"]
    assert second["best"]["name"] == "eval-average-1" and "policy" not in second


def test_a_round_under_way_says_what_there_is() -> None:
    (made,) = rounds_of(
        [entry("sample-1", "sample", inputs={"model": "base"}), {"name": "sft-1", "kind": "sft", "state": "failed"}]
    )
    assert made["state"] == "failed" and made["policy"]["name"] == "base" and "reward_model" not in made


def test_a_line_a_round() -> None:
    assert rounds_told(rounds_of(in_round(1, "base"))) == []
    skipped = [{**made, "state": "skipped", "metrics": {}} for made in in_round(3, "@peak-2")]
    told = rounds_told(rounds_of([*in_round(1, "base"), *in_round(2, "@peak-1"), *skipped]))
    assert told[1] == (
        "round 2: 40 prompts to @peak-1; dropped 3 in best-2; reward-2 right in 0.75 (n=40); "
        "best so far eval-average-2, gold 0.75"
    )
    assert told[2] == "round 3: skipped"


def test_stages_without_numbers_are_of_no_round() -> None:
    assert rounds_of([entry("sft", "sft"), entry("eval-start", "evaluate"), entry("gpt-0", "sft")]) == []
