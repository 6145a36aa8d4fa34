"""What people said of two answers, in the words of many files."""

from __future__ import annotations

from typing import Any

import pytest

from strop.rollout.couples import Couple
from strop.rollout.people import People, people_of, verdict_from
from strop.types import Completion, Group


def two(**row: Any) -> Group:
    return Group("q", (Completion("x", score=1.0), Completion("y", score=3.0)), row=row)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (1, 1.0), (2, 0.0), (1.0, 1.0), ("1", 1.0), ("A", 1.0), ("model_b", 0.0), (" Tie ", 0.5),
        ("tie (bothbad)", 0.5), (0, 0.5), (None, None), (True, None), ("maybe", None), (3, None), (1.5, None),
    ],
)  # fmt: skip
def test_words_for_a_verdict(value: Any, verdict: float | None) -> None:
    assert verdict_from(value) == verdict


def test_a_verdict_follows_its_answer_to_the_other_place() -> None:
    assert people_of(two(winner="a"), "comparison", None, 0, 1) == (1.0,)
    assert people_of(two(winner="a"), "comparison", None, 1, 0) == (0.0,)
    assert people_of(two(label=2), "comparison", None, 0, 1) == (0.0,)
    assert people_of(two(votes=[1, 2, 1, None, "tie"]), "groups", "votes", 1, 0) == (0.0, 1.0, 0.0, None, 0.5)
    assert people_of(two(), "comparison", None, 0, 1) == () == people_of(two(winner=1), "groups", None, 0, 1)


def test_preferences_and_rankings_are_verdicts_themselves() -> None:
    assert people_of(two(), "preference", None, 0, 1) == (1.0,) and people_of(two(), "preference", None, 1, 0) == (0.0,)
    assert people_of(two(), "ranking", None, 0, 1) == (0.0,), "by the scores"
    even = Group("q", (Completion("x", score=1.0), Completion("y", score=1.0)))
    assert people_of(even, "ranking", None, 0, 1) == (0.5,)
    assert people_of(Group("q", (Completion("x"), Completion("y"))), "ranking", None, 1, 0) == (0.0,)


def test_votes_are_soft_labels() -> None:
    rows = [two(winner=[1, 1, 2, "tie"]), two(winner="b"), two(winner=[1, 2]), two()]
    told = People()([Couple(group=row, first=0, second=1) for row in rows])
    assert [t.probability for t in told] == [0.625, 0.0, 0.5, None]
    assert [t.margin for t in told] == [0.25, 1.0, 0.0, None] and [t.tie for t in told] == [False, False, True, False]
