"""Chains of thought that a person can read: one language, short paragraphs, no code where one is not wanted."""

from __future__ import annotations

import pytest

from strop.rollout.filters import Without
from strop.rollout.readable import OneLanguage, Paragraphs
from strop.types import Completion, Group

ENGLISH = "First we compute the whole sum, and then we divide it by two."
GERMAN = "Zuerst berechnen wir die ganze Summe, und danach teilen wir sie durch zwei."


def thought(*thoughts: str, answer: str = "It is 4.") -> Group:
    return Group("q", tuple(Completion(f"<think>{t}</think>{answer}") for t in thoughts))


def left(found: tuple[list[Group], object]) -> list[str]:
    return [c.text.split("</think>")[0].removeprefix("<think>") for g in found[0] for c in g.completions]


def test_mixed_thinking_goes_and_formulas_alone_stay() -> None:
    mixed = f"{ENGLISH}\n\n{GERMAN}"
    group = thought(ENGLISH, mixed, GERMAN, "2+2=4")
    found = OneLanguage(target="en")([group])
    assert left(found) == [ENGLISH, "2+2=4"]
    assert found[1] == {"answers of which less than 0.9 is in en": 2}
    assert left(OneLanguage(target="en", min_share=0.4)([group])) == [ENGLISH, mixed, "2+2=4"]


def test_which_part_is_read() -> None:
    group = thought(ENGLISH, answer=GERMAN)
    assert left(OneLanguage(target="en")([group])) == [ENGLISH]
    assert left(OneLanguage(target="en", part="answer")([group])) == []
    assert left(OneLanguage(target="de", part="answer")([group])) == [ENGLISH]


def test_a_long_paragraph_of_the_thinking_goes() -> None:
    short, long = "one two three\n\nfour five six", "one two three\nfour five six"
    found = Paragraphs(most=5)([thought(short, long, answer="a long answer of far more than five words")])
    assert left(found) == [short] and found[1] == {"answers with a paragraph of more than 5 words": 1}
    assert left(Paragraphs(most=6)([thought(short, long)])) == [short, long]
    assert left(Paragraphs(most=2, part="answer")([thought(short, answer="now four\n\nis it")])) == [short]


def test_a_pattern_may_be_looked_for_in_a_part() -> None:
    group = Group("q", (Completion("<think>```x```</think>4"), Completion("<think>x</think>```4```")))
    found = Without(pattern="```", part="thinking")([group])
    assert left(found) == ["x"] and found[1] == {"answers with ``` in the thinking": 1}
    assert left(Without(pattern="```", part="answer")([group])) == ["```x```"]
    assert left(Without(pattern="```")([group])) == []


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="'english' is unknown"):
        OneLanguage(target="english")
    with pytest.raises(ValueError, match=r"min_share must be in \[0, 1\], got 2"):
        OneLanguage(min_share=2)
    with pytest.raises(ValueError, match=r"paragraphs.most must be at least 1 word, got 0"):
        Paragraphs(most=0)
