"""Entries as JSON and back, and the names of generators."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strop.rewards.gym.entries import Source, pack, parse_source, unpack


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "x"]},
        {"range": (1, (2, 3)), "set": {3, 1}, "inf": float("inf")},
        {0: "zero", (1, 2): ["pair"]},
        {"$tuple": 1, "b": {"$dict": []}},
        [],
        (),
    ],
)
def test_what_is_packed_comes_back_equal(value: Any) -> None:
    back = unpack(json.loads(json.dumps(pack(value), allow_nan=False)))
    assert back == value and type(back) is type(value)


def test_what_has_no_form_is_named() -> None:
    with pytest.raises(ValueError, match="an entry holds a object"):
        pack({"a": object()})


def test_a_source() -> None:
    assert parse_source("gym:leg_counting") == Source("leg_counting", {}, None, None)
    path = "gym:leg_counting?size=500&seed=1&max_animals=5&animals=[2,3]&word=cat"
    config = {"max_animals": 5, "animals": [2, 3], "word": "cat"}
    assert parse_source(path) == Source("leg_counting", config, 500, 1)


@pytest.mark.parametrize(
    "path, told",
    [
        ("gym:", "is no generator's name"),
        ("gym:leg counting", "is no generator's name"),
        ("gym:leg_counting?size", "settings are written"),
        ("gym:leg_counting?size=0", "size is 0"),
        ("gym:leg_counting?size=many", "size must be a whole number"),
        ("gym:leg_counting?seed=-1", "seed must be a whole number"),
        ("gym:leg_counting?a=1&a=2", "given twice"),
    ],
)
def test_a_wrong_source_is_named(path: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_source(path)
