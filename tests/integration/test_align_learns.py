"""`align` in the embedded world: manners from preferences and then the right answer from a verifier, and it ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import strop

pytestmark = pytest.mark.slow
BRIEF = {"save_every": 0, "eval_fraction": 0.0, "max_length": 128}


def settings(world: Any, runs: Path, seed: int) -> dict[str, Any]:
    """What a tiny model needs: higher learning rates, shorter answers; and the world's prompts and oracle."""
    watched = [world.reward(name, 0) for name in ("style", "polite", "rude", "thinks")]
    return {
        **{"seed": seed, "runs": str(runs), "threads": 1, "device": "cpu"},
        **{"dpo.objective.beta": 0.3, "dpo.objective.nll_weight": 0.5, "dpo.optimizer.lr": 5e-4},
        **{"dpo.schedule.warmup": 6, "dpo.training": {**BRIEF, "steps": 60, "batch_size": 32}},
        **{"grpo.data": world.data("prompts"), "grpo.rewards": [world.reward("accuracy"), *watched]},
        **{"grpo.sampling.max_completion_length": 72, "grpo.optimizer.lr": 6e-4, "grpo.schedule.warmup": 5},
        "grpo.training": {"steps": 35, "batch_size": 32, "max_length": 128, "save_every": 0},
        **{"evaluation.data": world.data("test", 200), "evaluation.rewards": [world.reward("accuracy"), *watched]},
        "evaluation.sampling": {"temperature": 1.0, "max_completion_length": 72},
    }


def check(result: Any, speaks: str) -> None:
    """Style rises with DPO, accuracy with GRPO while the style stays; the gate agrees, and the model is shipped.

    Args: speaks: the evaluation of the model that DPO starts from.
    """

    def figure(stage: str, name: str) -> Any:
        return result.metrics[f"eval-{stage}"][name]

    assert all(figure(stage, "accuracy")["n"] == 200 for stage in (speaks, "dpo", "grpo"))
    assert figure("dpo", "delta/style")["low"] > 0.5
    assert figure("dpo", "win_rate/style")["low"] > 0.6
    assert figure("dpo", "rude")["value"] < 0.1
    assert figure("dpo", "delta/accuracy")["low"] > -0.2  # style is not bought with arithmetic
    assert figure("grpo", "delta/accuracy")["low"] > 0.15
    assert figure("grpo", "accuracy")["value"] > 0.8
    assert figure("grpo", "delta/style")["low"] > -0.3  # by the KL: nothing else looks at the style any more
    assert figure("grpo", "style")["value"] > figure(speaks, "style")["value"] + 0.6
    assert result.metrics["ship"]["gate/passed"]["value"] == 1
    assert (result.artifacts["ship"]["model"] / "model.safetensors").is_file()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_chat_model_learns_from_its_own_labelled_answers(seed: int, world: Any, tmp_path: Path) -> None:
    """No SFT data and no pairs: its answers are sampled and compared by their style."""
    own = {
        "model": world.model,
        **{"sample.data": world.data("prompts", 384), "sample.sampling.max_completion_length": 72},
        **{"label.labeller": "scores", "label.rewards": [world.reward("style")], "label.pairs": "best_worst"},
    }
    result = strop.run("align", {**settings(world, tmp_path, seed), **own}, display="quiet")
    assert "sft" not in result.metrics and "sample" in result.metrics
    check(result, "start")


def test_from_random_weights_with_instructions_and_pairs(world: Any, tmp_path: Path) -> None:
    given = {
        **{"model": "world:base", "sft.data": {"path": "world:sft", "shuffle": False}, "dpo.data": "world:pairs"},
        "sft.optimizer": {"name": "muon", "lr": 0.015, "adamw": {"lr": 2e-3}},
        "sft.schedule": {"name": "linear", "warmup": 20, "hold": 0.5},
        "sft.training": {**BRIEF, "steps": 1200, "batch_size": 16},
    }
    result = strop.run("align", {**settings(world, tmp_path, 1), **given}, display="quiet")
    assert result.metrics["eval-start"]["accuracy"]["value"] == 0  # it cannot speak yet
    assert result.metrics["eval-sft"]["delta/accuracy"]["low"] > 0.2
    assert "sample" not in result.metrics
    check(result, "sft")
