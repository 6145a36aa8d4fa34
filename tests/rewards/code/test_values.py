"""Plain data there and back, whatever a program tries to send."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest

from strop.rewards.code.values import MAX_BYTES, Unplain, decode, dump, encode, load

Point = namedtuple("Point", "x y")


class Level(IntEnum):
    LOW = 2


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __int__(self) -> int:
        return 12


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**53,
        -(10**300),
        0.1,
        -0.0,
        5e-324,
        math.inf,
        "",
        "é😀\ud800\0",
        b"\0\xff",
        1 + 2j,
        [],
        [[1], (2, "x"), {3}, frozenset({4})],
        {1: "a", "b": [None], (1, 2): {}},
        Decimal("1.50"),
        Fraction(-1, 3),
        int,
    ],
)
def test_a_value_survives(value: Any) -> None:
    got = decode(load(dump(encode(value))))
    assert got == value and type(got) is type(value)
    assert repr(got) == repr(value) or isinstance(value, set | frozenset | list | int)


def test_numbers_of_any_length_survive() -> None:
    assert decode(load(dump(encode(-(10**60_000))))) == -(10**60_000)


def test_nan_survives() -> None:
    assert math.isnan(decode(load(dump(encode(math.nan)))))


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, 2), (1, 2)),
        (Level.LOW, 2),
        (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(int, a=1), {"a": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (deque([1, 2]), [1, 2]),
        (range(3), [0, 1, 2]),
        (map(str, [1]), ["1"]),
        ((i for i in (1, 2)), [1, 2]),
        ({"a": 1}.keys(), ["a"]),
        (bytearray(b"x"), b"x"),
    ],
)
def test_what_holds_plain_values_becomes_plain(value: Any, plain: Any) -> None:
    got = decode(encode(value))
    assert got == plain and type(got) is type(plain)


def test_a_subclass_is_what_it_extends_not_what_it_says() -> None:
    tree = encode(Liar(7))
    assert tree == 7 and type(tree) is int


@pytest.mark.parametrize("value", [object(), lambda: 1, Exception("x"), print, type("C", (), {})(), Ellipsis])
def test_other_objects_are_refused(value: Any) -> None:
    with pytest.raises(Unplain, match="is not plain data"):
        encode(value)


def test_depth_length_and_endlessness_have_limits() -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    circle: list[Any] = []
    circle.append(circle)
    for value in (deep, circle, itertools.count()):
        with pytest.raises(Unplain):
            encode(value)
    with pytest.raises(Unplain, match="are more than"):
        dump(encode("x" * MAX_BYTES))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 900_000,
        b"[" * 900_000 + b"]" * 50_000,
        b'{"a":' * 100_000,
        b"1" * 900_000,
        b"1e999",
        b"NaN",
        b"\xff",
        b'"\\ud800',
        b'"' + b"\\" * 900_000,
        b"[[[]",
        b"x" * (MAX_BYTES + 1),
        b"1.5",
    ],
    ids=range(13),
)
def test_hostile_bytes_are_refused_at_once(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(Unplain):
        load(data)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    "tree",
    [
        [],
        ["?"],
        [1],
        ["i", "0x1"],
        ["i", "zz"],
        ["x", "one"],
        ["x"],
        ["d", 1],
        ["c", "1"],
        ["F", "1", "0"],
        ["T", "object"],
    ],
)
def test_what_is_no_tree_is_refused(tree: Any) -> None:
    with pytest.raises(Unplain):
        decode(tree)
