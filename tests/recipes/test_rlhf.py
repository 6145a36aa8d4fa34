"""The recipe `rlhf` as it is expanded: what starts from what, with and without demonstrations and the refresh."""

from __future__ import annotations

from typing import Any

import pytest

from strop.recipes.config import load_recipe, read_recipe
from strop.recipes.kinds.ppo import PPOStage
from strop.recipes.kinds.refresh import RefreshStage
from strop.recipes.sources import RecipeError

LEAST = {"model": "base", "pairs.data": "pairs.jsonl", "ppo.data": "q.jsonl"}
LOOP = {**LEAST, "refresh.data": "q.jsonl", "rounds.times": 3}


def stages(given: dict[str, Any]) -> dict[str, Any]:
    return {stage.name: stage for stage in load_recipe("rlhf", given).stages}


def scored_by(stage: Any) -> list[str]:
    return [reward.path for reward in stage.rewards]


def test_pairs_and_prompts_are_enough() -> None:
    reading = read_recipe("rlhf", LEAST)
    assert [stage.name for stage in reading.recipe.stages] == ["pairs", "reward", "ppo-1"]
    ppo = reading.recipe.stages[-1]
    assert isinstance(ppo, PPOStage)
    assert (ppo.model, ppo.reference, ppo.critic, scored_by(ppo)) == ("base", "base", "@reward", ["@reward"])
    assert {text.split()[0] for text in reading.left_out} == {"sft", "scale", "refresh", "evaluation"}


def test_with_demonstrations_the_sft_model_is_start_reference_and_scale() -> None:
    found = stages({**LEAST, "sft.data": "chats.jsonl", "scale.data": "q.jsonl"})
    assert found["reward"].model == found["scale"].model == found["ppo-1"].model == found["ppo-1"].reference == "@sft"
    assert found["reward"].normalize.path == "@scale"


def test_the_refresh_asks_where_the_policy_is_and_keeps_all_pairs() -> None:
    found = stages(LOOP)
    first, second, third = (found[f"refresh-{i}"] for i in (1, 2, 3))
    assert isinstance(first, RefreshStage)
    assert [s.model for s in (first, second, third)] == ["@reward", "@refresh-1", "@refresh-2"]
    assert [s.policy for s in (first, second, third)] == ["base", "@ppo-1", "@ppo-2"]
    assert third.old.path == ("@pairs", "@refresh-1", "@refresh-2")
    for number in (1, 2, 3):
        ppo = found[f"ppo-{number}"]
        assert ppo.critic == f"@refresh-{number}" and scored_by(ppo) == [f"@refresh-{number}"]
        assert ppo.reference == "base", "the KL is to the SFT model in every round"
    assert [found[f"ppo-{i}"].model for i in (1, 2, 3)] == ["base", "@ppo-1", "@ppo-2"]


def test_a_setting_of_the_refresh_without_its_prompts_is_refused() -> None:
    with pytest.raises(RecipeError, match="refresh.data=FILE"):
        load_recipe("rlhf", {**LEAST, "refresh.num_samples": 8})


def test_each_round_is_evaluated_against_the_one_before() -> None:
    found = stages({**LOOP, "evaluation.data": "test.jsonl", "evaluation.rewards": "number"})
    against = {name: stage.against and stage.against.path for name, stage in found.items() if name.startswith("eval")}
    assert against == {
        "eval-start": None, "eval-ppo-1": "@eval-start", "eval-ppo-2": "@eval-ppo-1", "eval-ppo-3": "@eval-ppo-2"
    }  # fmt: skip
