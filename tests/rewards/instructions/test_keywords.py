"""Words and letters: what counts as there, and what only looks like it."""

from __future__ import annotations

import time

import pytest

from strop.rewards.instructions.keywords import existence, forbidden_words, frequency, letter_frequency


@pytest.mark.parametrize(
    "text, keywords, ok",
    [
        ("The story of a Sneaker.", ["story", "sneaker"], True),
        ("Two sneakers and a story.", ["story", "sneaker"], True),
        ("The story.", ["story", "sneaker"], False),
        ("In history there are sneakers.", ["story", "sneaker"], False),
        ("He is well   known there.", ["well known"], True),
        ("It’s Tom's.", ["it's", "Tom’s"], True),
        ("这是一个短句", ["短句"], True),
        ("st\u200bory", ["story"], True),
        ("C++ is old.", ["C++"], True),
        ("", ["a"], False),
    ],
)
def test_existence(text: str, keywords: list[str], ok: bool) -> None:
    assert existence(text, keywords).ok is ok


def test_existence_names_what_is_missing() -> None:
    assert existence("one", ["one", "two", "three"]).said == "'two', 'three' missing"


@pytest.mark.parametrize(
    "text, relation, ok",
    [
        ("war War WAR", "at least", True),
        ("war and War", "at least", False),
        ("wars, warm, war", "at least", True),
        ("award, toward, war", "at least", False),
        ("war, war", "less than", True),
        ("war, war, war", "less than", False),
    ],
)
def test_frequency_of_three(text: str, relation: str, ok: bool) -> None:
    assert frequency(text, "war", 3, relation).ok is ok  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text, ok",
    [
        ("We climb a stone.", True),
        ("A rocket and a shamrock.", True),
        ("We ROCK.", False),
        ("_rock_ on", False),
        ("the **rock**!", False),
        ("ro\u200bck", False),
        ("ｒｏｃｋ", False),
    ],
)
def test_forbidden_words(text: str, ok: bool) -> None:
    assert forbidden_words(text, ["rock", "stone age"]).ok is ok


@pytest.mark.parametrize(
    "text, letter, num, relation, ok",
    [
        ("#a #b #c #d", "#", 4, "at least", True),
        ("#a #b #c d", "#", 4, "at least", False),
        ("Oo", "o", 2, "at least", True),
        ("Oo", "o", 2, "less than", False),
        ("O", "o", 2, "less than", True),
        ("xyz", "o", 1, "less than", True),
    ],
)
def test_letter_frequency(text: str, letter: str, num: int, relation: str, ok: bool) -> None:
    assert letter_frequency(text, letter, num, relation).ok is ok  # type: ignore[arg-type]


def test_counts_are_told() -> None:
    assert frequency("war", "war", 3, "at least").said == "1 times 'war', at least 3 wanted"


def test_a_long_text_is_cheap() -> None:
    began = time.process_time()
    frequency("war " * 50_000, "war", 3, "at least")
    forbidden_words("a b " * 50_000, ["a c", "b d"])
    assert time.process_time() - began < 2
