"""What an answer reads as: a tree of numbers, symbols and operations, in which nothing is worked out.

Kinds of node, by `kind`:
    num      a numeral, exact (`value`); `text` is "." if it was written with a decimal point
    sym      a variable, by name; const: pi, e, i, oo (infinity), empty, reals, and such
    neg add mul div pow    arithmetic (`add` and `mul` have any number of parts)
    call     a function of one argument, `text` its name; log has its base as a second part
    root     a root: radicand, degree; pm: plus or minus (one part, or two)
    pct deg  a number of percent, an angle in degrees; unit: a value and its unit's words
    tuple    items between round, square or angle brackets, `text` the two brackets
    set list items in braces; items without brackets, `text` the separator: "," "or" "and"
    union minus    of sets
    rel      a chain of relations: parts, `text` the signs between them, separated by spaces
    matrix   rows (nodes of kind `row`); base: digits `text` in a base
    words    text that is no mathematics
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the tree."""

    kind: str
    parts: tuple[Node, ...] = ()
    text: str = ""
    value: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Plain:
    """A number written as one: its value before the percent sign, and whether there is one."""

    value: Fraction
    percent: bool = False

    @property
    def rational(self) -> Fraction:
        """The value with the percent sign worked in."""
        return self.value / 100 if self.percent else self.value


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.parts)


def number(value: Fraction | int) -> Node:
    """A numeral."""
    return Node("num", value=Fraction(value))


def plain(node: Node) -> Plain | None:
    """The number that a node is without anything being worked out, or None.

    Numerals, their negatives, fractions of whole numbers that are no whole number themselves,
    percent, powers of ten and scientific notation: 6*7, 84/2, 5! and 2^3 are computations.
    """
    if node.kind == "neg":
        inner = plain(node.parts[0])
        return None if inner is None or node.parts[0].kind == "neg" else replace(inner, value=-inner.value)
    if node.kind == "num":
        assert node.value is not None
        return Plain(node.value)
    if node.kind == "pct":
        inner = plain(node.parts[0])
        return None if inner is None or inner.percent else Plain(inner.value, True)
    if node.kind == "div":
        return _fraction(*node.parts)
    if node.kind == "mul" and len(node.parts) == 2:
        mantissa, power = plain(node.parts[0]), _power_of_ten(node.parts[1])
        return None if mantissa is None or mantissa.percent or power is None else Plain(mantissa.value * power)
    power = _power_of_ten(node)
    return None if power is None else Plain(power)


def _fraction(over: Node, under: Node) -> Plain | None:
    top, bottom = integer(over), integer(under)
    if top is None or not bottom or top % bottom == 0:
        return None
    return Plain(Fraction(top, bottom))


def _power_of_ten(node: Node) -> Fraction | None:
    if node.kind != "pow" or node.parts[0] != number(10):
        return None
    exponent = integer(node.parts[1])
    return None if exponent is None or abs(exponent) > 400 else Fraction(10) ** exponent


def integer(node: Node) -> int | None:
    """The whole number that a numeral, or its negative, is."""
    if node.kind == "neg":
        inner = integer(node.parts[0])
        return None if inner is None else -inner
    if node.kind != "num" or node.text or node.value is None or node.value.denominator != 1:
        return None
    return int(node.value)


def spread(node: Node) -> list[Node]:
    """The node with each plus-or-minus both ways: all upper signs, then all lower ones."""
    if not any(n.kind == "pm" for n in walk(node)):
        return [node]
    return [_signed(node, upper=True), _signed(node, upper=False)]


def _signed(node: Node, *, upper: bool) -> Node:
    parts = tuple(_signed(p, upper=upper) for p in node.parts)
    if node.kind != "pm":
        return replace(node, parts=parts)
    negative = (node.text == "mp") == upper
    last = Node("neg", parts[-1:]) if negative else parts[-1]
    return last if len(parts) == 1 else Node("add", (parts[0], last))


def show(node: Node) -> Any:
    """The node as nested lists, for tests and messages."""
    if node.kind == "num":
        return str(node.value)
    return [node.kind, *([node.text] if node.text else []), *map(show, node.parts)] if node.parts else node.text
