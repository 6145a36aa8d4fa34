"""Closed forms compared by their values at many points, to more digits than their texts could forge.

Two forms are equal if their values agree to D/2 digits, worked out with D = 100 + 4 * (characters
of both) digits, at every one of the points where both are defined: positive and negative reals.
A decimal that comes near (3.14159 for pi) differs in its first digits that are missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import mpmath

from strop.rewards.math.nodes import Node, walk

NUM_POINTS = 7
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "sin": mpmath.sin, "cos": mpmath.cos, "tan": mpmath.tan, "cot": mpmath.cot, "sec": mpmath.sec, "csc": mpmath.csc,
    "arcsin": mpmath.asin, "arccos": mpmath.acos, "arctan": mpmath.atan, "sinh": mpmath.sinh, "cosh": mpmath.cosh,
    "tanh": mpmath.tanh, "ln": mpmath.log, "exp": mpmath.exp, "abs": abs, "floor": mpmath.floor,
    "ceiling": mpmath.ceil, "factorial": mpmath.factorial, "binomial": mpmath.binomial,
}  # fmt: skip


class Undefined(Exception):
    """The form has no value at the point."""


def equal(gold: Node, answer: Node) -> bool:
    """Whether two closed forms agree wherever both are defined; for two of kind "ratio", are in proportion.

    `log` without a base is read both ways, natural and decimal; either will do. A gold of decimals
    against an exact irrational is compared as its rounding.
    """
    digits = 100 + 4 * (_size(gold) + _size(answer))
    with mpmath.workdps(min(digits, 4000)):
        bases = (mpmath.e, mpmath.mpf(10)) if _has_log(gold) or _has_log(answer) else (mpmath.e,)
        return any(_agree(gold, answer, base, digits) for base in bases)


def _size(node: Node) -> int:
    return sum(len(n.text) + (len(str(n.value)) if n.value is not None else 1) for n in walk(node))


def _has_log(node: Node) -> bool:
    return any(n.kind == "call" and n.text == "log" and len(n.parts) == 1 for n in walk(node))


def _agree(gold: Node, answer: Node, log_base: Any, digits: int) -> bool:
    answer = _with_constant_of(gold, answer)
    names = sorted({n.text for side in (gold, answer) for n in walk(side) if n.kind == "sym"})
    if not names and gold.kind != "ratio":
        places = _places(gold)
        values = _value(gold, {}, log_base), _value(answer, {}, log_base)
        if places is not None and _places(answer) is None:
            return bool(abs(values[0] - values[1]) <= mpmath.mpf(10) ** -places / 2)
        return _close(*values, digits)
    return _agree_at_points(gold, answer, names, log_base, digits)


def _places(node: Node) -> int | None:
    """Decimal places of a gold that is one decimal numeral."""
    found = [n for n in walk(node) if n.kind == "num"]
    if len(found) != 1 or found[0].text != "." or any(n.kind not in ("num", "neg") for n in walk(node)):
        return None
    value, places = found[0].value, 0
    assert value is not None
    while (value * 10**places).denominator != 1:
        places += 1
    return places


def _agree_at_points(gold: Node, answer: Node, names: list[str], log_base: Any, digits: int) -> bool:
    ratios, seen = [], 0
    needs_all = any(n.kind == "call" and n.text == "abs" for n in walk(gold))  # ln|x| is more than ln x
    for point in range(NUM_POINTS):
        at = {name: _coordinate(name, point) for name in names}
        try:
            left, right = _value(gold, at, log_base), _value(answer, at, log_base)
        except Undefined:
            continue
        if point >= 4 and not (_is_real(left, digits) and _is_real(right, digits)):
            if needs_all and _is_real(left, digits):
                return False
            continue  # outside of the reals' domain, as ln x of a negative x
        seen += 1
        if gold.kind == "ratio":
            if _is_zero(left, digits) or _is_zero(right, digits):
                return False
            ratios.append(left / right)
        elif not _close(left, right, digits):
            return False
    return seen >= 2 and (gold.kind != "ratio" or _constant(ratios, gold.text, digits))


def _with_constant_of(gold: Node, answer: Node) -> Node:
    """The answer with its constant of integration called C where the gold's is, and the answer has a c instead."""
    names = [{n.text for n in walk(side) if n.kind == "sym"} for side in (gold, answer)]
    last = answer.parts[-1] if answer.kind == "add" else answer
    if "C" in names[0] and "c" not in names[0] and "C" not in names[1] and last == Node("sym", text="c"):
        return replace(answer, parts=(*answer.parts[:-1], Node("sym", text="C")))
    return answer


def _constant(ratios: list[Any], sign: str, digits: int) -> bool:
    """Both sides in one proportion everywhere, and for an inequality a positive one."""
    positive = sign in ("=", "!=") or (_is_real(ratios[0], digits) and mpmath.re(ratios[0]) > 0)
    return positive and all(_close(ratios[0], r, digits) for r in ratios[1:])


def _coordinate(name: str, point: int) -> Any:
    """The value of a symbol at a point: a fraction drawn by its name, positive at the first four points."""
    drawn = int.from_bytes(hashlib.sha256(f"{name} {point}".encode()).digest()[:6], "big")
    value = mpmath.mpf(drawn % 99991 + 7) / 31013
    return value if point < 4 else -value


def _close(a: Any, b: Any, digits: int) -> bool:
    if mpmath.isinf(a) or mpmath.isinf(b):
        return bool(a == b)
    error, size = abs(a - b), max(abs(a), abs(b))
    tiny = mpmath.mpf(10) ** (-digits // 2)
    return bool(error <= tiny * size or (min(abs(a), abs(b)) == 0 and size < tiny))


def _is_zero(value: Any, digits: int) -> bool:
    return bool(abs(value) < mpmath.mpf(10) ** (-digits // 2))


def _is_real(value: Any, digits: int) -> bool:
    return bool(abs(mpmath.im(value)) <= mpmath.mpf(10) ** (-digits // 2) * max(1, abs(value)))


def _value(node: Node, at: Mapping[str, Any], log_base: Any) -> Any:
    """The value of a form at a point. Raises: Undefined where it has none."""
    try:
        value = _evaluated(node, at, log_base)
    except (ZeroDivisionError, ValueError, TypeError, OverflowError, mpmath.libmp.ComplexResult) as error:
        raise Undefined(str(error)) from None
    if mpmath.isnan(value):
        raise Undefined("not a number")
    return value


def _evaluated(node: Node, at: Mapping[str, Any], log_base: Any) -> Any:
    kind = node.kind
    if kind == "num":
        assert node.value is not None
        return mpmath.mpf(node.value.numerator) / node.value.denominator
    if kind == "sym":
        return at[node.text]
    if kind == "const":
        return _constant_of(node.text)
    parts = [_evaluated(p, at, log_base) for p in node.parts]
    if kind == "pow":
        return _power(parts[0], parts[1])
    if kind == "root":
        return _root(parts[0], parts[1])
    if kind == "call":
        return _called(node.text, parts, log_base)
    return _combined(kind, parts)


def _constant_of(name: str) -> Any:
    known = {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.mpc(0, 1), "oo": mpmath.inf}
    if name not in known:
        raise Undefined(f"{name} has no value")
    return +known[name]


def _combined(kind: str, parts: list[Any]) -> Any:
    if kind == "neg":
        return -parts[0]
    if kind in ("add", "ratio"):
        return sum(parts[1:], parts[0])
    if kind == "mul":
        product = parts[0]
        for part in parts[1:]:
            product = product * part
        return product
    if kind == "div":
        return parts[0] / parts[1]
    if kind == "pct":
        return parts[0] / 100
    if kind == "deg":
        return parts[0] * mpmath.pi / 180
    raise Undefined(f"{kind} has no value")


def _power(base: Any, exponent: Any) -> Any:
    """The principal value."""
    return mpmath.power(base, exponent)


def _root(radicand: Any, degree: Any) -> Any:
    """The real root of a negative number where the degree is odd; else the principal one."""
    if mpmath.im(radicand) == 0 and radicand < 0 and degree == int(degree) and int(degree) % 2:
        return -mpmath.root(-radicand, int(degree))
    return mpmath.power(radicand, 1 / mpmath.mpf(degree))


def _called(name: str, parts: list[Any], log_base: Any) -> Any:
    if name == "log":
        return mpmath.log(parts[0]) / mpmath.log(parts[1] if len(parts) > 1 else log_base)
    if name == "lg":
        return mpmath.log(parts[0]) / mpmath.log(10)
    return _FUNCTIONS[name](*parts)
