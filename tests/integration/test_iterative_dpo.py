"""The recipe `iterative-dpo` in the embedded world: each round is better than the last, up to the held-out peak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import strop

pytestmark = pytest.mark.slow
SAMPLING = {"temperature": 1.0, "max_completion_length": 72}
SMALL = {"max_length": 128, "save_every": 0}


def changes(world: Any, runs: Path, seed: int, **more: Any) -> dict[str, Any]:
    """The built-in recipe at a tiny model's learning rates; the gold score labels, as people would."""
    watched = [world.reward(name, float(name == "gold")) for name in ("gold", "accuracy", "style")]
    given = {
        "seed": seed,
        "runs": str(runs),
        "threads": 1,
        "device": "cpu",
        "model": world.model,
        "sample.data": world.data("prompts"),
        "sample.num_prompts": 256,
        "sample.sampling": SAMPLING,
        "label.labeller": "scores",
        "label.rewards": [world.reward("gold")],
        "label.pairs": "best_worst",
        "reward.optimizer.lr": 1e-3,
        "reward.training": {**SMALL, "epochs": 1, "batch_size": 16, "eval_fraction": 0.1},
        "sft.optimizer.lr": 1e-3,
        "sft.training": {**SMALL, "epochs": 1, "batch_size": 32},
        "dpo.optimizer.lr": 4e-4,
        "dpo.training": {**SMALL, "epochs": 1, "batch_size": 32, "eval_fraction": 0.0},
        "evaluation.data": world.data("test", 200),
        "evaluation.rewards": watched,
        "evaluation.sampling": SAMPLING,
    }
    return {**given, **more}


def peaks(run: Any, small_runs: Any) -> list[float]:
    """The best held-out gold by the end of each round that ran, behind the start's."""
    rounds = [made for made in small_runs.summary(run.path)["rounds"] if made["state"] == "finished"]
    return [run.metrics["eval-start"]["gold"]["value"], *(made["best"]["value"] for made in rounds)]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_rounds_improve_and_end_at_the_held_out_peak(
    seed: int, world: Any, small_runs: Any, tmp_path: Path
) -> None:
    """A gold of two is the most there is; a round must be worth .2 of it for the rounds to go on."""
    given = changes(world, tmp_path, seed, **{"rounds.times": 5, "peak.min_gain": 0.2})
    run = strop.run("iterative-dpo", given, display="quiet")
    assert run.error is None
    gold = peaks(run, small_runs)
    assert gold[1] > gold[0] + 0.5 and gold[2] > gold[1] + 0.2 and max(gold) > 1.5
    assert run.metrics["eval-peak-5"]["delta/gold"]["low"] > 1.0
    summary = small_runs.summary(run.path)
    states = [made["state"] for made in summary["rounds"]]
    assert states == ["finished"] * (len(gold) - 1) + ["skipped"] * (6 - len(gold)) and "skipped" in states
    peak = summary["rounds"][-1]["best"]
    assert peak == summary["rounds"][len(gold) - 3]["best"], "the last round that ran was not the best"
    chosen = next(s for s in summary["stages"] if s["name"] == peak["name"])["inputs"]["model"].removeprefix("@")
    assert small_runs.weights(run.path, "peak-5") == small_runs.weights(run.path, chosen)


def test_labels_against_what_is_wanted_leave_the_start(world: Any, small_runs: Any, tmp_path: Path) -> None:
    """Whoever prefers the worse answer makes the held-out gold fall; the first round is the last, and is not kept."""
    worse = [world.reward("gold", -1.0)]
    given = changes(world, tmp_path, 0, **{"rounds.times": 3, "label.rewards": worse})
    run = strop.run("iterative-dpo", given, display="quiet")
    gold = {name: found["gold"]["value"] for name, found in run.metrics.items() if "gold" in found}
    assert gold["eval-average-1"] < gold["eval-start"] - 0.3
    rounds = small_runs.summary(run.path)["rounds"]
    assert [made["state"] for made in rounds] == ["finished", "skipped", "skipped"]
    assert rounds[0]["best"]["name"] == "eval-start"
    assert gold["eval-peak-3"] == pytest.approx(gold["eval-start"], abs=0.2)


def test_the_state_of_a_round_is_told(world: Any, small_runs: Any, tmp_path: Path) -> None:
    """Policy, reward model, prompts, seeds and what the filters refused, from the run's own files."""
    pairs = world.data("pairs", 64)
    few = {"rounds.times": 2, "sample.num_prompts": 64, "sample.num_samples": 4, "pairs.data": pairs}
    path = strop.run("iterative-dpo", changes(world, tmp_path, 0, **few), display="quiet").path
    first, second = small_runs.summary(path)["rounds"]
    stages = {s["name"]: s for s in small_runs.summary(path)["stages"]}
    assert first["policy"]["name"] == world.model and second["policy"]["name"] == "@peak-1"
    assert first["policy"]["hash"] != second["policy"]["hash"] and first["prompts"] == second["prompts"] == 64
    files = [path / f"stages/sample-{i}/samples.jsonl" for i in (1, 2)]
    asked = [{str(row["prompt"]) for row in small_runs.lines(file)} for file in files]
    assert len(asked[0] & asked[1]) < 16, "the second round draws other prompts"
    grown = [stages[f"preferences-{i}"]["data"]["rows"] for i in (1, 2)]
    labelled = [stages[f"label-{i}"]["data"]["kept"] for i in (1, 2)]
    assert grown == [64 + labelled[0], 64 + labelled[0] + labelled[1]], "all comparisons so far"
    assert stages["dpo-2"]["data"]["rows"] == labelled[1], "the round's own pairs"
    assert second["reward_model"]["name"] == "reward-2" and second["reward_model"]["accuracy"] > 0.7
    for made in (first, second):
        for name, reasons in made["dropped"].items():
            assert stages[name]["data"]["dropped"] == reasons and all(reasons.values())
    assert set(first["seeds"].values()).isdisjoint(second["seeds"].values())
