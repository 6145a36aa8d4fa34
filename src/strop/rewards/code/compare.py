"""Whether what came out of a sandbox is what was expected; decided outside, on plain trees.

Nothing of the program's own runs here, so no `__eq__`, subclass or patch of its can have a say.
Two rules, because JSON and Python say different things:
- `as_json`: an expected value written in JSON. Lists and tuples are alike (JSON has one of them),
  true is not 1, 15 is 15.0, and an expected float is met within 1e-6 of it.
- `as_python`: an expected value written in Python (an assert): what `==` says of plain values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from strop.rewards.code.values import Unplain, encode, scalar

_NUMBER = int | float | complex | Decimal | Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What counts as the same.

    Attributes:
        list_tags, tuple_tags: tags of the sequences that meet an expected list, and a tuple.
        bools_count: whether True meets 1.
        relative, absolute: how far a float may be from an expected float.
        key_texts: whether a dict's number keys meet the texts that JSON has to write for them.
    """

    list_tags: frozenset[str]
    tuple_tags: frozenset[str]
    bools_count: bool
    relative: float
    absolute: float
    key_texts: bool


AS_JSON = Rules(
    list_tags=frozenset("lt"),
    tuple_tags=frozenset("lt"),
    bools_count=False,
    relative=1e-6,
    absolute=1e-9,
    key_texts=True,
)
AS_PYTHON = Rules(
    list_tags=frozenset("l"),
    tuple_tags=frozenset("t"),
    bools_count=True,
    relative=0.0,
    absolute=0.0,
    key_texts=False,
)


def same_value(tree: Any, want: Any, rules: Rules) -> bool:
    """Whether a tree from a sandbox is the expected value.

    Args: want: a plain value, trusted. Its size bounds the work: unequal lengths end it.
    """
    if want is None:
        return tree is None
    if isinstance(want, bool | _NUMBER):
        return _same_number(_number(tree), want, rules)
    if isinstance(want, str):
        return type(tree) is str and tree == want
    if not isinstance(tree, list) or not tree:
        return False
    if isinstance(want, bytes | bytearray):
        return tree == ["b", bytes(want).hex()]
    if isinstance(want, type):
        return tree == ["T", want.__name__]
    tag, items = tree[0], tree[1:]
    if isinstance(want, list | tuple):
        tags = rules.list_tags if isinstance(want, list) else rules.tuple_tags
        fits = isinstance(tag, str) and tag in tags and len(items) == len(want)
        return fits and all(same_value(t, w, rules) for t, w in zip(items, want, strict=True))
    if isinstance(want, set | frozenset):
        return tag in ("s", "f") and len(items) == len(want) and _same_keys(items, [encode(w) for w in want])
    if isinstance(want, Mapping):
        return tag == "d" and len(items) == 2 * len(want) and _same_dict(items, want, rules)
    return False


def _number(tree: Any) -> Any:
    """The number a tree stands for; `None` if it is none."""
    if isinstance(tree, bool | int):
        return tree
    if not isinstance(tree, list) or not tree or tree[0] not in ("i", "x", "c", "D", "F"):
        return None
    try:
        return scalar(tree[0], tree[1:])
    except (ValueError, TypeError, ArithmeticError):
        return None


def _same_number(got: Any, want: Any, rules: Rules) -> bool:
    if got is None:
        return False
    if not rules.bools_count and isinstance(got, bool) != isinstance(want, bool):
        return False
    if isinstance(got, complex) or isinstance(want, complex):
        return _same_complex(got, want, rules)
    if want != want:  # NaN meets NaN where it is expected, and nothing else does
        return bool(got != got) and rules.relative > 0
    if _equal(got, want):
        return True
    if not isinstance(want, float) or isinstance(got, bool) or rules.relative == 0:
        return False
    try:
        return math.isclose(float(got), want, rel_tol=rules.relative, abs_tol=rules.absolute)
    except (OverflowError, ValueError):
        return False


def _equal(got: Any, want: Any) -> bool:
    try:
        return bool(got == want)
    except ArithmeticError:  # a signalling NaN of Decimal
        return False


def _same_complex(got: Any, want: Any, rules: Rules) -> bool:
    try:
        one, other = complex(got), complex(want)
    except (OverflowError, ValueError, TypeError):
        return False
    return _same_number(one.real, other.real, rules) and _same_number(one.imag, other.imag, rules)


def _same_keys(items: list[Any], wanted: list[Any]) -> bool:
    return sorted(map(_key, items)) == sorted(map(_key, wanted))


def _same_dict(items: list[Any], want: Mapping[Any, Any], rules: Rules) -> bool:
    found = {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}
    texts = {_json_key(k): v for k, v in zip(items[::2], items[1::2], strict=True)} if rules.key_texts else {}
    for key, value in want.items():
        name = _key(encode(key))
        if name not in found:
            if not isinstance(key, str) or key not in texts:
                return False
            if not same_value(texts[key], value, rules):
                return False
        elif not same_value(found[name], value, rules):
            return False
    return True


def _key(tree: Any) -> str:
    """A text that equal keys share: numbers by value, all else as written; members of sets sorted."""
    number = _number(tree)
    if number is not None:
        return _number_key(number)
    if isinstance(tree, list) and tree and isinstance(tree[0], str):
        parts = [_key(item) for item in tree[1:]]
        return f"{tree[0]}({','.join(sorted(parts) if tree[0] in ('s', 'f') else parts)})"
    return json.dumps(tree)


def _number_key(number: Any) -> str:
    """A text for a number; whole ones share theirs. A Decimal's exponent may be huge: never write it out."""
    if isinstance(number, Decimal):
        return (
            f"Decimal {number!r}"
            if not number.is_finite() or number.adjusted() > 400
            else _number_key(Fraction(number))
        )
    if isinstance(number, complex):
        return f"complex {number!r}" if number.imag else _number_key(number.real)
    whole = isinstance(number, int) or (number.is_integer() if isinstance(number, float) else number.denominator == 1)
    return f"{int(number):x}" if whole else f"{type(number).__name__} {number!r}"


def _json_key(tree: Any) -> str | None:
    """The text that JSON writes for a key that is no text; `None` where it has no such form."""
    if tree is None or isinstance(tree, bool):
        return json.dumps(tree)
    number = _number(tree)
    if isinstance(number, int) and abs(number) < 2**64:
        return str(number)
    return repr(number) if isinstance(number, float) else None


def same_output(data: bytes, want: str) -> bool:
    """Whether a program's output is the expected text, spaces at line ends and blank last lines aside.

    Output that is no UTF-8 is never right.
    """
    try:
        return _lines(data.decode("utf-8")) == _lines(want)
    except UnicodeDecodeError:
        return False


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def from_json(value: Any) -> Any:
    """An expected value or an argument as JSON writes it: `{"~set": [1, 2]}` is a set.

    Also `~tuple`, `~list`, `~frozenset`, `~bytes` (hex), `~complex` ([real, imaginary]), `~float`
    ("nan", "inf"), `~int` (a text) and `~dict` (a list of [key, value]).

    Raises: Unplain for a tag that is not known or does not fit what it holds.
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and str(next(iter(value))).startswith("~"):
        ((tag, inner),) = value.items()
        return _tagged(tag, inner)
    return {key: from_json(item) for key, item in value.items()}


def _tagged(tag: str, inner: Any) -> Any:
    makers: dict[str, Any] = {
        "~set": lambda v: {_frozen(from_json(i)) for i in v},
        "~frozenset": lambda v: frozenset(_frozen(from_json(i)) for i in v),
        "~tuple": lambda v: tuple(from_json(i) for i in v),
        "~list": lambda v: [from_json(i) for i in v],
        "~dict": lambda v: {_frozen(from_json(k)): from_json(i) for k, i in v},
        "~bytes": bytes.fromhex,
        "~complex": lambda v: complex(*v),
        "~float": float,
        "~int": int,
    }
    if tag not in makers:
        raise Unplain(f"no tag {tag!r}; known: {', '.join(makers)}")
    try:
        return makers[tag](inner)
    except (TypeError, ValueError) as error:
        raise Unplain(f"{tag} does not fit {inner!r:.40}: {error}") from None


def _frozen(value: Any) -> Any:
    """A list as a tuple, which can stand in a set."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
