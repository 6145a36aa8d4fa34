"""The recipe `rlhf` in the embedded world: people's gold score rises at a bounded KL, with and without the refresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import strop

pytestmark = pytest.mark.slow
SAMPLING = {"temperature": 1.0, "max_completion_length": 72}
SMALL = {"max_length": 128, "save_every": 0}


@pytest.fixture(scope="module")
def pairs(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hundred comparisons of the SFT model's own answers, by the gold score, as people would make them."""
    stages: list[dict[str, Any]] = [
        {
            "kind": "sample",
            "name": "sample",
            "data": world.data("prompts", 400),
            "num_samples": 4,
            "sampling": SAMPLING,
        },
        {"kind": "score", "name": "score", "data": "@sample", "rewards": [world.reward("gold")]},
        {"kind": "select", "name": "pairs", "data": "@score", "keep": ["finished", "pair"]},
    ]
    run = strop.run(world.recipe(tmp_path_factory.mktemp("pairs"), 0, *stages), display="quiet").path
    return run / "stages/pairs/samples.jsonl"


def changes(world: Any, runs: Path, seed: int, pairs: Path) -> dict[str, Any]:
    """The built-in recipe on the world's prompts, at a tiny model's learning rates."""
    scorer = {"optimizer.lr": 1e-3, "training": {**SMALL, "epochs": 2, "batch_size": 16, "eval_fraction": 0.1}}
    ppo = {
        "data": world.data("prompts"),
        "rewards": [{"name": "model", "path": "@refresh"}, world.reward("gold", 0.0)],
        "passes": 2,
        "minibatches": 2,
        "optimizer.lr": 3e-4,
        "critic_optimizer.lr": 1e-3,
        "monitor.data": world.data("test"),
        "monitor.every": 4,
        "training": {**SMALL, "steps": 24, "batch_size": 64},
    }
    watched = [world.reward(name, float(name == "gold")) for name in ("gold", "accuracy", "style")]
    return {
        "seed": seed,
        "runs": str(runs),
        "threads": 1,
        "device": "cpu",
        "model": world.model,
        "pairs.data": str(pairs),
        "scale.data": world.data("prompts"),
        "scale.num_prompts": 64,
        **{f"{name}.sampling": SAMPLING for name in ("scale", "ppo", "evaluation")},
        **{f"reward.{key}": value for key, value in scorer.items()},
        **{f"ppo.{key}": value for key, value in ppo.items()},
        "evaluation.data": world.data("test", 200),
        "evaluation.rewards": watched,
    }


def refreshed(world: Any, given: dict[str, Any], times: int) -> dict[str, Any]:
    """The same, with the reward model taught anew before each round of PPO."""
    return {
        **given,
        "rounds.times": times,
        "refresh.data": world.data("prompts"),
        "refresh.rewards": [world.reward("gold")],
        "refresh.sampling": SAMPLING,
        "refresh.optimizer.lr": 1e-3,
        "refresh.training": given["reward.training"],
        "ppo.training": {**given["ppo.training"], "steps": 10},
    }


def kl_of(small_runs: Any, run: Path, stage: str) -> float:
    """Nats an answer from the SFT model, the mean of a stage's last steps."""
    rows = [row["objective/kl"] for row in small_runs.numbers(run) if row["stage"] == stage]
    return float(sum(rows[-4:]) / 4)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gold_score_rises_at_a_bounded_kl(
    seed: int, world: Any, small_runs: Any, pairs: Path, tmp_path: Path
) -> None:
    run = strop.run("rlhf", changes(world, tmp_path, seed, pairs), display="quiet")
    assert run.error is None
    honest = run.metrics["reward"]
    assert honest["accuracy"]["value"] > 0.8 and honest["nll"]["value"] < 0.5
    assert {"ece", "temperature", "len_slope", "nll_calibrated", "accuracy_chosen_shorter"} <= honest.keys()
    before, after = run.metrics["eval-start"], run.metrics["eval-ppo-1"]
    assert after["gold"]["value"] > before["gold"]["value"] + 0.8
    assert after["delta/gold"]["low"] > 0.6 and after["win_rate/gold"]["low"] > 0.65
    assert 0.1 < kl_of(small_runs, run.path, "ppo-1") < 4


def test_all_three_stages_from_random_weights(world: Any, small_runs: Any, pairs: Path, tmp_path: Path) -> None:
    """Demonstrations teach it to speak, comparisons what is better; the pairs are another model's."""
    sft = {
        "data": {**world.data("sft"), "shuffle": False},
        "optimizer": {"name": "muon", "lr": 0.015, "adamw": {"lr": 2e-3}},
        "schedule": {"name": "linear", "warmup": 20, "hold": 0.5},
        "training": {**SMALL, "steps": 1200, "batch_size": 16},
    }
    given = {**changes(world, tmp_path, 2, pairs), "model": "world:base", **{f"sft.{k}": v for k, v in sft.items()}}
    run = strop.run("rlhf", given, display="quiet")
    assert run.error is None
    gold = {name: found["gold"]["value"] for name, found in run.metrics.items() if "gold" in found}
    assert gold["eval-start"] < -0.9 and gold["eval-sft"] > -0.2
    assert gold["eval-ppo-1"] > gold["eval-sft"] + 0.7
    assert run.metrics["eval-ppo-1"]["delta/gold"]["low"] > 0.5, "against the SFT model"
    assert 0.1 < kl_of(small_runs, run.path, "ppo-1") < 4


@pytest.mark.parametrize("seed", [0, 1])
def test_a_reward_model_that_is_refreshed_in_the_loop(
    seed: int, world: Any, small_runs: Any, pairs: Path, tmp_path: Path
) -> None:
    """Few pairs to begin with, and each round's labels go where the policy is; both rounds raise the gold."""
    given = refreshed(world, changes(world, tmp_path, seed, pairs), times=2)
    run = strop.run("rlhf", {**given, "pairs.data": {"path": str(pairs), "limit": 120}}, display="quiet")
    assert run.error is None
    labelled = small_runs.lines(run.path / "stages/refresh-1/samples.jsonl")
    assert len(labelled) == 256, "of 2048 prompts"
    gold = [run.metrics[name]["gold"]["value"] for name in ("eval-start", "eval-ppo-1", "eval-ppo-2")]
    assert gold[1] > gold[0] + 0.2 and gold[2] > gold[1] + 0.15 and gold[2] > gold[0] + 0.6
    assert kl_of(small_runs, run.path, "ppo-1") < kl_of(small_runs, run.path, "ppo-2") < 4
    assert run.metrics["refresh-2"]["old/accuracy"]["value"] > 0.75
