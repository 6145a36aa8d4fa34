"""Shapes by hand: bounds, a sigmoid about a reference, and scores without what length explains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from strop.recipes.artifacts import code_files, named, resolved_rewards
from strop.recipes.config import RecipeError, dump, load_recipe, resolve
from strop.rewards import Clip, Custom, LengthControl, RewardModel, Shaped, Sigmoid, on_groups, score
from strop.rewards.shaping import fitted_slope
from strop.types import Completion, Group


def as_number(completion: str, row: dict[str, Any]) -> float | None:
    """The score that a text says of itself, before its first space."""
    word = completion.split(" ")[0]
    return None if word == "none" else float(word)


TOLD = Custom(function=f"{__name__}:as_number", label="told")


def groups_of(*rows: Sequence[str], **columns: str) -> list[Group]:
    return [Group("?", tuple(Completion(text) for text in row), row=dict(columns)) for row in rows]


def scores_of(reward: Any, groups: list[Group]) -> list[list[float | None]]:
    return [[verdict.score for verdict in row] for row in reward(groups)]


def test_clip_is_the_nearest_value_within_the_bounds() -> None:
    groups = groups_of(["-7", "-2", "none", "0.5", "9"])
    shaped = Shaped(reward=TOLD, shape=(Clip(low=-2.0, high=3.0),))
    assert scores_of(shaped, groups) == [[-2.0, -2.0, None, 0.5, 3.0]]


def test_sigmoid_about_a_number_is_half_there_and_never_beyond_one() -> None:
    shaped = Shaped(reward=TOLD, shape=(Sigmoid(centre=1.0, scale=2.0),))
    (row,) = scores_of(shaped, groups_of(["1", "3", "-1", "1e6", "-1e6"]))
    e = 1 / (1 + math.exp(-1))
    assert row == pytest.approx([0.5, e, 1 - e, 1.0, 0.0])


def test_sigmoid_about_a_reference_answer_that_the_same_reward_scores() -> None:
    groups = [
        *groups_of(["4", "5"], best="4"),
        *groups_of(["4", "5"], best="5 words or more"),
        *groups_of(["4"], best="none"),
        *groups_of(["4"]),
    ]
    found = Shaped(reward=TOLD, shape=(Sigmoid(reference="best"),))(groups)
    e = 1 / (1 + math.exp(-1))
    assert [[v.score for v in row] for row in found] == [
        pytest.approx([0.5, e]),
        pytest.approx([1 - e, 0.5]),
        [None],
        [None],
    ]
    assert "no reference" in found[2][0].reason


def test_a_constant_added_to_every_score_of_a_prompt_changes_no_sigmoid_about_its_reference() -> None:
    """Bradley-Terry scores are known up to such a constant."""
    shaped = Shaped(reward=TOLD, shape=(Sigmoid(reference="best"),))
    before = scores_of(shaped, groups_of(["1", "2.5", "-3"], best="0.5"))
    after = scores_of(shaped, groups_of(["41", "42.5", "37"], best="40.5"))
    assert before[0] == pytest.approx(after[0])


def test_a_column_that_no_row_has_is_said() -> None:
    shaped = Shaped(reward=TOLD, shape=(Sigmoid(reference="bets"),))
    with pytest.raises(ValueError, match=r"'told'.*column 'bets'"):
        shaped(groups_of(["4"], best="4"))


def test_length_control_with_a_slope() -> None:
    """r - b (n - mean n): lengths 1, 3, 5 words about their mean of 3."""
    groups = groups_of(["1", "1 b c", "2 b c d e"])
    shaped = Shaped(reward=TOLD, shape=(LengthControl(slope=0.25, unit="words"),))
    assert scores_of(shaped, groups) == [[1.5, 1.0, 1.5]]


def test_a_fitted_length_control_leaves_no_correlation_within_prompts() -> None:
    rng = np.random.default_rng(0)
    rows = [[f"{rng.normal() + 0.3 * n} " + "w " * n for n in rng.integers(1, 30, 8).tolist()] for _ in range(20)]
    groups = groups_of(*rows)
    sizes = [[len(c.text.split()) for c in group.completions] for group in groups]
    plain = scores_of(TOLD, groups)
    found = scores_of(Shaped(reward=TOLD, shape=(LengthControl(unit="words"),)), groups)
    assert fitted_slope(plain, sizes) == pytest.approx(0.3, abs=0.03)
    assert fitted_slope(found, sizes) == pytest.approx(0.0, abs=1e-12)
    means = [np.mean([v for v in row if v is not None]) for row in found]
    assert means == pytest.approx([np.mean([v for v in row if v is not None]) for row in plain])


def test_one_length_has_nothing_to_control() -> None:
    assert fitted_slope([[1.0, 2.0], [None]], [[5, 5], [3]]) == 0.0
    groups = groups_of(["1 b", "2 b"])
    assert scores_of(Shaped(reward=TOLD, shape=(LengthControl(unit="words"),)), groups) == [[1.0, 2.0]]


def test_tokens_that_nobody_counted_are_unscorable() -> None:
    group = Group("?", (Completion("1", token_ids=(1, 2)), Completion("2")))
    found = Shaped(reward=TOLD, shape=(LengthControl(slope=1.0),))([group])
    assert [v.score for v in found[0]] == [1.0, None]


def test_shapes_are_taken_in_their_order_and_the_score_before_is_told() -> None:
    groups = groups_of(["8", "none"])
    first = Shaped(reward=TOLD, shape=(Clip(high=2.0), Sigmoid()))
    other = Shaped(reward=TOLD, shape=(Sigmoid(), Clip(high=2.0)))
    assert scores_of(first, groups)[0][0] == pytest.approx(1 / (1 + math.exp(-2)))
    assert scores_of(other, groups)[0][0] == pytest.approx(1 / (1 + math.exp(-8)))
    assert first(groups)[0][0].reason.startswith("8 before shaping")
    assert first(groups)[0][1].score is None


def test_its_weight_and_label_are_those_of_the_score() -> None:
    (group,) = score(groups_of(["8"]), [Shaped(reward=TOLD, shape=(Clip(high=2.0),), weight=0.5, label="bounded")])
    assert group.completions[0].score == 1.0 and group.completions[0].rewards == {"bounded": 2.0}


def by_place(groups: Sequence[Group]) -> list[list[float]]:
    return [[float(i) for i, _ in enumerate(group.completions)] for group in groups]


RANKED = on_groups(by_place)


def test_a_reward_that_sees_siblings_can_be_shaped() -> None:
    shaped = Shaped(reward=Custom(function=f"{__name__}:RANKED"), shape=(Clip(high=1.0),))
    assert scores_of(shaped, groups_of(["a", "b", "c"])) == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Clip(low=1.0, high=1.0), "below high"),
        (lambda: Sigmoid(scale=0.0), "scale must be positive"),
        (lambda: Sigmoid(reference=""), "reference is empty"),
        (lambda: Shaped(reward=TOLD, shape=()), "nothing would be shaped"),
    ],
)
def test_settings_that_cannot_be(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


# In recipes.

RECIPE: dict[str, Any] = {
    "kind": "rl",
    "model": "m",
    "data": "p.jsonl",
    "rewards": [
        {
            "name": "shaped",
            "reward": {"name": "model", "path": ["a", "@rm"], "combine": "mean_minus_std"},
            "shape": ["length_control", {"name": "clip", "high": 2.0}],
        }
    ],
}


def test_a_recipe_says_it_and_reads_it_back() -> None:
    recipe = resolve(RECIPE)
    (made,) = recipe.stages[0].rewards
    assert made.shape == (LengthControl(), Clip(high=2.0)) and made.reward.combine == "mean_minus_std"
    file = dump(recipe)
    assert "length_control" in file
    one = {**RECIPE, "rewards": [{"name": "shaped", "reward": "number", "shape": "clip"}]}
    assert resolve(one).stages[0].rewards[0].shape == (Clip(),)


def test_models_inside_are_inputs_of_the_stage() -> None:
    """They are named, checked and put in as paths like those of a reward of its own."""
    stage = resolve(RECIPE).stages[0]
    assert (("rewards", 0, "reward", "path", 1), "@rm") in list(named(stage))
    (made,) = resolved_rewards(stage, {"a": "/a", "@rm": "/rm"}.__getitem__)
    assert isinstance(made.reward, RewardModel) and made.reward.path == ("/a", "/rm")
    with pytest.raises(RecipeError, match=r"rewards\[0\].reward.path\[1\]: @rm: no earlier stage"):
        load_recipe(RECIPE)


def test_the_users_file_inside_is_hashed_with_the_stage() -> None:
    mine = {"name": "shaped", "reward": "mine.py:good"}
    stage = resolve({**RECIPE, "rewards": [mine]}).stages[0]
    assert [(key, str(path)) for key, path in code_files(stage)] == [("rewards.0.reward.function", "mine.py")]
