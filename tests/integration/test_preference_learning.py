"""Offline preference losses on the world's manners: each tells held-out pairs apart, KTO from ratings alone too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import strop

STEPS = 30
AGAINST_A_REFERENCE: dict[str, dict[str, Any]] = {
    "dpo": {"name": "dpo", "beta": 0.3},
    "cdpo": {"name": "dpo", "beta": 0.3, "label_smoothing": 0.1},
    "dpo-llama3": {"name": "dpo", "beta": 0.3, "nll_weight": 0.2, "mask_formatting": True},
    "robust": {"name": "robust", "beta": 0.3},
    "dpop": {"name": "dpop", "beta": 0.3, "penalty": 5.0},
    "dpo_norm": {"name": "dpo_norm", "beta": 5.0},
    "r_dpo": {"name": "r_dpo", "beta": 0.3},
    "ipo": {"name": "ipo", "tau": 0.5},
    "ipo_sum": {"name": "ipo_sum", "tau": 0.1},
    "hinge": {"name": "hinge", "beta": 0.3},
    "apo_zero": {"name": "apo_zero", "beta": 0.3},
    "apo_down": {"name": "apo_down", "beta": 0.3},
}
REFERENCE_FREE: dict[str, dict[str, Any]] = {
    "orpo": {"name": "orpo", "weight": 1.0},
    "simpo": {"name": "simpo"},
    "cpo": {"name": "cpo", "beta": 0.3},
    "slic": {"name": "slic"},
    "ref_free": {"name": "ref_free", "beta": 0.3, "nll_weight": 0.5},
}

seeds = pytest.mark.parametrize("seed", [0, 1])


def stage(kind: str, data: dict[str, Any], objective: dict[str, Any]) -> dict[str, Any]:
    """A stage whose lr fits the world's small model, with held-out rows."""
    training = {"steps": STEPS, "batch_size": 16, "max_length": 128, "save_every": 0, "eval_fraction": 0.15}
    return {
        "kind": kind,
        "name": "tuned",
        "data": data,
        "objective": objective,
        "optimizer": {"name": "adamw", "lr": 5e-4},
        "schedule": {"name": "linear", "warmup": 4},
        "training": training,
    }


def figures(world: Any, folder: Path, seed: int, *stages: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every stage's closing figures."""
    result = strop.run(world.recipe(folder, seed, *stages), display="quiet")
    return {name: dict(found) for name, found in result.metrics.items()}


@pytest.mark.slow
@seeds
@pytest.mark.parametrize("name", AGAINST_A_REFERENCE)
def test_the_better_side_of_held_out_pairs_gets_the_higher_reward(
    name: str, seed: int, world: Any, tmp_path: Path
) -> None:
    """In most pairs, 0.89 to 0.98 of them; before the first step the rewards of both sides are 0."""
    pairs = stage("preference", world.data("pairs"), AGAINST_A_REFERENCE[name])
    found = figures(world, tmp_path, seed, pairs)["tuned"]
    assert abs(found["before/eval_rewards/margins"]["value"]) < 1e-4
    assert found["eval_rewards/accuracies"]["value"] > 0.85 and found["eval_rewards/accuracies"]["low"] > 0.8
    assert found["eval_rewards/margins"]["low"] > 0
    rise = found["eval_logps/chosen"]["value"] - found["before/eval_logps/chosen"]["value"]
    if name in ("dpop", "apo_down"):  # one keeps the chosen side, the other lowers it
        assert rise > -0.1 if name == "dpop" else rise < 0


@pytest.mark.slow
@seeds
@pytest.mark.parametrize("name", REFERENCE_FREE)
def test_without_a_reference_the_better_side_becomes_the_likelier(
    name: str, seed: int, world: Any, tmp_path: Path
) -> None:
    """The fine-tuned model already likes 0.6 of the better sides more: rewards are log-probs here."""
    pairs = stage("preference", world.data("pairs"), REFERENCE_FREE[name])
    found = figures(world, tmp_path, seed, pairs)["tuned"]
    before, after = found["before/eval_rewards/accuracies"], found["eval_rewards/accuracies"]
    assert after["value"] > before["value"] + 0.1 and after["low"] > before["value"]


@pytest.mark.slow
@seeds
@pytest.mark.parametrize("source", ["pairs", "ratings"])
def test_kto_learns_manners_from_pairs_and_from_unbalanced_ratings(
    source: str, seed: int, world: Any, tmp_path: Path
) -> None:
    tuned = stage("unpaired", world.data("pairs"), {"name": "kto", "beta": 0.3})
    if source == "ratings":  # one answer a prompt, four good ones to a bad one
        tuned = stage("unpaired", {"path": ratings(tmp_path, world)}, {**tuned["objective"], "undesirable_weight": 3.5})
        tuned["training"] |= {"batch_size": 32, "steps": 40}
    judged = world.evaluation("@tuned", world.reward("style"), limit=100)
    found = figures(world, tmp_path, seed, tuned, {**judged, "baseline": world.model})
    assert found["tuned"]["eval_rewards/margins"]["value"] > 0.3
    assert found["tuned"]["eval_loss"]["value"] < found["tuned"]["before/eval_loss"]["value"]
    assert found["eval-tuned"]["delta/style"]["low"] > 0.05
    assert found["eval-tuned"]["win_rate/style"]["low"] > 0.5


def ratings(folder: Path, world: Any) -> str:
    """One answer of each of the world's pairs with its label, every fifth the worse one."""
    file = folder / "ratings.jsonl"
    with file.open("w") as out:
        for number, line in enumerate(Path(world.data("pairs")["path"]).read_text().splitlines()):
            pair, good = json.loads(line), number % 5 != 0
            row = {"prompt": pair["prompt"], "completion": pair["chosen" if good else "rejected"], "label": good}
            out.write(json.dumps(row) + "\n")
    return str(file)
