"""The setting `monitor`: what is refused, and that its rewards and data are seen by hashes, checks and preflight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import strop
from strop.recipes import artifacts
from strop.recipes.config import RecipeError, load_recipe
from strop.recipes.settings import OnPolicyStage

RL: dict[str, Any] = {"kind": "rl", "name": "rl", "model": "m", "data": "d.jsonl", "rewards": "number"}


def made(**monitor: Any) -> OnPolicyStage:
    stage = load_recipe({**RL, "monitor": monitor}).stages[0]
    assert isinstance(stage, OnPolicyStage)
    return stage


@pytest.mark.parametrize(
    ("monitor", "words"),
    [
        ({"num_prompts": 7}, "monitor.num_prompts: must be at least 8, got 7"),
        ({"patience": 0}, "monitor.patience: must be at least 1"),
        ({"early_stop": 2}, "monitor.early_stop: needs held-out rewards"),
        ({"on_alarm": "panic"}, "monitor.on_alarm: expected one of warn, stop, rollback"),
        ({"sampling": {"temperature": 0}}, "monitor.sampling.temperature: 0 is greedy"),
        ({"thresholds": {"fdr": 2.0}}, "thresholds.fdr must be above 0 and below 1, got 2"),
        ({"reward": "number"}, "monitor.reward: unknown; did you mean"),
        ({"rewards": ["number", "number"]}, "monitor.rewards[1]: rewards[0] is logged as 'number' too"),
    ],
)
def test_what_is_wrong_is_said_where(monitor: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as error:
        made(**monitor)
    assert words in str(error.value)


@pytest.mark.parametrize("kind", ["rl", "ppo", "online", "preference", "unpaired"])
def test_every_kind_that_trains_a_policy_takes_one(kind: str) -> None:
    stage = {"kind": kind, "name": kind, "model": "m", "data": "d.jsonl", "monitor": {"every": 5, "rewards": "number"}}
    if kind in ("rl", "ppo", "online"):
        stage["rewards"] = "number"
    found = load_recipe(stage).stages[0]
    assert found.monitor is not None and found.monitor.rewards[0].name == "number"  # type: ignore[union-attr]


def test_its_models_and_code_and_data_are_read_as_the_stages_own() -> None:
    rewards = [{"name": "model", "path": "@rm"}, {"name": "custom", "function": "gold.py:f"}]
    stage = made(rewards=rewards[1:], data="held.jsonl")
    assert dict(artifacts.code_files(stage)) == {"monitor.rewards.0.function": Path("gold.py")}
    assert artifacts.sources_of(stage)["monitor.data"].path == "held.jsonl"
    assert "monitor.data.path" not in artifacts.models_of(strop.load_recipe(RL), stage)
    with pytest.raises(RecipeError, match="@rm: no earlier stage of that name"):
        made(rewards=rewards)


def test_the_hash_follows_what_it_reads_and_not_where_it_stands() -> None:
    def hashed(**monitor: Any) -> str:
        stage = made(**monitor)
        return artifacts.hash_stage(stage, seed=0, device="cpu", precision="fp32", inputs={})

    assert hashed(data="a.jsonl") == hashed(data="b.jsonl")
    assert hashed(every=5) != hashed(every=6)


def test_names_of_models_become_paths() -> None:
    stage = made(rewards=[{"name": "model", "path": "rm"}])
    found = artifacts.resolved(stage, {"rm": "/models/rm"}.__getitem__)
    assert found.monitor.rewards[0].path == "/models/rm"  # type: ignore[union-attr]


def test_validate_counts_the_copy_that_the_kl_needs(tiny: Any) -> None:
    from strop.recipes.validate import validate

    stage = {"kind": "rl", "name": "rl", "model": tiny.path("base"), "data": tiny.data("prompts"), "rewards": "number"}

    def memory(**monitor: Any) -> tuple[int, int]:
        found = validate(load_recipe({**stage, "monitor": monitor or None}))[0]["memory"]
        return found["parameters"], found["bytes"]

    num, bare = memory()
    assert memory(every=5) == (num, bare + 4 * num) and memory(kl=False) == (num, bare)
