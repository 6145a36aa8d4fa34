"""Every group method, as its recipe has it, makes a model that speaks be right more often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import strop

STEPS, SEEDS = 12, (1, 2)
"""Of 16 prompts with 8 answers each; every method is above 0.8 at the end where the model begins at about 0.5."""
MINE: dict[str, dict[str, Any]] = {
    "grpo": {"minibatches": 2},
    "grpo-deepseek": {"minibatches": 2},
    "dr-grpo": {"minibatches": 2, "objective.constant_length": 72},
    "dapo": {"minibatches": 2},
    "gspo": {},
    "gspo-token": {},
    "cispo": {"minibatches": 2},
    "rloo": {"minibatches": 2},
    "reinforce-pp": {"minibatches": 2},
    "reinforce-pp-baseline": {"minibatches": 2},
}


def learn(world: Any, small_runs: Any, runs: Path, recipe: str, seed: int, **changes: Any) -> list[dict[str, Any]]:
    """The metrics of each step, trained on whether answers are right."""
    settings = {
        "model": world.model,
        "data": world.data("prompts"),
        "rewards": [world.reward("accuracy")],
        "seed": seed,
        "runs": str(runs / str(seed)),
        "device": "cpu",
        "threads": 1,
        "num_generations": 8,
        "sampling.max_completion_length": 72,
        "optimizer.lr": 6e-4,
        "schedule.warmup": 3,
        "training": {"steps": STEPS, "batch_size": 16, "max_length": 128, "save_every": 0},
    }
    run = strop.run(recipe, {**settings, **changes}, display="quiet").path
    rows: list[dict[str, Any]] = small_runs.numbers(run)
    return rows


def reward(rows: list[dict[str, Any]]) -> float:
    return float(np.mean([row["reward"] for row in rows]))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", MINE)
def test_the_reward_rises(recipe: str, world: Any, small_runs: Any, tmp_path: Path) -> None:
    for seed in SEEDS:
        rows = learn(world, small_runs, tmp_path, recipe, seed, **MINE[recipe])
        assert len(rows) == STEPS and all("loss" in row and "train/nonfinite" not in row for row in rows)
        assert reward(rows[-4:]) > reward(rows[:2]) + 0.1 and reward(rows[-4:]) > 0.68, (recipe, seed)


@pytest.mark.slow
def test_dynamic_sampling_keeps_steps_full_while_prompts_become_easy(
    world: Any, small_runs: Any, tmp_path: Path
) -> None:
    """Without it the steps thin out as the model learns; with it they do not, and more is sampled."""
    plain = learn(world, small_runs, tmp_path / "plain", "grpo", 1, minibatches=2)
    full = learn(world, small_runs, tmp_path / "full", "dapo", 1, minibatches=2)
    assert np.mean([row["groups/kept"] for row in plain[-4:]]) < 12
    assert all(row["groups/kept"] == 16 for row in full)
    assert full[-1]["groups/attempts"] > 1 and full[-1]["groups/accept_rate"] < 0.75
    assert reward(full[-4:]) > reward(plain[:2]) + 0.1


@pytest.mark.slow
def test_a_stale_sampler_still_teaches_and_its_age_is_known(world: Any, small_runs: Any, tmp_path: Path) -> None:
    for seed in SEEDS:
        rows = learn(
            world, small_runs, tmp_path, "grpo", seed, minibatches=2, sync_every=4, correction={"name": "token_tis"}
        )
        assert [row["staleness/mean"] for row in rows] == [0, 2, 4, 6] * 3
        assert reward(rows[-4:]) > reward(rows[:2]) + 0.1
        fresh, stale = rows[::4], rows[3::4]
        assert all(row["sampling/ess"] == pytest.approx(1, abs=1e-4) and row["sampling/kl"] < 1e-6 for row in fresh)
        assert all(row["sampling/ess"] < 0.999 and row["sampling/kl"] > 1e-3 for row in stale)
        assert all(row["sampling/importance_sampling_ratio/max"] <= 2 for row in rows)
        assert all(0.9 < row["sampling/importance_sampling_ratio/mean"] < 1.05 for row in rows)
