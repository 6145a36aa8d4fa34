"""A generator's entry as JSON that comes back equal, and the names `gym:NAME?key=value` of its data.

Scorers compare tuples with lists and look numbers up in mappings, so plain JSON would break them:
tuples, sets and mappings with keys that are no texts are written under a mark, as {"$tuple": [...]}.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

GYM = "gym:"
DEFAULT_SIZE = 1_000


@dataclass(frozen=True, slots=True)
class Source:
    """A generator's name, its settings, how many rows, and their seed (`None`: the recipe's)."""

    name: str
    config: Mapping[str, Any]
    size: int | None
    seed: int | None


def parse_source(path: str) -> Source:
    """`gym:NAME?size=500&seed=1&max_animals=5`: the name, then settings; those of the generator are JSON values.

    Raises: ValueError for another form.
    """
    name, _, query = path.removeprefix(GYM).partition("?")
    if not name.isidentifier():
        raise ValueError(f"{path}: {name!r} is no generator's name; write gym:leg_counting, or with ?size=500")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(f"{path}: settings are written ?key=value&key=value") from None
    given = {key: _value(text) for key, text in pairs}
    if len(given) < len(pairs):
        raise ValueError(f"{path}: a setting is given twice")
    size, seed = (_whole(path, key, given.pop(key, None)) for key in ("size", "seed"))
    if size == 0:
        raise ValueError(f"{path}: size is 0; ask for at least one row")
    return Source(name, given, size, seed)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _whole(path: str, key: str, value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise ValueError(f"{path}: {key} must be a whole number, at least 0, got {value!r}")
    return value


def pack(value: Any) -> Any:
    """A value as JSON that `unpack` turns back into an equal one.

    Raises: ValueError for a type that has no such form.
    """
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [pack(item) for item in value]}
    if isinstance(value, set | frozenset):
        return {"$set": [pack(item) for item in sorted(value, key=repr)]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: pack(item) for key, item in value.items()}
        return {"$dict": [[pack(key), pack(item)] for key, item in value.items()]}
    if isinstance(value, numbers.Integral):  # numpy's
        return int(value)
    if isinstance(value, numbers.Real):
        return pack(float(value))
    raise ValueError(f"an entry holds a {type(value).__name__}, which has no form in JSON")


def unpack(value: Any) -> Any:
    """The inverse of `pack`."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((mark, inside),) = value.items()
        if mark == "$float":
            return float(inside)
        if mark in ("$tuple", "$set"):
            return (tuple if mark == "$tuple" else set)(unpack(item) for item in inside)
        if mark == "$dict":
            return {unpack(key): unpack(item) for key, item in inside}
    return {key: unpack(item) for key, item in value.items()}
