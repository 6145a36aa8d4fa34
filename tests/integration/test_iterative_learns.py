"""Online DPO, RAFT and best-of-n in the embedded world: what they learn from a verifier and a style score."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.data.formats import load_dataset
from strop.evaluate.best_of import best_of_curve, best_of_k, best_of_n_kl
from strop.evaluate.statistics import paired

pytestmark = pytest.mark.slow
SAMPLING = {"temperature": 1.0, "max_completion_length": 72}


def rewards(world: Any) -> list[dict[str, Any]]:
    return [world.reward("accuracy"), world.reward("style", 0.5), world.reward("rude", 0)]


def sampled(world: Any, num_prompts: int, num_samples: int) -> list[dict[str, Any]]:
    """Stages that sample and score."""
    data = world.data("prompts", num_prompts)
    sample = {"kind": "sample", "name": "sample", "data": data, "num_samples": num_samples, "sampling": SAMPLING}
    return [sample, {"kind": "score", "name": "score", "data": "@sample", "rewards": rewards(world)[:2]}]


def after(world: Any, model: str) -> dict[str, Any]:
    return {**world.evaluation(model, *rewards(world)), "baseline": world.model}


@pytest.mark.parametrize("seed", [0, 1])
def test_online_dpo_raises_what_it_is_rewarded_for(seed: int, world: Any, small_runs: Any, tmp_path: Path) -> None:
    online = {
        "kind": "online",
        "name": "online",
        "data": world.data("prompts"),
        "rewards": rewards(world),
        "num_generations": 4,
        "sampling": {**SAMPLING, "temperature": 0.9},
        "objective": {"name": "dpo", "beta": 0.1},
        "optimizer": {"name": "adamw", "lr": 3e-4},
        "schedule": {"name": "constant", "warmup": 5},
        "training": {"steps": 25, "batch_size": 32, "max_length": 128, "save_every": 0},
    }
    result = strop.run(world.recipe(tmp_path, seed, online, after(world, "@online")), display="quiet")
    found = result.metrics["eval-online"]
    assert found["delta/accuracy"]["low"] > 0.1  # measured: from 0.55 to 0.83 .. 0.87
    assert found["delta/style"]["low"] > 0.3 and found["win_rate/style"]["low"] > 0.6
    assert found["rude"]["value"] < 0.25
    rows = [row for row in small_runs.numbers(result.path) if row["stage"] == "online"]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[-1]["reward"] > rows[0]["reward"] + 0.3 and 0.05 < rows[-1]["objective/kl"] < 3


@pytest.mark.parametrize("seed", [0, 1])
def test_raft_improves_over_its_start(seed: int, world: Any, tmp_path: Path) -> None:
    select = {"kind": "select", "name": "select", "data": "@score", "keep": ["finished", "best"]}
    tuned = {
        "kind": "sft",
        "name": "raft",
        "data": "@select",
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"name": "linear", "warmup": 5},
        "training": {"epochs": 2, "batch_size": 32, "max_length": 128, "save_every": 0},
    }
    stages = (*sampled(world, 512, 8), select, tuned, after(world, "@raft"))
    result = strop.run(world.recipe(tmp_path, seed, *stages), display="quiet")
    found = result.metrics["eval-raft"]
    assert found["delta/accuracy"]["low"] > 0.05  # measured: from 0.55 to 0.78
    assert found["delta/style"]["low"] > 0.7 and found["win_rate/style"]["low"] > 0.7
    score, kept = result.metrics["score"], result.metrics["select"]
    assert kept["score"]["value"] == pytest.approx(score["best@8/score"]["value"], abs=0.02)  # but for cut answers


def test_the_best_of_k_estimate_agrees_with_really_taking_the_best_of_k(world: Any, tmp_path: Path) -> None:
    run = strop.run(world.recipe(tmp_path, 0, *sampled(world, 300, 16)), display="quiet").path
    groups = load_dataset(str(run / "stages/score/samples.jsonl")).groups
    scores = [[c.score for c in g.completions] for g in groups]
    first, fresh = [row[:8] for row in scores], [row[8:] for row in scores]
    curve = best_of_curve(first, (1, 2, 4, 8)).points
    values = [point.value for point in curve.values()]
    assert values == sorted(values) and values[-1] > values[0] + 0.5
    for k in (1, 2, 4, 8):
        really = [[max(x for x in row[:k] if x is not None)] for row in fresh]
        estimated = [[best_of_k(row, k)] for row in first]
        gap = paired(estimated, really)
        assert gap.low is not None and gap.high is not None and gap.low <= 0 <= gap.high, k
    assert best_of_n_kl(8) == pytest.approx(1.204, abs=1e-3)
