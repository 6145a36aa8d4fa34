"""Signs of decay, each by numbers that show it and by numbers that do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from strop.monitor.health import signs
from strop.monitor.samples import Sample, Snapshot
from strop.monitor.settings import Thresholds
from strop.monitor.text import compression, distinct, repetition
from strop.monitor.view import view

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def at(step: int, make: Callable[[int], Sample], num: int = 20) -> Snapshot:
    return Snapshot(step, tuple(map(str, range(num))), tuple((make(i), make(i + 1)) for i in range(num)))


def codes(before: Callable[[int], Sample], after: Callable[[int], Sample]) -> dict[str, str]:
    found = signs(view([at(0, before), at(1, after)], Thresholds()))
    return {a.code: a.severity for a in found}


def said(i: int) -> Sample:
    return Sample(" ".join(WORDS[i % 3 :]), proxy=float(i % 2), entropy=2.0 + 0.01 * i, is_cut=False)


def test_nothing_changed_shows_nothing() -> None:
    assert codes(said, said) == {}


def test_loops_are_an_alarm_and_some_repetition_a_warning() -> None:
    assert codes(said, lambda i: Sample("a b c d " * (20 + i % 3), proxy=float(i % 2)))["repetition"] == "alarm"
    some = codes(said, lambda i: Sample(" ".join(WORDS + WORDS[: 7 + i % 2]), proxy=float(i % 2)))
    assert some == {"repetition": "warning"}


def test_entropy_that_is_gone() -> None:
    gone = codes(said, lambda i: Sample(said(i).text, proxy=float(i % 2), entropy=0.1 + 0.001 * i))
    assert gone == {"entropy": "warning"}
    assert codes(said, lambda i: Sample(said(i).text, proxy=float(i % 2), entropy=0.5 + 0.001 * i)) == {}


def test_entropy_that_falls_while_the_held_out_reward_rises_is_information() -> None:
    def before(i: int) -> Sample:
        return Sample(said(i).text, float(i % 2), float(i % 2), entropy=2.0 + 0.01 * i)

    def after(i: int) -> Sample:
        return Sample(said(i).text, 1.5 + i % 2, 1.5 + i % 2, entropy=0.1)

    assert codes(before, after) == {"entropy": "info"}


def test_answers_cut_by_the_limit() -> None:
    assert codes(said, lambda i: Sample(said(i).text, proxy=float(i % 2), is_cut=i % 3 > 0)) == {"clipped": "warning"}


def test_scores_that_are_all_one() -> None:
    assert codes(said, lambda i: Sample(said(i).text, proxy=1.0)) == {"no_signal": "info"}


def passing(visible: float, hidden: float) -> Callable[[int], Sample]:
    def make(i: int) -> Sample:
        wobble = 0.01 * (i % 3)
        return Sample(said(i).text, proxy=float(i % 2), facts={"visible": visible - wobble, "hidden": hidden})

    return make


def test_visible_tests_that_pass_alone_are_an_alarm() -> None:
    assert codes(passing(0.5, 0.5), passing(0.9, 0.5)) == {"test_gap": "alarm"}
    assert codes(passing(0.5, 0.5), passing(0.9, 0.9)) == {}


def test_a_judge_that_turns_with_the_order() -> None:
    def flips(share: int) -> Callable[[int], Sample]:
        return lambda i: Sample(said(i).text, proxy=float(i % 2), facts={"flipped": float(i % 10 < share)})

    assert codes(flips(1), flips(8)) == {"judge_flips": "warning"} and codes(flips(1), flips(3)) == {}


def test_reward_models_that_part() -> None:
    def apart(std: float) -> Callable[[int], Sample]:
        return lambda i: Sample(said(i).text, proxy=float(i % 2), facts={"std": std + 0.01 * (i % 4)})

    assert codes(apart(0.2), apart(0.5)) == {"disagreement": "warning"} and codes(apart(0.2), apart(0.25)) == {}


def test_numbers_of_texts() -> None:
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert compression("too short") is None
    loop, prose = compression("again " * 100), compression(" ".join(f"w{i * i}" for i in range(100)))
    assert loop is not None and prose is not None and loop < 0.1 < 0.3 < prose
    assert distinct([["a b", "a b"], ["a c"]], 1) == pytest.approx((2 / 4 + 1) / 2)
    assert distinct([["a b", "a b"]], 2) == 0.5
