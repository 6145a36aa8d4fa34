"""Votes: which answer a solution gives, and which one wins."""

from __future__ import annotations

import pytest

from strop.rollout.vote import canonical_answer, winner


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>2+2=4</think><answer>4</answer> Happy to help!", "4"),
        ("First \\boxed{3}, then \\boxed{ 4.50 }.", "9/2"),
        ("So the answer is 1,200.", "1200"),
        ("The answer is $\\frac{1}{2}$", "1/2"),
        ("The answer is 50%", "50%"),
        ("<answer>The  Nile.</answer>", "the nile"),
        ("Paris", "paris"),
        ("It was 1999, I think", "it was 1999, i think"),  # nothing marks a number
        ("<think>never ends", None),
        ("", None),
        ("<answer></answer>", None),
    ],
)
def test_the_answer_as_votes_count_it(text: str, answer: str | None) -> None:
    assert canonical_answer(text) == answer


def test_other_ways_to_find_it() -> None:
    assert canonical_answer("so 3 + 4 gives 7", "number") == "7"
    assert canonical_answer("no idea", "number") is None
    assert canonical_answer("<answer>Yes</answer> 5", "answer_tag") == "yes"
    assert canonical_answer("5", "answer_tag") is None
    assert canonical_answer("a: 1, b: 2", r"b: (\d)") == "2"


def test_the_largest_sum_of_weights_wins() -> None:
    answers = ["a", "b", "a", None, "b"]
    assert winner(answers, [1.0] * 5) == "a"  # the first of equals
    assert winner(answers, [0.2, 0.9, 0.3, 9.0, 0.0]) == "b"
    assert winner(answers, [0.0] * 5) is None and winner([None], [1.0]) is None and winner([], []) is None
