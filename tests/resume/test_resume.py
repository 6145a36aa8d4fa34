"""A run killed at any moment and resumed gives the bits of the run that was never broken."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import strop

STEPS, SAVE_EVERY = 8, 3
METHODS = ("sft", "dpo", "reward", "grpo", "stale", "ppo")


def quick(*methods: str) -> list[Any]:
    """Every method, all but these in the slow tier."""
    return [m if m in methods else pytest.param(m, marks=pytest.mark.slow) for m in METHODS]


@dataclass(frozen=True, slots=True)
class Breaker:
    """Breaks runs, and compares them with the one of the same method that nothing happened to."""

    tiny: Any
    helpers: Any
    in_child: Callable[..., int]
    folder: Path

    def recipe(self, runs: Path, method: str) -> dict[str, Any]:
        stage = getattr(self.tiny, method)(steps=STEPS, save_every=SAVE_EVERY, eval_every=4)
        if method in ("grpo", "stale", "ppo"):
            stage["eval_data"] = self.tiny.data("test")
            stage["training"]["batch_size"] = 3
        else:
            stage["training"]["eval_fraction"] = 0.1
        recipe: dict[str, Any] = self.tiny.recipe(runs, stage)
        return recipe

    def unbroken(self, method: str) -> Path:
        runs = self.folder / method
        if not runs.exists():
            strop.run(self.recipe(runs, method), display="quiet")
        run: Path = self.helpers.only_run(runs)
        return run

    def kill(self, runs: Path, method: str, *at: Any) -> Path:
        """The directory of a run that was killed there."""
        assert self.in_child(self.recipe(runs, method), at=list(at), signal=int(signal.SIGKILL)) == -signal.SIGKILL
        run: Path = self.helpers.only_run(runs)
        return run

    def resume(self, run: Path, method: str) -> list[int]:
        """Finish the run and compare it; the steps it was ever resumed at."""
        strop.run(run, display="quiet")
        whole = self.unbroken(method)
        assert self.helpers.numbers(run) == self.helpers.numbers(whole)
        assert self.helpers.weights(run, method) == self.helpers.weights(whole, method)
        (ours,), (theirs,) = (self.helpers.summary(r)["stages"] for r in (run, whole))
        assert ours["metrics"] == theirs["metrics"]
        assert json.loads((run / "status.json").read_text())["state"] == "finished"
        return [event["step"] for event in self.helpers.events(run, "resume")]


@pytest.fixture(scope="module")
def breaker(tiny: Any, small_runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Breaker:
    return Breaker(tiny, small_runs, small_runs.Child(), tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize("method", quick("dpo", "grpo"))
def test_killed_before_the_first_checkpoint(method: str, breaker: Breaker, tmp_path: Path) -> None:
    run = breaker.kill(tmp_path, method, "step", method, 1)
    assert len(breaker.helpers.numbers(run)) == 2
    assert breaker.resume(run, method) == [0]


@pytest.mark.parametrize("method", quick("sft", "reward", "ppo"))
def test_killed_again_and_again_at_random_steps(method: str, breaker: Breaker, tmp_path: Path) -> None:
    draw = random.Random(method)
    run = breaker.kill(tmp_path, method, "step", method, draw.randrange(3, 6))
    again = ["step", method, draw.randrange(6, 8)]
    assert breaker.in_child(run, at=again, signal=int(signal.SIGKILL)) == -signal.SIGKILL
    assert breaker.resume(run, method) == [3, 6]


@pytest.mark.parametrize(
    ("call", "k", "resumed"),
    [
        ("fsync", 0, [0]),
        ("fsync", 3, [0]),
        ("rename", 0, [0]),
        ("fsync", 5, [3]),
        ("fsync", 8, [3]),
        ("rename", 1, [3]),
    ],
)
def test_killed_while_saving(call: str, k: int, resumed: list[int], breaker: Breaker, tmp_path: Path) -> None:
    """A save syncs three files, the manifest and the folder (0 to 4), renames it, and syncs the parent (5)."""
    run = breaker.kill(tmp_path, "sft", "call", call, k)
    assert breaker.resume(run, "sft") == resumed


@pytest.mark.parametrize("method", quick("sft", "stale"))
def test_killed_while_the_finished_model_is_written(method: str, breaker: Breaker, tmp_path: Path) -> None:
    run = breaker.kill(tmp_path, method, "phase", "saving", 2)  # after two checkpoints
    assert breaker.resume(run, method) == [6]


def test_killed_while_the_reference_is_asked(breaker: Breaker, tmp_path: Path) -> None:
    assert breaker.resume(breaker.kill(tmp_path, "dpo", "phase", "annotating", 0), "dpo") == []


def test_resumed_without_the_reference_cache(breaker: Breaker, tmp_path: Path) -> None:
    run = breaker.kill(tmp_path, "dpo", "step", "dpo", 4)
    shutil.rmtree(tmp_path / ".cache")
    assert breaker.resume(run, "dpo") == [3]


@pytest.mark.parametrize(("method", "number"), [("sft", signal.SIGTERM), ("grpo", signal.SIGINT)])
def test_asked_to_stop(method: str, number: int, breaker: Breaker, tmp_path: Path) -> None:
    assert breaker.in_child(breaker.recipe(tmp_path, method), at=["step", method, 4], signal=int(number)) == 130
    run = breaker.helpers.only_run(tmp_path)
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["stage"], status["step"]) == ("interrupted", method, 5)
    assert (run / "stages" / method / "checkpoints" / "step-000005").is_dir()
    assert len(breaker.helpers.numbers(run)) == 5
    assert breaker.resume(run, method) == [5]


def test_a_finished_run_is_left_as_it_is(breaker: Breaker) -> None:
    run = breaker.unbroken("sft")
    before = (run / "metrics.jsonl").read_bytes(), breaker.helpers.weights(run, "sft")
    strop.run(run, display="quiet")
    assert ((run / "metrics.jsonl").read_bytes(), breaker.helpers.weights(run, "sft")) == before


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", range(STEPS))
def test_killed_after_each_step(method: str, k: int, breaker: Breaker, tmp_path: Path) -> None:
    run = breaker.kill(tmp_path, method, "step", method, k)
    assert breaker.resume(run, method) == [SAVE_EVERY * (k // SAVE_EVERY)]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("call", "k"), [*(("fsync", k) for k in range(12)), ("rename", 0), ("rename", 1)])
def test_killed_at_each_moment_of_a_save(method: str, call: str, k: int, breaker: Breaker, tmp_path: Path) -> None:
    breaker.resume(breaker.kill(tmp_path, method, "call", call, k), method)


def test_resumed_in_bf16_without_the_reference_cache(breaker: Breaker, tmp_path: Path) -> None:
    """Under autocast the reference must be computed from fp32 weights again, as the policy was when it stood in."""
    recipe = {**breaker.recipe(tmp_path / "cut", "dpo"), "precision": "bf16"}
    assert breaker.in_child(recipe, at=["step", "dpo", 4], signal=int(signal.SIGKILL)) == -signal.SIGKILL
    shutil.rmtree(tmp_path / "cut" / ".cache")
    cut = strop.run(breaker.helpers.only_run(tmp_path / "cut"), display="quiet").path
    whole = strop.run({**recipe, "runs": str(tmp_path / "whole")}, display="quiet").path
    assert breaker.helpers.numbers(cut) == breaker.helpers.numbers(whole)
    assert breaker.helpers.weights(cut, "dpo") == breaker.helpers.weights(whole, "dpo")
