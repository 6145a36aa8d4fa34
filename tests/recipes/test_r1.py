"""The recipes of DeepSeek-R1 and of process reward models: which stages there are, what each starts from and reads."""

from __future__ import annotations

from typing import Any

import pytest

from strop.recipes.artifacts import hash_stage, model_of
from strop.recipes.config import load_recipe
from strop.recipes.settings import EvaluateStage, Recipe, RewardStage, RLStage, SearchStage, SFTStage
from strop.recipes.sources import RecipeError
from strop.rewards import Only, ProcessReward, RewardModel

PROBLEMS = {"model": "base", "reasoning.data": "problems.jsonl", "sample.data": "problems.jsonl"}
ALL = {
    **PROBLEMS,
    "cold-start.data": "thoughts.jsonl",
    "general.data": "chats.jsonl",
    "helpful.data": "pairs.jsonl",
    "all.data": ["problems.jsonl", "requests.jsonl"],
    "distill.model": "small",
}


def starts(recipe: Recipe) -> dict[str, str]:
    """The model that each stage with one starts from."""
    return {stage.name: model_of(recipe, stage) for stage in recipe.stages if "model" in stage.models}


def data_of(recipe: Recipe, name: str) -> Any:
    (stage,) = [stage for stage in recipe.stages if stage.name == name]
    assert stage.data is not None
    return stage.data.path


def problems(name: str, overrides: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, overrides)
    return [f"{p.path}: {p.text}" for p in caught.value.problems]


def test_r1_fine_tunes_the_base_again_and_the_small_model_on_the_same_rows() -> None:
    recipe = load_recipe("r1", ALL)
    assert starts(recipe) == {
        "cold-start": "base",
        "reasoning": "@cold-start",
        "sample": "@reasoning",
        "sft": "base",
        "helpful": "base",
        "all": "@sft",
        "distill": "small",
    }
    assert data_of(recipe, "sft") == data_of(recipe, "distill") == ("@select", "@general")


def test_r1_from_problems_alone() -> None:
    recipe = load_recipe("r1", PROBLEMS)
    assert [stage.name for stage in recipe.stages] == ["reasoning", "sample", "score", "select", "sft"]
    assert starts(recipe) == {"reasoning": "base", "sample": "@reasoning", "sft": "base"}
    assert data_of(recipe, "sft") == ("@select",)


def test_r1_says_what_a_left_out_stage_needs() -> None:
    assert any("give distill.model" in text for text in problems("r1", {**PROBLEMS, "distill.training.epochs": 1}))
    (text,) = problems("r1", {**PROBLEMS, "all.data": "requests.jsonl"})
    assert "@helpful" in text and "give helpful.data" in text


def test_r1_checks_rows_with_an_answer_and_judges_the_final_answer_of_the_others() -> None:
    (stage,) = [stage for stage in load_recipe("r1", ALL).stages if stage.name == "all"]
    assert isinstance(stage, RLStage)
    accuracy, helpful = stage.rewards[:2]
    assert isinstance(accuracy, Only) and (accuracy.column, accuracy.rows) == ("answer", "with")
    assert isinstance(helpful, Only) and (helpful.column, helpful.rows) == ("answer", "without")
    assert isinstance(helpful.reward, RewardModel)
    assert (helpful.reward.path, helpful.reward.part) == ("@helpful", "answer")


def test_r1_is_evaluated_before_and_behind_each_model_that_writes() -> None:
    recipe = load_recipe("r1", {**ALL, "evaluation.data": "test.jsonl"})
    found = {stage.name: stage for stage in recipe.stages if isinstance(stage, EvaluateStage)}
    assert list(found) == [f"eval-{name}" for name in ("start", "cold-start", "reasoning", "sft", "all", "distill")]
    against = {name: stage.against.path for name, stage in found.items() if stage.against is not None}
    assert against == {
        "eval-cold-start": "@eval-start",
        "eval-reasoning": "@eval-cold-start",
        "eval-sft": "@eval-start",
        "eval-all": "@eval-sft",
    }


def test_r1_zero_has_two_rules_and_no_model_for_rewards() -> None:
    recipe = load_recipe("r1-zero", {"model": "base", "data": "problems.jsonl", "evaluation.data": "test.jsonl"})
    _, stage, _ = recipe.stages
    assert isinstance(stage, RLStage) and recipe.template == "r1-zero"
    assert [(r.name, r.label, r.weight) for r in stage.rewards] == [("number", "accuracy", 1), ("tags", "format", 1)]
    assert (stage.num_generations, stage.training.batch_size, stage.objective.beta) == (16, 32, 0.001)


def test_a_template_is_the_whole_recipes_and_part_of_what_a_stage_is() -> None:
    with_it = load_recipe("sft", {"model": "base", "data": "x.jsonl", "template": "r1-zero"})
    without = load_recipe("sft", {"model": "base", "data": "x.jsonl"})
    assert (with_it.template, without.template) == ("r1-zero", None) and isinstance(with_it.stages[0], SFTStage)
    hashes = {
        hash_stage(r.stages[0], seed=0, device="cpu", precision="fp32", inputs={}, template=r.template)
        for r in (with_it, without)
    }
    assert len(hashes) == 2
    (text,) = problems("sft", {"model": "base", "data": "x.jsonl", "template": "r1"})
    assert text.startswith("template:") and "r1-zero" in text


def test_prm_from_a_verifier_or_from_labels_and_what_is_done_with_it() -> None:
    labelled = load_recipe("prm", {"model": "m", "prm.data": "steps.jsonl"})
    assert [stage.name for stage in labelled.stages] == ["prm"]
    data = {f"{name}.data": "x.jsonl" for name in ("steps", "best-of-n", "beam", "grpo")}
    recipe = load_recipe("prm", {"model": "m", **data})
    assert [stage.name for stage in recipe.stages] == ["steps", "prm", "best-of-n", "beam", "grpo"]
    assert starts(recipe) == dict.fromkeys(("steps", "prm", "best-of-n", "beam", "grpo"), "m")
    assert data_of(recipe, "prm") == "@steps"
    for stage in recipe.stages[2:]:
        assert isinstance(stage, SearchStage | RLStage)
        asked, truth = stage.rewards
        assert (
            isinstance(asked, ProcessReward) and asked.path == "@prm" and (truth.label, truth.weight) == ("accuracy", 0)
        )
    assert problems("prm", {"model": "m"}) == [
        "stages[1].data: @steps: left out, for it has no data; give steps.data=FILE, or prm.data"
    ]


def test_the_reward_model_of_r1_reads_pairs() -> None:
    (stage,) = [stage for stage in load_recipe("r1", ALL).stages if stage.name == "helpful"]
    assert isinstance(stage, RewardStage) and stage.training.batch_size == 256
