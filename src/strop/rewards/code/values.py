"""Plain values as bytes and back: all that passes between a sandbox and the grader.

The tree is JSON of texts, null, true/false, whole numbers below 2^53 and lists that begin with a tag:
`["l", ...]` list, `["t", ...]` tuple, `["s", ...]` set, `["f", ...]` frozenset,
`["d", key, value, ...]` dict, `["i", hex]` int, `["x", hex]` float, `["c", hex, hex]` complex,
`["b", hex]` bytes, `["D", text]` Decimal, `["F", hex, hex]` Fraction, `["T", name]` one of Python's own types.
Whole numbers are hexadecimal where long, because decimal ones cost quadratic time to read.

What is not plain but holds plain values becomes so: subclasses become what they extend,
iterators, ranges, deques, arrays and views become lists. Anything else is `Unplain`.

Runs on both sides, so it imports the standard library alone.
"""

from __future__ import annotations

import array
import collections
import decimal
import fractions
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

MAX_BYTES = 1_000_000
"""The longest message, either way."""

MAX_DEPTH = 100
"""How deep values may be nested: the grader reads them by recursion."""

_MAX_ITEMS = MAX_BYTES // 2
_SMALL = 2**53
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_HEX = re.compile(r"-?[0-9a-f]+\Z")


class Unplain(ValueError):
    """A value, or bytes, that are no plain data."""


def dump(tree: Any) -> bytes:
    """A tree as bytes. Raises: Unplain if they are more than `MAX_BYTES`."""
    data = json.dumps(tree, separators=(",", ":")).encode("ascii")
    if len(data) > MAX_BYTES:
        raise Unplain(f"{len(data)} bytes are more than {MAX_BYTES}")
    return data


def load(data: bytes) -> Any:
    """The tree that bytes from a sandbox hold; never slow or deep, whatever they are.

    Raises: Unplain if they are too many, nested too deep, or no tree.
    """
    if len(data) > MAX_BYTES:
        raise Unplain(f"more than {MAX_BYTES} bytes")
    if _depth(data) > MAX_DEPTH + 10:
        raise Unplain(f"nested more than {MAX_DEPTH} deep")
    try:
        return json.loads(data.decode("ascii"), parse_int=_small, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unplain(f"no plain data: {error}") from None


def _depth(data: bytes) -> int:
    """The deepest nesting of brackets outside texts."""
    bare = _STRING.sub(b"", data)
    if bare.count(b"[") + bare.count(b"{") <= MAX_DEPTH:
        return 0
    steps = (1 if c in b"[{" else -1 if c in b"]}" else 0 for c in bare)
    return max(itertools.accumulate(steps), default=0)


def _small(digits: str) -> int:
    if len(digits) > 17:
        raise ValueError("a long number that is not hexadecimal")
    return int(digits)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text[:20]} is not written so")


def encode(value: Any, depth: int = 0) -> Any:
    """A plain value as a tree, types told apart by what they are, never by what they say.

    Raises: Unplain for another object, or one nested too deep or without end.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else ["i", _hex(value)]
    if kind is float:
        return ["x", value.hex()]
    if depth >= MAX_DEPTH:
        raise Unplain(f"nested more than {MAX_DEPTH} deep")
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        return [_TAGS[kind], *_items(value, depth)]
    if kind is dict:
        return ["d", *_items(itertools.chain.from_iterable(value.items()), depth)]
    return _encode_rare(value, kind, depth)


_TAGS: dict[Any, str] = {list: "l", tuple: "t", set: "s", frozenset: "f"}
_BASES: tuple[tuple[type, Any], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (dict, lambda value: dict(dict.items(value))),
    (list, lambda value: list(list.__iter__(value))),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
    (complex, complex.__complex__ if hasattr(complex, "__complex__") else complex),
)
_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, type(None))
}
_LISTED: tuple[Any, ...] = (
    Iterator,
    range,
    collections.deque,
    array.array,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)


def _encode_rare(value: Any, kind: type, depth: int) -> Any:
    if kind is complex:
        return ["c", value.real.hex(), value.imag.hex()]
    if kind is type and value in _TYPES.values():
        return ["T", value.__name__]
    if isinstance(value, bytes | bytearray | memoryview):
        return ["b", bytes(value).hex()]
    if isinstance(value, decimal.Decimal):
        return ["D", decimal.Decimal.__str__(value)]
    if isinstance(value, fractions.Fraction):
        return ["F", _hex(value.numerator), _hex(value.denominator)]
    for base, plain in _BASES:
        if isinstance(value, base):
            return encode(plain(value), depth + 1)
    if isinstance(value, _LISTED):
        return ["l", *_items(value, depth)]
    if kind.__module__.split(".")[0] == "numpy" and hasattr(kind, "tolist"):
        return encode(value.tolist(), depth + 1)
    raise Unplain(f"a {kind.__name__} is not plain data")


def _items(values: Iterable[Any], depth: int) -> list[Any]:
    items = [encode(item, depth + 1) for item in itertools.islice(values, _MAX_ITEMS)]
    if len(items) == _MAX_ITEMS:
        raise Unplain(f"{_MAX_ITEMS} items or more")
    return items


def decode(tree: Any) -> Any:
    """The value of a tree. Not for the grader's side: sets of chosen numbers can be slow to build.

    Raises: Unplain if it is no tree.
    """
    if tree is None or isinstance(tree, bool | int | str):
        return tree
    if not isinstance(tree, list) or not tree or not isinstance(tree[0], str):
        raise Unplain("no tree")
    tag, rest = tree[0], tree[1:]
    if tag in _MAKE:
        return _MAKE[tag](decode(item) for item in rest)
    if tag == "d" and len(rest) % 2 == 0:
        items = [decode(item) for item in rest]
        return dict(zip(items[::2], items[1::2], strict=True))
    try:
        return scalar(tag, rest)
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise Unplain(f"no tree: {error}") from None


_MAKE: dict[str, Any] = {"l": list, "t": tuple, "s": set, "f": frozenset}


def scalar(tag: str, rest: list[Any]) -> Any:
    """The number, bytes or type with a tag. Raises: ValueError, TypeError, LookupError or ArithmeticError."""
    if tag == "b":
        (text,) = rest
        return bytes.fromhex(text)
    if tag == "x":
        (text,) = rest
        return float.fromhex(text)
    if tag == "i":
        (text,) = rest
        return _whole(text)
    if tag == "T":
        (text,) = rest
        return _TYPES[text]
    if tag == "c":
        real, imaginary = rest
        return complex(float.fromhex(real), float.fromhex(imaginary))
    if tag == "D":
        (text,) = rest
        return decimal.Decimal(text)
    if tag == "F":
        above, below = rest
        if len(above) + len(below) > 10_000:  # reducing longer ones is slow
            raise ValueError("a fraction of too many digits")
        return fractions.Fraction(_whole(above), _whole(below))
    raise ValueError(f"no tag {tag!r:.20}")


def _hex(value: int) -> str:
    return f"{value:x}"


def _whole(text: str) -> int:
    if not _HEX.match(text):
        raise ValueError("no hexadecimal number")
    return int(text, 16)
