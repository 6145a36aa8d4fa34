"""The PPO stage's settings: what a recipe may say and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from strop.recipes import artifacts
from strop.recipes.config import load_recipe
from strop.recipes.settings import PPOStage
from strop.recipes.sources import RecipeError
from strop.token_credit import GAE
from strop.train.control import AdaptiveKL, FixedKL

GIVEN = ("model=m", "data=prompts.jsonl", "rewards=number")


def ppo(*overrides: str) -> PPOStage:
    stage = load_recipe("ppo", [*GIVEN, *overrides]).stages[0]
    assert isinstance(stage, PPOStage)
    return stage


def problems(*overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe("ppo", [*GIVEN, *overrides])
    return [f"{p.path}: {p.text}" for p in caught.value.problems]


def test_the_built_in_recipe_says_the_defaults() -> None:
    """Beyond what a run must choose, the recipe's numbers are the stage's own."""
    said, plain = ppo(), PPOStage()
    for name in ("kl", "gae", "reward_clip", "missing_eos_penalty", "passes", "minibatches", "value_warmup", "critic"):
        assert getattr(said, name) == getattr(plain, name), name
    for name in ("objective", "value", "optimizer", "critic_optimizer", "schedule", "num_generations"):
        assert getattr(said, name) == getattr(plain, name), name
    assert (said.kl, said.gae) == (FixedKL(coefficient=0.05), GAE(gamma=1.0, lam=0.95))


def test_settings_by_name() -> None:
    stage = ppo("kl=adaptive", "kl.target=3", "gae.lam_value=1", "objective.dual_clip=3", "value.clip=null")
    assert stage.kl == AdaptiveKL(coefficient=0.05, target=3.0)
    assert (stage.gae.lam_value, stage.objective.dual_clip, stage.value.clip) == (1.0, 3.0, None)


def test_a_shared_critic_is_no_model_to_load() -> None:
    assert ppo("critic=shared").models == ("model", "reference")
    recipe = load_recipe("ppo", [*GIVEN, "critic=some/reward-model"])
    assert artifacts.models_of(recipe, recipe.stages[0]) == {"model": "m", "critic": "some/reward-model"}
    shared = load_recipe("ppo", [*GIVEN, "critic=shared"])
    assert artifacts.models_of(shared, shared.stages[0]) == {"model": "m"}
    hashes = {
        artifacts.hash_stage(r.stages[0], seed=0, device="cpu", precision="fp32", inputs={}) for r in (recipe, shared)
    }
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("minibatches=65", "minibatches: 65 minibatches of 64 prompts: must not be more than training.batch_size"),
        ("passes=0", "passes: must be at least 1, got 0"),
        ("reward_clip=0", "reward_clip: must be positive, or null for none, got 0"),
        ("target_kl=-1", "target_kl: must be positive, or null for none, got -1"),
        ("passes=1 target_kl=0.1", "target_kl: there is one update a rollout, and none after it to leave out"),
        ("missing_eos_penalty=-1", "missing_eos_penalty: must not be negative, got -1"),
        ("sampling.top_k=5", "sampling.top_k: is for evaluate stages"),
        ("sampling.temperature=0", "sampling.temperature: 0 is greedy"),
        ("kl.coefficient=-1", "coefficient must not be negative, got -1"),
        ("gae.lam=2", "lam must be in [0, 1], got 2"),
    ],
)
def test_what_cannot_be_is_refused(override: str, words: str) -> None:
    (found,) = problems(*override.split(" "))
    assert words in found


def test_a_warmup_needs_a_critic_of_its_own() -> None:
    (found,) = problems("critic=shared", "value_warmup=5")
    assert found.startswith("value_warmup: a shared critic cannot learn without moving the policy")


def test_a_reference_is_refused_where_nothing_reads_it() -> None:
    (found,) = problems("kl.coefficient=0", "reference=other")
    assert found.startswith("reference: nothing reads it: the KL has no weight")
    assert ppo("reference=other").reference == "other"


def test_rewards_are_needed() -> None:
    with pytest.raises(RecipeError, match="a stage of kind ppo needs at least one"):
        load_recipe("ppo", list(GIVEN[:2]))


def test_the_estimate_counts_critic_and_reference(tmp_path: Any) -> None:
    from strop.recipes.validate import memory_of
    from strop.world.model import write_base

    write_base(tmp_path, 0)
    parameters = memory_of(PPOStage(), tmp_path)["parameters"]
    assert memory_of(PPOStage(), tmp_path)["bytes"] == (16 + 16 + 4) * parameters
    assert memory_of(PPOStage(critic="shared"), tmp_path)["bytes"] == (16 + 4) * parameters
    assert memory_of(PPOStage(critic="shared", kl=FixedKL(coefficient=0.0)), tmp_path)["bytes"] == 16 * parameters
