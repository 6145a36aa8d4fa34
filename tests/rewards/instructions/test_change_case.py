"""Capitals and small letters, in English."""

from __future__ import annotations

import pytest

from strop.rewards.instructions.change_case import capital_word_frequency, english_capital, english_lowercase


@pytest.mark.parametrize(
    "text, ok",
    [
        ("THE LAW IS BAD, AND 3 PEOPLE KNOW IT.", True),
        ("OK.", True),
        ("THE LAW IS bAD.", False),
        ("The law is bad.", False),
        ("123 456", False),
        ("DAS GESETZ IST SCHLECHT UND NIEMAND SOLLTE ES BEFOLGEN.", False),
        ("ЗАКОН ПЛОХОЙ", False),
    ],
)
def test_english_capital(text: str, ok: bool) -> None:
    assert english_capital(text).ok is ok


@pytest.mark.parametrize(
    "text, ok",
    [
        ("the law is bad, and 3 people know it.", True),
        ("john smith", True),
        ("the law is Bad.", False),
        ("I think so.", False),
        ("123 456", False),
        ("das gesetz ist schlecht und niemand sollte es befolgen.", False),
    ],
)
def test_english_lowercase(text: str, ok: bool) -> None:
    assert english_lowercase(text).ok is ok


@pytest.mark.parametrize(
    "text, relation, ok",
    [
        ("A BIG, BOLD plan", "at least", True),
        ("**BIG** (BOLD) U.S. plan", "at least", True),
        ("BIG Bold BoLD 3", "at least", False),
        ("BIG-TIME plan OK", "at least", False),
        ("BIG plan OK", "less than", True),
        ("BIG BOLD PLAN", "less than", False),
    ],
)
def test_three_words_in_capitals(text: str, relation: str, ok: bool) -> None:
    assert capital_word_frequency(text, 3, relation).ok is ok  # type: ignore[arg-type]
