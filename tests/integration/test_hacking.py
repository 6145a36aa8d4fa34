"""Reward hacking in the embedded world: it is seen while it happens, honest learning is not, and two cures hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import strop

pytestmark = pytest.mark.slow
STEPS = 24


def grader(name: str) -> dict[str, Any]:
    return {"name": "custom", "function": f"strop.world.{name}", "label": "proxy"}


@pytest.fixture(scope="module")
def start(world: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The quickstart's second stage: a polite model, gold about 1.2, in which the tricks are rare."""
    dpo = {
        "kind": "preference",
        "name": "dpo",
        "data": world.data("pairs"),
        "objective": {"name": "dpo", "beta": 0.3, "nll_weight": 0.5},
        "optimizer": {"name": "adamw", "lr": 5e-4},
        "schedule": {"name": "linear", "warmup": 6},
        "training": {"steps": 60, "batch_size": 32, "max_length": 128, "save_every": 0},
    }
    run = strop.run(world.recipe(tmp_path_factory.mktemp("start"), 0, dpo), display="quiet").path
    return str(run / "stages/dpo/model")


def rl(world: Any, start: str, proxy: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """RLOO without a KL."""
    stage = {
        "kind": "rl",
        "name": "rl",
        "model": start,
        "data": world.data("prompts"),
        "rewards": [proxy],
        "num_generations": 8,
        "sampling": {"temperature": 1.0, "max_completion_length": 72},
        "advantage": {"name": "leave_one_out"},
        "objective": {"name": "rloo"},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"name": "constant", "warmup": 3},
        "training": {"steps": STEPS, "batch_size": 16, "max_length": 128, "save_every": 0},
    }
    return {**stage, **changes}


def watch(world: Any, **changes: Any) -> dict[str, Any]:
    """The gold held out, on test prompts."""
    held_out = {**grader("rewards:gold"), "label": "gold"}
    looks = {"data": world.data("test"), "num_prompts": 64, "num_generations": 4, "every": 2, "rewards": [held_out]}
    return {**looks, **changes}


def done(world: Any, runs: Path, seed: int, stage: dict[str, Any]) -> tuple[list[dict[str, Any]], float]:
    """The alarms of a run, and the gold of what it leaves."""
    gold = {**grader("rewards:gold"), "label": "gold"}
    path = strop.run(world.recipe(runs, seed, stage, world.evaluation("@rl", gold)), display="quiet").path
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    stages = {s["name"]: s["metrics"] for s in json.loads((path / "summary.json").read_text())["stages"]}
    return [e for e in events if e.get("severity") == "alarm"], stages["eval-rl"]["gold"]["value"]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_hack_is_seen_with_its_step_and_a_rollback_keeps_the_gold(
    seed: int, world: Any, start: str, tmp_path: Path
) -> None:
    """A grader who likes length: without a stop the gold ends below its start."""
    proxy = grader("hacks:longest")
    alarms, hacked = done(world, tmp_path, seed, rl(world, start, proxy, monitor=watch(world)))
    assert alarms and 4 <= alarms[0]["step"] <= 14
    assert {"length", "phrase", "held_out_falls"} & {alarm["code"] for alarm in alarms}
    back = rl(world, start, proxy, monitor=watch(world, on_alarm="rollback"))
    ended, kept = done(world, tmp_path, seed, back)
    assert ended[0]["step"] == alarms[0]["step"], "the monitor changed what it watched"
    assert hacked < 1.0 and kept > hacked + 0.3


@pytest.mark.parametrize("seed", [0, 1])
def test_a_bound_keeps_the_gold(seed: int, world: Any, start: str, tmp_path: Path) -> None:
    """The grader who likes a phrase, believed up to the best honest score: gold ends above 1.5, not at 1."""
    inner = {"name": "custom", "function": "strop.world.hacks:boilerplate"}
    bounded = {"name": "shaped", "reward": inner, "shape": {"name": "clip", "low": -2.0, "high": 2.0}}
    _, gold = done(world, tmp_path, seed, rl(world, start, bounded))
    assert gold > 1.5


@pytest.mark.parametrize("seed", [0, 1])
def test_an_honest_reward_raises_no_alarm(seed: int, world: Any, start: str, tmp_path: Path) -> None:
    """The reward is the gold: answers grow, thinking appears, entropy falls, all of it for good."""
    alarms, gold = done(world, tmp_path, seed, rl(world, start, grader("rewards:gold"), monitor=watch(world)))
    assert not alarms and gold > 1.6
