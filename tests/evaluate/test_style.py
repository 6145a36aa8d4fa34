"""What answers look like, counted by hand."""

from __future__ import annotations

import pytest

from strop.evaluate.style import FEATURES, distinct_2, hedges, refuses

ANSWER = """<think>two words
more</think>
# Heading

Some **bold text** and __more__, 2 * 3 ** 4.
- one
- two
1. three
2) four

```python
# no heading
- no item
x = "**not bold**"
```
The end."""


def measured(text: str) -> dict[str, float]:
    return {name: of(text) for name, (of, _) in FEATURES.items()}


def test_marks_are_counted_in_the_answer_and_outside_of_code() -> None:
    found = measured(ANSWER)
    assert (found["headings"], found["bold"], found["list_items"], found["code_blocks"]) == (1, 2, 4, 1)
    assert found["thinking_words"] == 3 and found["words"] == len(ANSWER.split("</think>")[1].split())


def test_an_answer_that_never_ends_its_thinking_has_no_words() -> None:
    found = measured("<think>on and on")
    assert (found["words"], found["thinking_words"]) == (0, 3)
    assert measured("plain answer")["thinking_words"] == 0 and measured("")["words"] == 0


def test_a_block_that_is_not_closed_is_one_of_code() -> None:
    found = measured("Look:\n```\n- a\n- b")
    assert (found["code_blocks"], found["list_items"]) == (1, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("I'm sorry, but I can't help with that.", 1),
        ("I cannot do this.", 1),
        ("As an AI, I have no body.", 1),
        ("I’m not able to open files.", 1),
        ("Sure! I can help with that.", 0),
        ("Here is a letter: " + "word " * 60 + "I'm sorry for the delay.", 0),
        ("<think>I cannot see it</think>It is 12.", 0),
    ],
)
def test_refusals_are_told_by_how_answers_begin(text: str, says: float) -> None:
    assert refuses(text) == says


def test_hedges_and_repetition_are_rates() -> None:
    assert hedges("Perhaps it is so, and maybe it could be otherwise today.") == pytest.approx(100 * 3 / 11)
    assert hedges("") == 0
    assert measured("a b c d " * 5)["repetition"] == pytest.approx(1 - 4 / 17)


def test_answers_that_are_one_have_few_distinct_pairs() -> None:
    assert distinct_2(["a b c", "d e f"]) == 1
    assert distinct_2(["a b c"] * 4) == 0.25
    assert distinct_2(["a", ""]) is None
