"""A generator's scorer is checked before it is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from strop.rewards.gym import check

Scorer = Callable[[str, Mapping[str, Any]], Any]


def entries(*answers: str | None) -> list[dict[str, Any]]:
    return [{"question": f"{i}?", "answer": answer, "metadata": {}} for i, answer in enumerate(answers)]


def checked(scorer: Scorer, monkeypatch: pytest.MonkeyPatch, *answers: str | None) -> str:
    def ask(request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        given = scorer(request["answer"], request["entry"])
        return given if isinstance(given, dict) else {"score": given}

    monkeypatch.setattr(check, "ask", ask)
    check._floor.cache_clear()
    return check.self_check("g", {}, entries(*(answers or ("a", "b", "c", "d", "e"))), timeout_s=1.0)


def test_a_sound_scorer_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(lambda answer, entry: answer == entry["answer"], monkeypatch) == ""


def test_one_that_does_not_know_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    told = checked(lambda answer, entry: 0.5, monkeypatch)
    assert told == "entry 0: the entry's own answer 'a' scores 0.5, not 1"


def test_one_that_takes_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(lambda answer, entry: 1.0, monkeypatch) == "entry 0: nonsense scores 1"


def test_one_that_takes_answers_to_other_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    told = checked(lambda answer, entry: len(answer) == 1 and answer.isalpha(), monkeypatch)
    assert told == "5 of 5 answers to other entries score 1"


def test_one_that_raises_or_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "on the entry's own answer the scorer raised X" in checked(lambda a, e: {"error": "X"}, monkeypatch)
    assert "the scorer gave NaN" in checked(lambda a, e: float("nan"), monkeypatch)


def test_an_entry_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no answer of its own" in checked(lambda a, e: 1.0, monkeypatch, None)


def test_an_example_among_the_metadata_stands_for_the_answer() -> None:
    metadata = {"possible_answer": {"$dict": [[0, 1], [1, 2]]}}
    assert check.own_answer({"question": "?", "answer": None, "metadata": metadata}) == '{"0": 1, "1": 2}'


def test_scores_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "ask", lambda request, timeout_s: {"score": 1.7})
    assert check.raw_score("g", {}, entries("a")[0], "a", timeout_s=1.0) == 1.0
