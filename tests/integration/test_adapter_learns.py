"""Adapters in the embedded world: manners from pairs, then correctness from a verifier, with the trunk frozen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import strop

pytestmark = pytest.mark.slow
ADAPTER = {"name": "lora", "r": 16}


def manners(world: Any, adapter: dict[str, Any] | None, lr: float) -> dict[str, Any]:
    return {
        "kind": "preference",
        "name": "dpo",
        "data": world.data("pairs"),
        "adapter": adapter,
        "objective": {"name": "dpo", "beta": 0.3, "nll_weight": 0.5},
        "optimizer": {"name": "adamw", "lr": lr},
        "schedule": {"name": "linear", "warmup": 6},
        "training": {"steps": 60, "batch_size": 32, "max_length": 128, "save_every": 0},
    }


def correctness(world: Any, lr: float) -> dict[str, Any]:
    return {
        "kind": "rl",
        "name": "grpo",
        "data": world.data("prompts"),
        "rewards": [world.reward("accuracy")],
        "num_generations": 8,
        "adapter": ADAPTER,
        "sampling": {"temperature": 1.0, "max_completion_length": 72},
        "objective": {"name": "grpo", "beta": 0.01},
        "optimizer": {"name": "adamw", "lr": lr},
        "schedule": {"name": "constant", "warmup": 5},
        "training": {"steps": 25, "batch_size": 32, "max_length": 128, "save_every": 0},
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_dpo_under_an_adapter_learns_manners(seed: int, world: Any, small_runs: Any, tmp_path: Path) -> None:
    rewards = [world.reward("polite"), world.reward("rude", 0), world.reward("accuracy", 0)]
    after = {**world.evaluation("@dpo", *rewards), "baseline": world.model}
    result = strop.run(world.recipe(tmp_path, seed, manners(world, ADAPTER, 5e-3), after), display="quiet")
    found = result.metrics["eval-dpo"]
    print(found)
    rows = [row for row in small_runs.numbers(result.path) if row["stage"] == "dpo"]
    print(rows[0], rows[-1])


@pytest.mark.parametrize("seed", [0, 1])
def test_grpo_under_an_adapter_learns_to_be_right(seed: int, world: Any, small_runs: Any, tmp_path: Path) -> None:
    after = {**world.evaluation("@grpo", world.reward("accuracy")), "baseline": world.model}
    result = strop.run(world.recipe(tmp_path, seed, correctness(world, 5e-3), after), display="quiet")
    found = result.metrics["eval-grpo"]
    print(found)
    rows = [row for row in small_runs.numbers(result.path) if row["stage"] == "grpo"]
    print([round(row["reward"],2) for row in rows], rows[0]["kl"], rows[-1]["kl"])
