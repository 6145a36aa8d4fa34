"""Adapters in the embedded world: manners from pairs, then correctness from a verifier, with the trunk frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import strop

pytestmark = pytest.mark.slow
ADAPTER = {"name": "lora", "r": 16}


def manners(world: Any) -> dict[str, Any]:
    return {
        "kind": "preference",
        "name": "dpo",
        "data": world.data("pairs"),
        "adapter": ADAPTER,
        "objective": {"name": "dpo", "beta": 0.3, "nll_weight": 0.5},
        "optimizer": {"name": "adamw", "lr": 5e-3},
        "schedule": {"name": "linear", "warmup": 6},
        "training": {"steps": 60, "batch_size": 32, "max_length": 128, "save_every": 0},
    }


def correctness(world: Any) -> dict[str, Any]:
    return {
        "kind": "rl",
        "name": "grpo",
        "data": world.data("prompts"),
        "rewards": [world.reward("accuracy")],
        "num_generations": 8,
        "adapter": ADAPTER,
        "sampling": {"temperature": 1.0, "max_completion_length": 72},
        "objective": {"name": "grpo", "beta": 0.01},
        "optimizer": {"name": "adamw", "lr": 5e-3},
        "schedule": {"name": "constant", "warmup": 5},
        "training": {"steps": 16, "batch_size": 32, "max_length": 128, "save_every": 0},
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_dpo_under_an_adapter_learns_manners(seed: int, world: Any, small_runs: Any, tmp_path: Path) -> None:
    rewards = [world.reward("polite"), world.reward("rude", 0), world.reward("accuracy", 0)]
    after = {**world.evaluation("@dpo", *rewards), "baseline": world.model}
    result = strop.run(world.recipe(tmp_path, seed, manners(world), after), display="quiet")
    found = result.metrics["eval-dpo"]
    assert found["delta/polite"]["low"] > 0.2  # measured: from 0.28 to 0.68 .. 0.69
    assert found["delta/rude"]["high"] < -0.2 and found["rude"]["value"] < 0.1
    rows = [row for row in small_runs.numbers(result.path) if row["stage"] == "dpo"]
    assert rows[0]["rewards/margins"] == 0 and rows[-1]["rewards/margins"] > 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_grpo_under_an_adapter_learns_to_be_right(seed: int, world: Any, small_runs: Any, tmp_path: Path) -> None:
    after = {**world.evaluation("@grpo", world.reward("accuracy")), "baseline": world.model}
    result = strop.run(world.recipe(tmp_path, seed, correctness(world), after), display="quiet")
    found = result.metrics["eval-grpo"]
    assert found["delta/accuracy"]["low"] > 0.15  # measured: from 0.52 .. 0.60 to 0.90
    rows = [row for row in small_runs.numbers(result.path) if row["stage"] == "grpo"]
    assert rows[0]["kl"] < 1e-9 < 1e-3 < rows[-1]["kl"]
    assert all(row["sampling/sampling_logp_difference/max"] < 1e-3 for row in rows)
