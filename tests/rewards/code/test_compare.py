"""What is the same, in JSON's words and in Python's."""

from __future__ import annotations

import math
import time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from strop.rewards.code.compare import AS_JSON, AS_PYTHON, from_json, same_output, same_value
from strop.rewards.code.values import Unplain, encode

NAN = math.nan


@pytest.mark.parametrize(
    ("got", "want", "json", "python"),
    [
        (15, 15.0, True, True),
        (15.0, 15, True, True),
        (15.0000001, 15, False, False),
        (15.0000001, 15.0, True, False),
        (15.0001, 15.0, False, False),
        (1e-12, 0.0, True, False),
        (True, 1, False, True),
        (1, True, False, True),
        (0, False, False, True),
        (True, True, True, True),
        (1.0, True, False, True),
        ("", False, False, False),
        (None, None, True, True),
        (0, None, False, False),
        (NAN, NAN, True, False),
        (NAN, 1.0, False, False),
        (1.0, NAN, False, False),
        (math.inf, math.inf, True, True),
        (math.inf, 1e300, False, False),
        ((1, 2), [1, 2], True, False),
        ([1, 2], (1, 2), True, False),
        ([1, 2], [1, 2], True, True),
        ([2, 1], [1, 2], False, False),
        ({1, 2}, [1, 2], False, False),
        ({2, 1}, {1, 2}, True, True),
        ({1.0}, {1}, True, True),
        (frozenset({1}), {1}, True, True),
        ({(1, 2)}, {(1, 2)}, True, True),
        ({1}, {1, 2}, False, False),
        ({"a": [1]}, {"a": [1]}, True, True),
        ({1: "x"}, {"1": "x"}, True, False),
        ({None: 1, True: 2}, {"null": 1, "true": 2}, True, False),
        ({1.5: 1}, {"1.5": 1}, True, False),
        ({"1": "x"}, {1: "x"}, False, False),
        ({1: 2}, {1.0: 2.0}, True, True),
        ({"a": 1, "b": 2}, {"a": 1}, False, False),
        ("a", b"a", False, False),
        (b"a", b"a", True, True),
        (3 + 0j, 3, True, True),
        (1 + 2j, 1 + 2j, True, True),
        (1j, 2j, False, False),
        (Decimal("0.5"), 0.5, True, True),
        (Fraction(1, 3), 1 / 3, True, False),
        (Decimal("1E+999999999"), 5, False, False),
        (Decimal("1E+999999999"), 5.0, False, False),
        (Decimal("sNaN"), 5.0, False, False),
        (10**400, 1.0, False, False),
        (10**4000, 10**4000, True, True),
        ("1", 1, False, False),
        (int, int, True, True),
        (int, "int", False, False),
        ([[1, [2.0]], {"k": (3,)}], [[1, [2]], {"k": [3]}], True, False),
    ],
)
def test_the_same_or_not(got: Any, want: Any, json: bool, python: bool) -> None:
    assert same_value(encode(got), want, AS_JSON) is json
    assert same_value(encode(got), want, AS_PYTHON) is python


@pytest.mark.parametrize(
    "tree", [[], ["l"], ["?", 1], [1, 2], {"a": 1}, ["i"], ["x", 1], ["d", 1], ["s", ["l"]], ["i", "-"]]
)
@pytest.mark.parametrize("want", [None, 1, 1.5, "a", [1], {1}, {"a": 1}, b"", True])
def test_forged_trees_are_no_errors(tree: Any, want: Any) -> None:
    assert same_value(tree, want, AS_JSON) is False


def test_a_forged_set_with_repeated_members_is_another() -> None:
    assert not same_value(["s", 1, 1], {1, 2}, AS_JSON)
    assert not same_value(["d", "a", 1, "a", 1], {"a": 1, "b": 1}, AS_JSON)


def test_hostile_values_are_compared_at_once() -> None:
    began = time.process_time()
    huge = ["D", "1E+999999999"]
    assert not same_value(["s", huge], {1}, AS_JSON) and not same_value(["d", huge, 1], {"1": 1}, AS_JSON)
    assert not same_value(["F", "f" * 400_000, "e" * 400_000], 1.5, AS_JSON)
    assert not same_value(["i", "f" * 900_000], 1.5, AS_JSON)
    assert not same_value(["s", *(["i", f"{i * (2**61 - 1):x}"] for i in range(20_000))], {1}, AS_JSON)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("data", "want", "same"),
    [
        (b"6", "6\n", True),
        (b"6  \r\n\n\n", "6", True),
        (b" 6", "6", False),
        (b"6.0", "6", False),
        (b"1\n\n2", "1\n2", False),
        (b"6\x00", "6", False),
        (b"6\xff", "6", False),
        (b"", "", True),
        ("é".encode(), "é", True),
    ],
)
def test_output_is_compared_by_lines(data: bytes, want: str, same: bool) -> None:
    assert same_output(data, want) is same


def test_tags_of_json() -> None:
    assert from_json({"~set": [1, [2, 3]]}) == {1, (2, 3)}
    assert from_json({"a": {"~tuple": [1]}, "b": [{"~bytes": "ff"}]}) == {"a": (1,), "b": [b"\xff"]}
    assert from_json({"~dict": [[1, 2]]}) == {1: 2} and from_json({"~complex": [1, 2]}) == 1 + 2j
    assert math.isinf(from_json({"~float": "inf"})) and from_json({"~int": "12"}) == 12
    for wrong in ({"~sett": [1]}, {"~bytes": "z"}, {"~set": 3}):
        with pytest.raises(Unplain):
            from_json(wrong)
