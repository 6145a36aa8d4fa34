"""Constitutional AI in the embedded world, a rule-based critic in a language model's place: manners without labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import strop

pytestmark = pytest.mark.slow
SAMPLING = {"temperature": 1.0, "max_completion_length": 72}
CRITIC = {"name": "function", "function": "strop.world.critic:reply"}


def changes(world: Any, runs: Path, seed: int) -> dict[str, Any]:
    """The built-in recipe on the world's prompts, at a tiny model's learning rates."""
    training = {"epochs": 1, "batch_size": 16, "max_length": 128, "save_every": 0}
    return {
        "seed": seed,
        "model": world.model,
        "runs": str(runs),
        "threads": 1,
        "device": "cpu",
        "sample.data": world.data("prompts", 1024),
        "sample.sampling": SAMPLING,
        "revise.constitution": "world",
        "revise.critic": CRITIC,
        "sft.optimizer.lr": 1e-3,
        "sft.training": training,
        "answers.data": world.data("prompts", 384),
        "answers.num_samples": 4,
        "answers.sampling": SAMPLING,
        "label.labeller.constitution": "world",
        "label.labeller.num_principles": 2,
        "label.labeller.compare.backend": CRITIC,
        "label.pairs.num": 2,
        "dpo.objective": {"name": "dpo", "beta": 0.3, "soft_labels": True, "nll_weight": 0.5},
        "dpo.optimizer.lr": 3e-4,
        "dpo.training": training,
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_revisions_and_judged_pairs_teach_manners_and_keep_arithmetic(
    seed: int, world: Any, small_runs: Any, tmp_path: Path
) -> None:
    run = strop.run("constitutional", changes(world, tmp_path, seed), display="quiet").path
    rewards = [world.reward("style"), world.reward("accuracy", 0), world.reward("rude", 0), world.reward("polite", 0)]
    found = {}
    for name in ("sft", "dpo"):
        evaluation = {**world.evaluation(str(run / f"stages/{name}/model"), *rewards), "baseline": world.model}
        recipe = world.recipe(tmp_path / f"eval-{name}", seed, evaluation)
        found[name] = strop.run(recipe, display="quiet").metrics["eval-start"]
    for figures in found.values():
        assert figures["delta/style"]["low"] > 0.4 and figures["delta/accuracy"]["value"] > -0.12
    assert found["dpo"]["style"]["value"] > 0.7 and found["dpo"]["rude"]["value"] < 0.1
    row = json.loads((run / "stages/revise/samples.jsonl").read_text().splitlines()[0])
    assert "critique" not in json.dumps(row)
