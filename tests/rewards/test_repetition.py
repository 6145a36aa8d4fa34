"""Repeated runs of words, and a length range."""

from __future__ import annotations

import pytest

from strop.rewards import LengthRange, Repetition, verify_length_range, verify_repetition
from strop.types import Completion, Group


def test_the_share_of_repeats() -> None:
    assert verify_repetition("a b c d", 2).score == 0.0
    # ab bc ca ab bc: 3 of 5 differ.
    assert verify_repetition("a b c a b c", 2).score == pytest.approx(-0.4)
    assert verify_repetition("A b, c! a B c", 2).score == pytest.approx(-0.4)
    assert verify_repetition("a " * 101, 1).score == pytest.approx(-100 / 101)


def test_short_texts_repeat_nothing() -> None:
    assert verify_repetition("", 4).score == verify_repetition("a a a", 4).score == 0.0
    assert str(verify_repetition("", 4).score) == "0.0"  # not -0.0


def test_allowed_and_scale() -> None:
    assert verify_repetition("a b c a b c", 2, allowed=0.4).score == pytest.approx(0.0)
    assert verify_repetition("a b c a b c", 2, allowed=0.2).score == pytest.approx(-0.25)
    assert verify_repetition("a b c a b c", 2, scale=3.0).score == pytest.approx(-1.2)


def test_the_reward() -> None:
    group = Group("p", (Completion("one two three four five"), Completion("go on and on " * 20)))
    assert [v.score for v in Repetition()([group])[0]] == [0.0, pytest.approx(-1 + 4 / 77)]
    for wrong in ({"n": 0}, {"allowed": 1.0}, {"scale": 0.0}):
        with pytest.raises(ValueError, match="repetition"):
            Repetition(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "size, score", [(10, 0.0), (20, 0.0), (15, 0.0), (22, -0.5), (24, -1.0), (99, -1.0), (9, -0.25)]
)
def test_length_range(size: int, score: float) -> None:
    assert verify_length_range(size, 10, 20, 4).score == pytest.approx(score)


def test_length_range_counts_what_it_is_told() -> None:
    group = Group("p", (Completion("one two three"), Completion("one", token_ids=(1, 2))))
    assert [v.score for v in LengthRange(low=2, high=2, ramp=2, unit="words")([group])[0]] == [-0.5, -0.5]
    assert [v.score for v in LengthRange(low=2, high=2, ramp=2)([group])[0]] == [None, 0.0]
    with pytest.raises(ValueError, match="low 3 must be"):
        LengthRange(low=3, high=2, ramp=1)
