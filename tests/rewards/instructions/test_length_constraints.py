"""Words, sentences, paragraphs: counted, and compared."""

from __future__ import annotations

import pytest

from strop.rewards.instructions.length_constraints import (
    nth_paragraph_first_word,
    number_paragraphs,
    number_sentences,
    number_words,
)


@pytest.mark.parametrize(
    "text, relation, ok",
    [
        ("one two three", "at least", True),
        ("one two", "at least", False),
        ("one - two * three", "at least", True),
        ("don't stop", "at least", False),
        ("one two", "less than", True),
        ("one two three", "less than", False),
        ("one two three", "at most", True),
        ("one two three four", "exactly", False),
    ],
)
def test_number_words_of_three(text: str, relation: str, ok: bool) -> None:
    assert number_words(text, 3, relation).ok is ok  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text, relation, ok",
    [
        ("Yes. No. Perhaps.", "at least", True),
        ("Yes. No, perhaps.", "at least", False),
        ("Dr. Lee paid $3.50 at 5 p.m. today. So what?", "at least", False),
        ("a\n\nb\n\nc\n\nd", "at least", False),
        ("! ! ! !", "at least", False),
        ("Yes! No?", "less than", True),
        ("yes. no. perhaps.", "less than", False),
    ],
)
def test_number_sentences_of_three(text: str, relation: str, ok: bool) -> None:
    assert number_sentences(text, 3, relation).ok is ok  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text, ok",
    [
        ("One.\n***\nTwo.", True),
        ("***\nOne.\n***\nTwo.\n***", True),
        ("One. *** Two.", True),
        ("One.\n\nTwo.", False),
        ("One.\n***\nTwo.\n***\nThree.", False),
        ("One.\n***\n***\nTwo.", False),
        ("One.\n******\nTwo.", False),
        ("One ***bold*** word.", False),
    ],
)
def test_number_paragraphs_of_two(text: str, ok: bool) -> None:
    assert number_paragraphs(text, 2).ok is ok


@pytest.mark.parametrize(
    "text, ok",
    [
        ("First.\n\nWeekend plans.\n\nLast.", True),
        ('First.\n \n"Weekend," he said.\n\n\n\nLast.', True),
        ("First.\n\nThe weekend.\n\nLast.", False),
        ("First.\n\nWeekends.\n\nLast.", False),
        ("First.\n\nWeekend plans.", False),
        ("First.\nWeekend plans.\nLast.", False),
        ("First.\n\nWeekend.\n\nLast.\n\nMore.", False),
    ],
)
def test_the_second_of_three_paragraphs(text: str, ok: bool) -> None:
    assert nth_paragraph_first_word(text, 3, 2, "weekend").ok is ok


def test_a_paragraph_that_is_not_there() -> None:
    assert not nth_paragraph_first_word("One.\n\nTwo.", 2, 3, "two").ok
    assert nth_paragraph_first_word("Well-known.", 1, 1, "well-known").ok


def test_counts_are_told() -> None:
    assert number_words("one two", 3, "at least").said == "2 words, at least 3 wanted"
    assert nth_paragraph_first_word("A b.", 1, 1, "b").said == "paragraph 1 begins with 'A', 'b' wanted"
