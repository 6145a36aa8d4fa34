"""The stages of process rewards: what a recipe may say and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from strop.credit import ProcessRelative
from strop.recipes import artifacts
from strop.recipes.config import load_recipe
from strop.recipes.kinds.search import Beam, BestOfN
from strop.recipes.settings import ProcessStage, RLStage, SearchStage, StepsStage, UnpairedStage
from strop.recipes.sources import RecipeError
from strop.rewards import ProcessReward

GIVEN = {
    "process": ("data=steps.jsonl",),
    "steps": ("data=q.jsonl", "rewards=number"),
    "search": ("data=q.jsonl", "rewards=[{name: process, path: PRM}, {name: number, weight: 0}]"),
    "implicit-prm": ("data=feedback.jsonl",),
    "grpo-process": ("prm.data=steps.jsonl", "grpo.data=q.jsonl"),
    "prm": ("steps.data=q.jsonl", "best-of-n.data=q.jsonl"),
}


def stages(recipe: str, *overrides: str) -> tuple[Any, ...]:
    return load_recipe(recipe, ["model=m", *GIVEN[recipe], *overrides]).stages


def problems(recipe: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        stages(recipe, *overrides)
    return [f"{p.path}: {p.text}" for p in caught.value.problems]


def test_the_built_in_recipes_say_the_defaults() -> None:
    (prm,), (steps,), (search,) = stages("process"), stages("steps"), stages("search")
    assert isinstance(prm, ProcessStage) and isinstance(steps, StepsStage) and isinstance(search, SearchStage)
    plain = ProcessStage(), StepsStage(), SearchStage()
    for said, default, names in zip(
        (prm, steps, search),
        plain,
        (
            ("separator", "objective", "optimizer", "schedule"),
            ("solutions", "labels", "num_continuations"),
            ("method",),
        ),
        strict=True,
    ):
        for name in names:
            assert getattr(said, name) == getattr(default, name), name
    (implicit,) = stages("implicit-prm")
    assert isinstance(implicit, UnpairedStage) and implicit.objective.name == "implicit_prm"


def test_a_method_is_named() -> None:
    (search,) = stages("search", "method=beam", "method.width=8", "method.expand=2")
    assert search.method == Beam(width=8, expand=2)
    (search,) = stages("search", "method.choose=vote", "method.answer=answer_tag")
    assert search.method == BestOfN(choose="vote", answer="answer_tag")


def test_pipelines_hand_the_model_of_the_steps_on_and_start_from_the_recipes_own() -> None:
    """A process reward model is no policy, so the stage behind it starts from the recipe's model."""
    recipe = load_recipe("prm", ["model=m", *GIVEN["prm"]])
    assert artifacts.models_of(recipe, recipe.stages[2]) == {"model": "m", "rewards.0.path": "@prm"}
    recipe = load_recipe("grpo-process", ["model=m", *GIVEN["grpo-process"]])
    grpo = recipe.stages[1]
    assert isinstance(grpo, RLStage) and grpo.rewards == (ProcessReward(path="@prm"),)
    assert grpo.advantage == ProcessRelative(combine="mean") and artifacts.model_of(recipe, grpo) == "m"


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("process", ('separator=""',), "separator: is empty, so nothing ends a step"),
        ("process", (r"separator=\n",), "separator: holds a backslash and an n, not a line break"),
        ("process", ("objective.wrong_weight=0",), "wrong_weight must be positive, got 0"),
        ("steps", ('separator=""',), "separator: is empty, so nothing ends a step"),
        ("steps", ("num_continuations=0",), "num_continuations: must be at least 1, got 0"),
        ("steps", ("sampling.temperature=0",), "all 8 continuations would be the same"),
        ("steps", ("rewards=[]",), "rewards: is empty; a stage of kind steps needs at least one"),
        ("search", ("method.num_samples=1",), "num_samples must be at least 2, got 1"),
        ("search", ("method.answer=(",), "answer: '(' is no regular expression"),
        ("search", ("method=beam", "method.width=6"), "width 6 must be a multiple of expand 4"),
        ("search", ("method=beam", "sampling.stop=END"), "a beam's steps end with method.separator"),
        ("search", ("sampling.temperature=0",), "0 is greedy: there would be nothing to choose from"),
        ("search", ("rewards.0.weight=0",), "all weights are 0, so nothing is scored"),
        ("grpo-process", ("grpo.rewards=number",), "advantage: needs a reward that scores steps"),
        ("grpo-process", ("grpo.objective=gspo",), "gspo has one ratio a completion"),
        ("grpo-process", ("grpo.objective=rloo",), "rloo has one ratio a completion"),
        ("grpo-process", ("grpo.advantage.cap=0",), "cap must be positive, or null for none, got 0"),
        ("grpo-process", ("grpo.rewards.0.separator=''",), "process.separator is empty"),
    ],
)
def test_what_cannot_be_is_refused(recipe: str, overrides: tuple[str, ...], words: str) -> None:
    assert any(words in text for text in problems(recipe, *overrides)), problems(recipe, *overrides)


def test_credit_of_steps_fits_objectives_of_tokens() -> None:
    for objective in ("grpo", "cispo", "gspo_token"):
        assert stages("grpo-process", f"grpo.objective={objective}")[1].objective.name == objective
    own = "grpo.rewards=[{name: custom, function: 'my.py:steps'}]"
    assert stages("grpo-process", own)[1].rewards[0].name == "custom"
