"""The built-in recipe `prm` in the embedded world: from a verifier of answers to a judge of steps, and its three uses.

The world's model after SFT mostly answers at once and is then mostly wrong, and mostly right where it reasons first:
much of what a process reward model learns here is that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import strop

SAMPLING = {"temperature": 1.0, "max_completion_length": 72}
SEEDS = [0, 1]


def prm(world: Any, runs: Path, seed: int) -> dict[str, Any]:
    """The built-in recipe at a tiny model's size; steps end at semicolons here."""
    search = {"data": world.data("test", 160), "sampling": SAMPLING}
    changes = {
        "steps": {
            "data": world.data("prompts", 400),
            **{"num_samples": 4, "num_continuations": 4, "separator": ";", "save_every": 100, "sampling": SAMPLING},
        },
        "prm": {
            **{"separator": ";", "optimizer.lr": 1e-3},
            "training": {"epochs": 3, "batch_size": 16, "max_length": 256, "eval_fraction": 0.1, "save_every": 0},
        },
        "best-of-n": {**search, "method.num_samples": 8},
        "beam": {**search, "method": {"name": "beam", "width": 8, "expand": 4, "separator": ";", "max_steps": 8}},
        "grpo": {
            **{"data": world.data("prompts"), "sampling": SAMPLING, "optimizer.lr": 6e-4},
            "schedule": {"name": "constant", "warmup": 5},
            # Later it is over-optimised.
            "training": {"steps": 12, "batch_size": 32, "max_length": 128, "save_every": 0},
        },
        "evaluation": {"data": world.data("test", 400), "num_samples": 1, "sampling": SAMPLING},
    }
    shared = {"seed": seed, "model": world.model, "runs": str(runs), "threads": 1, "device": "cpu"}
    return {**shared, **{f"{name}.{key}": value for name, stage in changes.items() for key, value in stage.items()}}


@pytest.fixture(scope="module")
def judged(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Any]:
    """The finished run of a seed."""

    @cache
    def run_of(seed: int) -> Any:
        return strop.run("prm", prm(world, tmp_path_factory.mktemp("prm"), seed), display="quiet")

    return run_of


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_of_continuations_tells_steps_apart(seed: int, judged: Callable[[int], Any]) -> None:
    """Without any labelled step: only a verifier of final answers."""
    found = judged(seed).metrics["prm"]
    assert found["eval_auroc"]["low"] > 0.8 and found["eval_f1/wrong"]["value"] > 0.7
    assert found["eval_first_error_accuracy"]["value"] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_it_chooses_better_than_the_majority(seed: int, judged: Callable[[int], Any]) -> None:
    found = judged(seed).metrics["best-of-n"]
    assert found["best_of@8/accuracy"]["low"] > found["best_of@1/accuracy"]["high"]
    assert found["delta/best_of-maj/accuracy"]["low"] > 0 and found["delta/vote-maj/accuracy"]["low"] > 0
    assert found["pass@8/accuracy"]["value"] >= found["best_of@8/accuracy"]["value"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_it_steers_a_search_step_by_step(seed: int, judged: Callable[[int], Any]) -> None:
    """Two beginnings kept of eight, against one sample of the same model to the same prompts."""
    metrics = judged(seed).metrics
    assert metrics["beam"]["chosen/accuracy"]["low"] > metrics["best-of-n"]["best_of@1/accuracy"]["high"]
    assert metrics["beam"]["kept/accuracy"]["value"] >= metrics["beam"]["chosen/accuracy"]["value"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_credit_for_steps_teaches_without_a_verifier(seed: int, judged: Callable[[int], Any]) -> None:
    """The policy never sees an answer judged, only its steps."""
    run = judged(seed)
    assert run.metrics["eval-grpo"]["delta/accuracy"]["low"] > 0
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["stage"] == "grpo"]
    assert steps[-1]["rewards/steps/mean"] > steps[0]["rewards/steps/mean"]
