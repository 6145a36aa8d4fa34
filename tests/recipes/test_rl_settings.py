"""The RL stage's settings: what fits together, what does not, and the recipes of its methods."""

from __future__ import annotations

import pytest

from strop.credit import GroupRelative, LeaveOneOut
from strop.objectives import CISPO, GRPO, GSPO, RLOO, GSPOToken, dapo, deepseek_grpo, dr_grpo
from strop.recipes.config import load_recipe
from strop.recipes.settings import RLStage
from strop.recipes.sources import RecipeError
from strop.recipes.stages.rl import credit_of
from strop.rollout.corrections import IcePop, SequenceMask, SequenceProduct, TokenTIS
from strop.rollout.dynamic import DynamicSampling
from strop.rollout.select import Credited, Scored
from strop.token_credit import ReinforcePP, ReinforcePPBaseline
from strop.train.crediting import BaselineCredit, ReinforcePPCredit
from strop.train.group_credit import ShapedGroupCredit


def stage(*overrides: str, recipe: str = "grpo") -> RLStage:
    made = load_recipe(recipe, ["model=m", "data=q.jsonl", "rewards=number", *overrides]).stages[0]
    assert isinstance(made, RLStage)
    return made


def problem(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        stage(*overrides)
    (found,) = caught.value.problems
    return f"{found.path}: {found.text}"


@pytest.mark.parametrize(
    ("recipe", "objective", "advantage"),
    [
        ("grpo", GRPO(), GroupRelative()),
        ("dapo", dapo(), GroupRelative()),
        ("dr-grpo", dr_grpo(512.0), GroupRelative(scale="none")),
        ("grpo-deepseek", deepseek_grpo(), GroupRelative()),
        ("gspo", GSPO(), GroupRelative()),
        ("gspo-token", GSPOToken(), GroupRelative()),
        ("cispo", CISPO(), GroupRelative()),
        ("rloo", RLOO(), LeaveOneOut(beta=0.05)),
        ("reinforce-pp", GRPO(clip_high=0.2), ReinforcePP(beta=0.01)),
        ("reinforce-pp-baseline", GRPO(clip_high=0.2, beta=0.001, kl="k2"), ReinforcePPBaseline()),
    ],
)
def test_each_recipe_is_its_papers_objective_and_credit(recipe: str, objective: object, advantage: object) -> None:
    made = stage(recipe=recipe)
    assert made.objective == objective and made.advantage == advantage
    assert made.dynamic_sampling == (DynamicSampling() if recipe == "dapo" else None)


def test_dr_grpo_divides_by_the_length_that_is_sampled() -> None:
    made = stage(recipe="dr-grpo")
    assert isinstance(made.objective, GRPO) and made.objective.constant_length == made.sampling.max_completion_length


@pytest.mark.parametrize(
    ("name", "correction"),
    [
        ("token_tis", TokenTIS()),
        ("icepop", IcePop()),
        ("sequence_mask", SequenceMask()),
        ("sequence_product", SequenceProduct()),
    ],
)
def test_corrections_go_by_their_names(name: str, correction: object) -> None:
    assert stage(f"correction={name}").correction == correction


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dynamic_sampling.reward=right"], "dynamic_sampling.reward: no reward is called 'right'; there are: number"),
        (["mask_truncated=true", "missing_eos_penalty=1"], "missing_eos_penalty: mask_truncated leaves those"),
        (["reset_reference_every=9"], "reset_reference_every: there is no reference: the KL has no weight"),
        (["max_staleness=4"], "max_staleness: nothing is stale while the policy itself samples"),
        (["objective.weighted=true"], "objective.weighted: is set by a correction"),
        (["sync_every=0"], "sync_every: must be at least 1, got 0"),
        (["missing_eos_penalty=-1"], "missing_eos_penalty: must not be negative, got -1"),
        (["num_generations=1"], "num_generations: must be at least 2"),
        (["num_generations=1", "advantage=reinforce_pp_baseline"], "num_generations: must be at least 2"),
        (["objective.beta=0.1", "reset_reference_every=9", "adapter.r=8"], "reset_reference_every: an adapter's"),
        (["advantage=reinforce_pp", "objective.beta=0.1"], "objective.beta: the KL is in the reward already"),
        (["advantage={name: leave_one_out, beta: 0.1}", "objective.beta=0.1"], "objective.beta: the KL is in the rew"),
        (
            ["num_generations=1", "advantage={name: reinforce_pp, beta: 0}", "dynamic_sampling.attempts=3"],
            "dynamic_sampling: a completion alone has none to differ from",
        ),
        (
            ["advantage=process", "rewards={name: process, path: x}", "missing_eos_penalty=1"],
            "missing_eos_penalty: is taken off the score, which does not count while advantage.outcome is 0",
        ),
        (["reference=other"], "reference: nothing reads it: the KL has no weight"),
        (["advantage.eps=0"], "advantage.*eps must be positive, got 0"),
        (["objective.delta=1.1"], r"objective.*delta must be more than 1 \+ clip_high \(1.28\), got 1.1"),
        (["correction={name: icepop, low: 1.5}"], r"correction.*low and high must enclose 1.*got 1.5, 5"),
    ],
)
def test_what_does_not_fit_together_is_said(overrides: list[str], words: str) -> None:
    import re

    assert re.match(words, problem(*overrides)), problem(*overrides)


def test_a_reference_is_wanted_where_the_kl_has_a_weight() -> None:
    assert not stage().wants_reference
    assert stage("objective.beta=0.1").wants_reference
    assert stage("advantage={name: leave_one_out, beta: 0.1}").wants_reference
    assert not stage("advantage=leave_one_out").wants_reference
    assert stage("advantage=reinforce_pp", "num_generations=1").wants_reference
    assert not stage("advantage={name: reinforce_pp, beta: 0}").wants_reference


def test_credit_that_needs_the_reference_comes_after_it() -> None:
    select, credit = credit_of(stage("missing_eos_penalty=0.5"), str)
    assert isinstance(select, Credited) and credit == () and select.missing_eos_penalty == 0.5
    assert not select.keep_equal
    select, credit = credit_of(stage("objective.beta=0.1"), str)
    assert isinstance(select, Credited) and select.keep_equal
    assert credit_of(stage("objective.name=dppo"), str)[0].keep_equal  # its pull back to the sampler needs no advantage
    assert not credit_of(stage("objective.name=dppo", "objective.tau=0"), str)[0].keep_equal
    select, (shaped,) = credit_of(stage(recipe="rloo"), str)
    assert isinstance(select, Scored) and isinstance(shaped, ShapedGroupCredit) and select.missing_eos_penalty == 1.0
    select, (to_go,) = credit_of(stage(recipe="reinforce-pp"), str)
    assert isinstance(select, Scored) and isinstance(to_go, ReinforcePPCredit)
    select, (whitened,) = credit_of(stage(recipe="reinforce-pp-baseline"), str)
    assert isinstance(select, Credited) and isinstance(whitened, BaselineCredit) and select.keep_equal
    select, _ = credit_of(stage("objective.beta=0", recipe="reinforce-pp-baseline"), str)
    assert isinstance(select, Credited) and select.keep_equal, "the whitening is over all the step's tokens"
