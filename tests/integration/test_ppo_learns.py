"""PPO from a model that speaks: the reward rises, the KL stays bounded, what the reward stands for rises as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import strop

pytestmark = pytest.mark.slow
STEPS, BATCH = 16, 64


def stage(world: Any, *rewards: dict[str, Any], **changes: Any) -> dict[str, Any]:
    made = {
        "kind": "ppo",
        "name": "ppo",
        "data": world.data("prompts"),
        "rewards": list(rewards),
        "sampling": {"temperature": 1.0, "max_completion_length": 72},
        "passes": 2,
        "minibatches": 2,
        "optimizer": {"name": "adamw", "lr": 3e-4, "eps": 1e-5},
        "critic_optimizer": {"name": "adamw", "lr": 1e-3, "eps": 1e-5},
        "schedule": {"name": "constant", "warmup": 0.0},
        "training": {"steps": STEPS, "batch_size": BATCH, "max_length": 128, "save_every": 0},
    }
    return {**made, **changes}


def rows_of(small_runs: Any, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    run = strop.run(recipe, display="quiet").path
    return [row for row in small_runs.numbers(run) if row["stage"] == "ppo"]


def ends(rows: list[dict[str, Any]], name: str, width: int = 4) -> tuple[float, float]:
    """A metric's mean over the first steps and over the last."""
    values = [row[name] for row in rows]
    return float(np.mean(values[:width])), float(np.mean(values[-width:]))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("critic", [None, "shared"])
def test_a_verifier(critic: str | None, seed: int, world: Any, small_runs: Any, tmp_path: Path) -> None:
    """Sampled accuracy goes from about 0.55 to 0.9 in a thousand completions."""
    rows = rows_of(small_runs, world.recipe(tmp_path, seed, stage(world, world.reward("accuracy"), critic=critic)))
    _, after = ends(rows, "reward")
    assert after > 0.8 and after > rows[0]["reward"] + 0.15
    assert 0 < ends(rows, "objective/kl")[1] < 6
    assert max(row["policy/approxkl_avg"] for row in rows) < 0.1
    assert ends(rows, "policy/entropy_avg")[1] > 0.02


@pytest.mark.parametrize(("seed", "critic"), [(0, None), (1, "@reward")])
def test_a_reward_model(seed: int, critic: str | None, world: Any, small_runs: Any, tmp_path: Path) -> None:
    """RLHF: a reward model learns manners from pairs, PPO learns them from it; nobody showed PPO what manners are."""
    reward = {
        "kind": "reward",
        "name": "reward",
        "data": world.data("pairs"),
        "optimizer": {"name": "adamw", "lr": 3e-4},
        "training": {"steps": 60, "batch_size": 16, "max_length": 128, "save_every": 0, "eval_fraction": 0.1},
    }
    judge = {"name": "model", "path": "@reward", "label": "judge"}
    ppo = stage(world, judge, world.reward("style", 0.0), model=world.model, critic=critic)
    rows = rows_of(small_runs, world.recipe(tmp_path, seed, {"model": world.model, **reward}, ppo))
    before, after = ends(rows, "reward")
    assert after > before + 0.5
    gold_before, gold_after = ends(rows, "rewards/style/mean")
    assert gold_after > gold_before + 0.3
    assert 0 < ends(rows, "objective/kl")[1] < 8
    assert ends(rows, "val/explained_variance")[1] > 0


def test_a_critic_alone_learns_what_answers_are_worth(world: Any, small_runs: Any, tmp_path: Path) -> None:
    """The policy frozen, Monte-Carlo targets: the critic explains part of who will be right."""
    changes = {"value_warmup": 20, "passes": 4, "gae": {"name": "gae", "lam": 1.0}}
    training = {"steps": 20, "batch_size": BATCH, "max_length": 128, "save_every": 0}
    made = stage(world, world.reward("accuracy"), **changes, training=training)
    rows = rows_of(small_runs, world.recipe(tmp_path, 0, made))
    assert rows[0]["val/explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert ends(rows, "val/explained_variance", 8)[1] > 0.25
    assert all(abs(row["objective/kl"]) < 1e-3 for row in rows), "the policy moved"
