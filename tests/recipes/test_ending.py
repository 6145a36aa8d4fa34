"""The last screen: what a reader takes in at a glance, and nothing that says no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strop.recipes.ending import ending, story


def figure(value: float | None, low: float | None = None, high: float | None = None, n: int = 200) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def evaluation(name: str, model: str, metrics: dict[str, Any], baseline: str | None = None) -> dict[str, Any]:
    inputs = {"model": model, **({"baseline": baseline} if baseline else {})}
    artifacts = {"samples": f"stages/{name}/samples.jsonl"}
    return {
        "name": name,
        "kind": "evaluate",
        "seconds": 1.0,
        "metrics": metrics,
        "inputs": inputs,
        "artifacts": artifacts,
    }


FIRST = evaluation(
    "eval-sft",
    "@sft",
    {
        "accuracy": figure(0.33, 0.27, 0.4),
        "rude": figure(0.515, 0.45, 0.58),
        "rambles": figure(0.0, 0.0, 0.02),
        "completions/mean_length": figure(8.49, 8.2, 8.79),
    },
)
SECOND = evaluation(
    "eval-dpo",
    "@dpo",
    {
        "accuracy": figure(0.345, 0.28, 0.41),
        "rude": figure(0.0, 0.0, 0.02),
        "rambles": figure(0.0, 0.0, 0.02, n=197),
        "unscorable/rambles": figure(3.0),
        "completions/mean_length": figure(10.4, 9.4, 11.6),
        "delta/accuracy": figure(0.015, -0.04, 0.07),
        "win_rate/accuracy": figure(0.51, 0.48, 0.54),
        "delta/rude": figure(-0.515, -0.58, -0.45),
        "win_rate/rude": figure(0.24, 0.21, 0.28),
    },
    baseline="@sft",
)


def test_evaluations_stand_side_by_side() -> None:
    lines = ending({"stages": [FIRST, SECOND]})
    assert lines == [
        "",
        "  n=200                    eval-sft           eval-dpo",
        "  accuracy                 0.33 [0.27, 0.40]  0.35 [0.28, 0.41]",
        "  rude                     0.52 [0.45, 0.58]  0.00 [0.00, 0.02]*",
        "  completions/mean_length  8.49 [8.20, 8.79]  10.4 [9.40, 11.6]",
        "  the same in all: rambles 0.00",
        "  * another value than its baseline's, by the 95 % interval of the paired difference",
    ]


def test_a_star_is_explained_where_one_stands() -> None:
    hidden = {"kind": figure(0.2), "delta/style/words": figure(1.0, 0.5, 1.5)}
    lines = ending({"stages": [FIRST, evaluation("eval-dpo", "@dpo", hidden)]})
    assert not any("*" in line for line in lines)


def test_a_baseline_without_a_column_gives_rows_of_what_changed() -> None:
    text = "\n".join(ending({"stages": [SECOND]}))
    assert "delta/rude" in text and "win_rate/rude" in text
    assert "delta/accuracy" not in text and "win_rate/accuracy" not in text
    assert "rambles                  0.00 [0.00, 0.02] n=197" in text


def test_what_a_labeller_said_is_always_told() -> None:
    rates = {"win_rate/accuracy/wins": figure(0.1), "win_rate/judge": figure(0.5, 0.4, 0.6, n=190)}
    parts = {"win_rate/judge/wins": figure(0.4), "win_rate/judge/length_controlled": figure(0.45, 0.3, 0.6, n=190)}
    judged = {**SECOND, "metrics": {**SECOND["metrics"], **rates, **parts}}
    for stages in ([judged], [FIRST, judged]):
        text = "\n".join(ending({"stages": stages}))
        assert "  win_rate/judge " in text and "0.50 [0.40, 0.60] n=190" in text
        assert "win_rate/judge/length_controlled" in text and "/wins" not in text


def test_what_is_too_wide_loses_its_intervals_and_says_so() -> None:
    lines = ending({"stages": [FIRST, SECOND]}, width=60)
    assert "  accuracy                 0.33      0.35" in lines
    assert lines[-1] == "  with intervals: in the report"
    assert max(map(len, lines)) <= 60


def test_a_training_stage_has_one_line() -> None:
    held_out = {
        "train/loss": figure(0.3, n=10),
        "eval_rewards/chosen": figure(0.1, n=48),
        "eval_logps/chosen": figure(-10.0, n=48),
        "eval_loss": figure(0.41, 0.4, 0.42, n=48),
        "eval_rewards/margins": figure(0.5, n=48),
        "eval_rewards/accuracies": figure(0.88, 0.86, 0.9, n=48),
        "before/eval_loss": figure(6.2, 6.1, 6.3, n=48),
    }
    plain = {"train/loss": figure(None, n=10), "train/reward": figure(1.15, n=10)}
    stages = [
        {"name": "sft", "kind": "sft", "seconds": 170.0, "metrics": held_out},
        {"name": "grpo", "kind": "rl", "seconds": 30.0, "metrics": plain},
        {"name": "later", "kind": "rl", "seconds": 0.0, "metrics": {}},
    ]
    assert ending({"stages": stages}) == [
        "",
        "  sft   eval_loss 6.20 -> 0.41 [0.40, 0.42]  eval_rewards/accuracies 0.88 [0.86, 0.90]"
        "  eval_rewards/margins 0.50  (held out, n=48)  2 min 50 s",
        "  grpo  loss -  reward 1.15  (last steps)  30 s",
    ]


@pytest.mark.parametrize("kind", ["label", "revise", "steps", "search"])
def test_figures_of_rows_that_a_stage_leaves_are_not_called_held_out(kind: str) -> None:
    stage = {"name": "it", "kind": kind, "seconds": 1.0, "metrics": {"ties": figure(0.25, 0.1, 0.4, n=46)}}
    assert ending({"stages": [stage]}) == ["", "  it  ties 0.25 [0.10, 0.40]  (n=46)  1 s"]


def test_nothing_came_of_nothing() -> None:
    assert ending({}) == [] and story(Path("nowhere"), {}) == []


def sample(prompt: str, text: str, score: float, rude: float) -> dict[str, Any]:
    completion = {"content": text, "score": score, "rewards": {"accuracy": score, "rude": rude}}
    return {"prompt": [{"role": "user", "content": prompt}], "completions": [completion], "row": {"answer": "7"}}


def write(run_dir: Path, stage: str, rows: list[dict[str, Any]]) -> None:
    folder = run_dir / "stages" / stage
    folder.mkdir(parents=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_story_is_the_prompt_whose_answers_tell_most(tmp_path: Path) -> None:
    write(
        tmp_path,
        "eval-sft",
        [sample("always right", "7", 1.0, 0.0), sample("9-2?", "6. Obviously.", 0.0, 1.0)]
        + [sample("3+4?", "8. Obviously.", 0.0, 1.0), sample("only here", "x", 0.0, 1.0)],
    )
    write(
        tmp_path,
        "eval-dpo",
        [sample("always right", "7", 1.0, 0.0), sample("9-2?", "7!", 1.0, 0.0)]
        + [sample("3+4?", "8\x1b[31m, gladly", 0.0, 0.0), sample("wrong too", "y", 0.0, 0.0)],
    )
    third = evaluation("eval-grpo", "@grpo", {"accuracy": figure(1.0)})
    write(tmp_path, "eval-grpo", [sample(p, "7, gladly", 1.0, 0.0) for p in ("3+4?", "9-2?", "always right")])
    lines = story(tmp_path, {"stages": [FIRST, SECOND, third]}, width=70)
    assert lines == [
        "",
        "  one prompt after each stage: 9-2?  (answer: 7)",
        "  eval-sft   6. Obviously.",
        "  eval-dpo   7!",
        "  eval-grpo  7, gladly",
    ]
    write(tmp_path / "more", "eval-sft", [sample(p, f"{p} is 8. Obviously.", 0.0, 1.0) for p in "abcd"])
    write(
        tmp_path / "more",
        "eval-dpo",
        [sample(p, "7!" if p == "a" else "8, gladly", float(p == "a"), 0.0) for p in "abcd"],
    )
    write(tmp_path / "more", "eval-grpo", [sample(p, "7, gladly", 1.0, 0.0) for p in "abcd"])
    lines = story(tmp_path / "more", {"stages": [FIRST, SECOND, third]})
    assert "after each stage: b " in lines[1], "a was lucky: most answers of that stage are wrong"


def test_the_story_needs_two_evaluations_with_readable_samples(tmp_path: Path) -> None:
    write(tmp_path, "eval-sft", [sample("q", "a", 0.0, 0.0)])
    assert story(tmp_path, {"stages": [FIRST]}) == []
    assert story(tmp_path, {"stages": [FIRST, SECOND]}) == [], "the second file is not there"
    write(tmp_path, "eval-dpo", [sample("another", "a", 0.0, 0.0)])
    assert story(tmp_path, {"stages": [FIRST, SECOND]}) == [], "no prompt is shared"
    (tmp_path / "stages/eval-dpo/samples.jsonl").write_text("<html>\n")
    assert story(tmp_path, {"stages": [FIRST, SECOND]}) == []


def test_stages_that_only_make_rows_tell_of_those_rows() -> None:
    sample = {"name": "sample", "kind": "sample", "seconds": 5.0, "metrics": {"completions/distinct": figure(0.88)}}
    score = {
        "name": "score",
        "kind": "score",
        "seconds": 1.0,
        "metrics": {"score": figure(0.39, 0.36, 0.42, n=96), "unscorable/score": figure(1.0)},
    }
    assert ending({"stages": [sample, score]}) == [
        "",
        "  sample  completions/distinct 0.88  (n=200)  5 s",
        "  score   score 0.39 [0.36, 0.42]  (n=96)  1 s",
    ]


def test_rounds_have_a_line_each_between_the_stages_and_the_table() -> None:
    rounds = [
        {"round": 1, "state": "finished", "prompts": 40, "policy": {"name": "base"}},
        {"round": 2, "state": "skipped"},
    ]
    lines = ending({"stages": [FIRST], "rounds": rounds})
    assert lines[:3] == ["", "  round 1: 40 prompts to base", "  round 2: skipped"]
    assert all(
        len(line) <= 40
        for line in ending({"stages": [], "rounds": [{**rounds[0], "policy": {"name": "x" * 90}}] * 2}, 40)
    )


def test_a_long_round_goes_on_in_the_next_line() -> None:
    best = {"name": "eval-dpo-1", "metric": "accuracy", "value": 0.5}
    made = {"round": 1, "state": "finished", "policy": {"name": "MODEL"}, "prompts": 48, "best": best}
    long = {**made, "dropped": {"a-long-name-of-a-stage-1": {"tie": 17}, "another-long-name-of-a-stage-1": {"same": 5}}}
    lines = ending({"stages": [], "rounds": [long, {"round": 2, "state": "skipped"}]})
    assert max(map(len, lines)) <= 100
    assert " ".join(line.strip() for line in lines if line).endswith(
        "best so far eval-dpo-1, accuracy 0.50 round 2: skipped"
    )
