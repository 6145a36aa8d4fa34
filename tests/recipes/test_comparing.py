"""What stages of reward models share: balance of lengths, a token to pad with, what is measured."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.data import conftest as t

from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.whole import NO_LIMIT, WholeChat
from strop.recipes.stages.comparing import Comparisons, length_balanced, padding
from strop.types import Completion, Group, Message


def pair(first: int, second: int, number: int = 0) -> EncodedGroup:
    sides = tuple(EncodedSequence((number,) * n, (True,) * n) for n in (first, second))
    return EncodedGroup((1, 2), sides)


def kinds(groups: list[EncodedGroup]) -> Counter[int]:
    lengths = [[len(s.ids) for s in g.sequences] for g in groups]
    return Counter((a > b) - (a < b) for a, b in lengths)


def test_as_often_longer_as_shorter() -> None:
    """Ten longer, three shorter, two alike: each of the three is repeated as often as the others."""
    groups = [pair(5, 3, i) for i in range(10)] + [pair(2, 6, i) for i in range(10, 13)] + [pair(4, 4)] * 2
    balanced = length_balanced(groups, seed=1)
    assert kinds(balanced) == {1: 10, -1: 10, 0: 2} and balanced[: len(groups)] == groups
    times = Counter(g.sequences[0].ids[0] for g in balanced if len(g.sequences[0].ids) == 2)
    assert sorted(times.values()) == [3, 3, 4]
    assert length_balanced(groups, seed=1) == balanced != length_balanced(groups, seed=2)


def test_nothing_to_balance_with() -> None:
    groups = [pair(5, 3), pair(4, 2)]
    assert length_balanced(groups, seed=0) == groups
    even = [pair(5, 3), pair(2, 4)]
    assert length_balanced(even, seed=0) == even


def test_a_token_to_pad_with_ends_no_text() -> None:
    tokenizer = t.bpe(t.CHATML)
    assert padding(tokenizer, WholeChat(tokenizer)) == tokenizer.pad_token_id
    tokenizer.pad_token = tokenizer.eos_token
    assert padding(tokenizer, WholeChat(tokenizer)) == tokenizer.bos_token_id
    twice = t.bpe(t.ENDS_TWICE)  # its texts end with EOS, behind the end-of-turn token
    twice.pad_token = twice.eos_token
    assert padding(twice, WholeChat(twice)) == twice.bos_token_id


def ranking(*answers: str, **row: object) -> Group:
    said = tuple(Completion((Message("assistant", a),)) for a in answers)
    return Group((Message("user", "what is two"),), said, row=row)


def test_numbers_of_rows_become_columns() -> None:
    chat = Comparisons(t.bpe(t.CHATML), columns={"probability", "margin"})
    (found,) = chat.encode_many([ranking("yes", "no", margin=2, probability=0.75, other="x")], NO_LIMIT)
    assert isinstance(found, EncodedGroup) and found.columns == {"margin": 2.0, "probability": 0.75}
    plain = Comparisons(t.bpe(t.CHATML))
    (bare,) = plain.encode_many([ranking("yes", "no", margin=2)], NO_LIMIT)
    assert isinstance(bare, EncodedGroup) and bare.columns == {}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no probability"),
        ({"probability": None}, "no probability"),
        ({"probability": -0.1}, "probability is not in [0, 1]"),
        ({"probability": "high"}, "probability is no number"),
        ({"probability": True}, "probability is no number"),
        ({"probability": float("nan")}, "probability is no number"),
    ],
)
def test_rows_without_a_good_number_say_why(row: dict[str, object], reason: str) -> None:
    chat = Comparisons(t.bpe(t.CHATML), columns=("probability",))
    assert chat.encode_many([ranking("yes", "no", **row)], NO_LIMIT) == [reason]


def test_answers_that_are_the_same_cannot_be_ranked() -> None:
    chat = Comparisons(t.bpe(t.CHATML))
    assert chat.encode_many([ranking("yes", "no", "yes")], NO_LIMIT) == ["identical tokens"]
    assert chat.encode_many([ranking("yes", "yes")], NO_LIMIT) == ["identical tokens"]
    pairs = Comparisons(t.bpe(t.CHATML), pairs_only=True)
    (reason,) = pairs.encode_many([ranking("yes", "no", "hello")], NO_LIMIT)
    assert reason == "3 answers where the objective compares two (all_pairs ranks more)"
