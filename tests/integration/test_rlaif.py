"""RL from AI feedback in the embedded world, its rule-based critic in a judge's place: the gold score rises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import strop

pytestmark = pytest.mark.slow
SAMPLING = {"temperature": 1.0, "max_completion_length": 72}
CRITIC = {"name": "function", "function": "strop.world.critic:reply"}


def changes(world: Any, runs: Path, seed: int) -> dict[str, Any]:
    """The built-in recipe on the world's prompts, at a tiny model's learning rates.

    The critic sees manners and no arithmetic, so PPO on it alone gave that up (measured: by 0.04 and 0.28); a verifier
    stands beside it, as Bai et al. mix AI feedback on harm with people's on help.
    """
    training = {"batch_size": 32, "max_length": 128, "save_every": 0}
    return {
        "seed": seed,
        "model": world.model,
        "runs": str(runs),
        "threads": 1,
        "device": "cpu",
        "sample.data": world.data("prompts", 256),
        "sample.sampling": SAMPLING,
        "label.labeller.compare.backend": CRITIC,
        "reward.optimizer.lr": 1e-3,
        "reward.training": {**training, "batch_size": 16, "epochs": 2, "eval_fraction": 0.1},
        "ppo.data": world.data("prompts"),
        "ppo.rewards": [{"name": "model", "path": "@reward"}, world.reward("accuracy")],
        "ppo.sampling": SAMPLING,
        "ppo.passes": 2,
        "ppo.minibatches": 2,
        "ppo.optimizer.lr": 3e-4,
        "ppo.critic_optimizer.lr": 1e-3,
        "ppo.training": {**training, "steps": 14, "batch_size": 64},
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_a_judges_soft_labels_raise_the_gold_score(seed: int, world: Any, tmp_path: Path) -> None:
    run = strop.run("rlaif", changes(world, tmp_path, seed), display="quiet")
    rewards = [world.reward("style"), world.reward("accuracy"), world.reward("rude", 0)]
    evaluation = {**world.evaluation(str(run.path / "stages/ppo/model"), *rewards), "baseline": world.model}
    found = strop.run(world.recipe(tmp_path / "eval", seed, evaluation), display="quiet").metrics["eval-start"]
    assert run.metrics["reward"]["accuracy"]["value"] > 0.8
    assert found["delta/style"]["low"] > 0.3 and found["win_rate/style"]["low"] > 0.6
    assert found["delta/accuracy"]["value"] > -0.05
