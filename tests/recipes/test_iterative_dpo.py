"""The recipe `iterative-dpo` as it is expanded: what a round reads of itself, of the one before, and of all so far."""

from __future__ import annotations

from typing import Any

import pytest

from strop.objectives import DPO
from strop.recipes.config import load_recipe
from strop.recipes.kinds.best import BestStage
from strop.recipes.kinds.preference import PreferenceStage
from strop.recipes.sources import RecipeError

LEAST = {
    "model": "base",
    "sample.data": "q.jsonl",
    "evaluation.data": "test.jsonl",
    "evaluation.rewards": [{"name": "number", "label": "right"}],
}


def stages(**more: Any) -> dict[str, Any]:
    return {stage.name: stage for stage in load_recipe("iterative-dpo", {**LEAST, **more}).stages}


def test_a_round_samples_from_the_best_so_far_and_learns_all_comparisons() -> None:
    found = stages(**{"pairs.data": "pairs.jsonl"})
    assert [found[f"sample-{i}"].model for i in (1, 2, 3)] == ["base", "@peak-1", "@peak-2"]
    assert [found[f"sft-{i}"].model for i in (1, 2, 3)] == ["base", "@peak-1", "@peak-2"]
    assert found["preferences-1"].data.path == ("@pairs", "@label-1")
    assert found["preferences-3"].data.path == ("@pairs", "@label-1", "@label-2", "@label-3")
    assert {found[f"reward-{i}"].model for i in (1, 2, 3)} == {"base"}, "anew each round"
    assert found["score-2"].rewards[0].path == "@reward-2"


def test_dpo_takes_the_rounds_own_pairs_as_llama_3_did() -> None:
    dpo = stages()["dpo-2"]
    assert isinstance(dpo, PreferenceStage)
    assert (dpo.model, dpo.reference, dpo.data and dpo.data.path) == ("@sft-2", None, "@label-2")
    assert isinstance(dpo.objective, DPO)
    assert dpo.objective.nll_weight == 0.2 and dpo.objective.mask_formatting


def test_the_peak_is_of_all_so_far_and_ends_the_rounds() -> None:
    found = stages()
    peak = found["peak-2"]
    assert isinstance(peak, BestStage)
    assert peak.among == (
        ("@eval-start",),
        ("@eval-sft-1", "@eval-dpo-1", "@eval-average-1"),
        ("@eval-sft-2", "@eval-dpo-2", "@eval-average-2"),
    )
    assert (peak.metric, peak.patience) == ("right", 1)
    assert {"sample-3", "reward-3", "average-3"} <= set(peak.skips) and "peak-3" not in peak.skips
    assert found["eval-peak-3"].against.path == "@eval-start"


def test_more_rounds_and_settings_of_all_of_them() -> None:
    found = stages(**{"rounds.times": 5, "dpo.objective.beta": 0.3, "sft.model": "other"})
    assert {found[f"dpo-{i}"].objective.beta for i in range(1, 6)} == {0.3}
    assert {found[f"sft-{i}"].model for i in range(1, 6)} == {"other"}


def test_without_a_held_out_evaluation_nothing_says_when_to_end() -> None:
    given = {key: value for key, value in LEAST.items() if not key.startswith("evaluation")}
    with pytest.raises(RecipeError, match=r"give evaluation.data=FILE"):
        load_recipe("iterative-dpo", given)


def test_without_a_model_it_is_said_how_to_name_one() -> None:
    with pytest.raises(RecipeError, match=r"@model: the recipe has no model; name it, as model=PATH"):
        load_recipe("iterative-dpo", {key: value for key, value in LEAST.items() if key != "model"})
