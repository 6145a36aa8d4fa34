"""Groups of two evaluations that belong together."""

from __future__ import annotations

from strop.evaluate.matching import matched
from strop.types import Completion, Group, Message


def group(prompt: str, *answers: str) -> Group:
    return Group(prompt, tuple(Completion(text) for text in answers))


def test_groups_of_the_same_prompt_belong_together_in_any_order() -> None:
    assert matched([group("a"), group("b"), group("c")], [group("c"), group("a"), group("x")]) == [(0, 1), (2, 0)]
    assert matched([], [group("a")]) == []


def test_a_prompt_that_stands_twice_is_matched_in_order_and_once_each() -> None:
    ours, theirs = [group("a"), group("a"), group("a")], [group("b"), group("a"), group("a")]
    assert matched(ours, theirs) == [(0, 1), (1, 2)]


def test_a_plain_prompt_is_a_user_turn_and_other_turns_make_another_prompt() -> None:
    turns = Group((Message("user", "a"),))
    told = Group((Message("system", "be brief"), Message("user", "a")))
    assert matched([group("a"), told], [turns]) == [(0, 0)]
    assert matched([group("a")], [told]) == []


def test_rows_that_are_only_read_must_have_the_same_answers() -> None:
    ours, theirs = [group("a", "x", "y"), group("b", "z")], [group("b", "z"), group("a", "y", "x")]
    assert matched(ours, theirs) == [(0, 1), (1, 0)]
    assert matched(ours, theirs, answers=True) == [(1, 0)]
