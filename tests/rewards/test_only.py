"""Rewards for some rows only: which rows, what the others' scores are, and what is said of a reward without rows."""

from __future__ import annotations

from typing import Any

import pytest

from strop.recipes.artifacts import named, resolved_rewards
from strop.recipes.config import RecipeError, load_recipe
from strop.rewards import Custom, Only, RewardModel, Shaped, reward_metrics, score
from strop.rewards.only import never_applied, none_applies
from strop.types import Completion, Group

seen: list[str] = []


def length(completion: str, row: dict[str, Any]) -> float | None:
    seen.append(completion)
    return None if completion == "none" else float(len(completion))


LENGTH = Custom(function=f"{__name__}:length")
CHECKED = Only(reward=LENGTH, column="answer", label="checked")
OTHER = Only(reward=LENGTH, column="answer", rows="without", label="other", weight=10.0)
SUMS = Group("q", (Completion("ab"), Completion("abc")), row={"answer": "5", "task": "sum"})
CHAT = Group("q", (Completion("a"), Completion("none")), row={"task": "chat"})
NULL = Group("q", (Completion("abcd"),), row={"answer": None, "task": 7})


def test_each_row_is_scored_by_the_rewards_that_are_for_it() -> None:
    found = score([SUMS, CHAT, NULL], [CHECKED, OTHER])
    assert [[c.score for c in g.completions] for g in found] == [[2.0, 3.0], [10.0, None], [40.0]]
    assert found[0].completions[0].rewards == {"checked": 2.0}
    assert found[1].completions[1].rewards == {"other": None}, "unscorable is another thing than not for it"


def test_a_row_that_no_reward_is_for_has_no_score_and_one_for_all_counts_everywhere() -> None:
    alone, both = score([CHAT], [CHECKED]), score([CHAT, SUMS], [CHECKED, Custom(function=LENGTH.function, weight=3)])
    assert [c.score for c in alone[0].completions] == [None, None] and alone[0].completions[0].rewards == {}
    assert [c.score for g in both for c in g.completions] == [3.0, None, 8.0, 12.0]


def test_values_are_compared_as_text() -> None:
    assert [Only(reward=LENGTH, column="task", values=("sum", "7")).applies(g) for g in (SUMS, CHAT, NULL)] == [
        True, False, True,
    ]  # fmt: skip
    other = Only(reward=LENGTH, column="task", values=("sum", "7"), rows="without")
    assert [other.applies(g) for g in (SUMS, CHAT, NULL)] == [False, True, False]


def test_the_inner_reward_is_asked_about_its_rows_alone() -> None:
    seen.clear()
    verdicts = CHECKED([CHAT, SUMS, NULL])
    assert seen == ["ab", "abc"]
    assert [[v.applies for v in row] for row in verdicts] == [[False, False], [True, True], [False]]
    assert verdicts[0][0].reason == "for rows with 'answer' only"


def test_means_and_shares_are_of_the_rows_it_is_for() -> None:
    metrics = reward_metrics(score([SUMS, CHAT, NULL], [CHECKED, OTHER]), [CHECKED, OTHER])
    assert metrics["rewards/checked/mean"] == 2.5 and metrics["rewards/checked/unscorable"] == 0
    assert metrics["rewards/other/mean"] == 2.5 and metrics["rewards/other/unscorable"] == pytest.approx(1 / 3)


def test_a_second_scoring_takes_back_what_is_no_longer_for_the_row() -> None:
    (before,) = score([CHAT], [Custom(function=LENGTH.function, label="checked")])
    (after,) = score([before], [CHECKED])
    assert "checked" in before.completions[0].rewards and after.completions[0].rewards == {}


def test_what_is_for_no_row_is_said_and_a_wrong_column_refused() -> None:
    watched = Custom(function=LENGTH.function, weight=0)
    assert [none_applies(g, [CHECKED, watched]) for g in (SUMS, CHAT)] == [False, True]
    assert not none_applies(CHAT, [CHECKED, OTHER]) and not none_applies(CHAT, [LENGTH])
    assert never_applied([SUMS, CHAT], [CHECKED, OTHER, LENGTH]) == []
    (note,) = never_applied([SUMS], [CHECKED, OTHER])
    assert note == "reward 'other' is for rows without 'answer', and none of the 1 rows is one"
    with pytest.raises(ValueError, match=r"reward 'checked' is for rows with 'answer'.*no row has that.*: task"):
        never_applied([CHAT], [CHECKED, OTHER])


def test_in_a_recipe_its_model_may_be_a_stages() -> None:
    inner = {"name": "shaped", "reward": {"name": "model", "path": "@helpful"}}
    rewards = [
        {"name": "only", "column": "answer", "reward": "number", "label": "accuracy"},
        {"name": "only", "column": "answer", "rows": "without", "label": "helpful", "reward": inner},
    ]
    stages = [
        {"kind": "reward", "name": "helpful", "data": "pairs.jsonl"},
        {"kind": "rl", "name": "rl", "data": "prompts.jsonl", "rewards": rewards},
    ]
    (_, stage) = load_recipe({"name": "two", "model": "m", "stages": stages}).stages
    assert [text for path, text in named(stage) if path[0] == "rewards"] == ["@helpful"]
    (_, other) = resolved_rewards(stage, lambda text: "folder")
    assert isinstance(other.reward, Shaped) and isinstance(other.reward.reward, RewardModel)
    assert other.reward.reward.path == "folder"


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"only\.column is empty"):
        Only(reward=LENGTH, column="")
    with pytest.raises(RecipeError, match="logged as 'only' too"):
        rewards = [{"name": "only", "column": "a", "reward": "number"}] * 2
        load_recipe({"name": "r", "model": "m", "kind": "rl", "data": "x", "rewards": rewards})
