"""Whether an answer's tree says what the gold's says: order, brackets, signs and units first, values last.

What only arithmetic on closed forms can tell (is \\sqrt 8 equal to 2 \\sqrt 2?) is asked of `ask`,
so that all else is decided without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from strop.rewards.math.nodes import Node, Plain, number, plain, spread, walk
from strop.rewards.math.units import is_measure, unit

_T = TypeVar("_T")
Ask = Callable[[Node, Node], bool]
"""Whether two closed forms are equal, wherever both are defined."""

MAX_ITEMS = 40
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
SCALARS = frozenset(["num", "sym", "const", "neg", "add", "mul", "div", "pow", "call", "root", "pct", "deg", "pm"])
_INFINITY = Node("const", text="oo")
_MINUS_INFINITY = Node("neg", (_INFINITY,))

Piece = tuple[Node, str, str, Node]
"""An interval: from, "[" or "(", "]" or ")", to."""


def same(gold: Node, answer: Node, ask: Ask) -> bool:
    """Whether the answer is the gold. Not symmetric: the gold says which form is wanted."""
    if gold == answer:
        return True
    if max(len(gold.parts), len(answer.parts)) > MAX_ITEMS:
        return False
    if "words" in (gold.kind, answer.kind) or "base" in (gold.kind, answer.kind):
        return gold == answer
    if "unit" in (gold.kind, answer.kind):
        return _same_units(gold, answer, ask)
    if gold.kind == answer.kind == "rel" and _unknowns(gold) != _unknowns(answer):
        return False
    regions = region(gold), region(answer)
    if regions[0] is not None and regions[1] is not None and not (gold.kind == answer.kind == "tuple"):
        return matched(regions[0], regions[1], lambda g, a: _same_piece(g, a, ask))
    if "rel" in (gold.kind, answer.kind):
        return _same_relations(gold, answer, ask)
    return _same_collections(gold, answer, ask)


def _same_collections(gold: Node, answer: Node, ask: Ask) -> bool:
    if gold.kind == "tuple":
        return _same_tuples(gold, _as_tuple(answer, gold), ask)
    if gold.kind in ("set", "list") or "pm" in (gold.kind, answer.kind) or answer.kind in ("set", "list"):
        return _same_sets(gold, answer, ask)
    if gold.kind in ("union", "minus", "row", "matrix"):
        parts = zip(gold.parts, answer.parts, strict=False)
        alike = gold.kind == answer.kind and len(gold.parts) == len(answer.parts)
        return alike and all(same(g, a, ask) for g, a in parts)
    return answer.kind in SCALARS and _same_values(gold, answer, ask)


# Values.


def _same_values(gold: Node, answer: Node, ask: Ask) -> bool:
    """Two closed forms. A gold that is a plain number wants one: what was asked is not an answer."""
    if gold.kind == "deg" or answer.kind == "deg":
        return _same_angles(gold, answer, ask)
    wanted, found = plain(gold), plain(answer)
    if wanted is not None and found is not None:
        return _same_plain(wanted, found)
    if wanted is not None:
        return _is_rounded(gold, answer) and ask(gold, answer)
    return ask(gold, answer)


def _same_plain(gold: Plain, answer: Plain) -> bool:
    """Equal as rationals. A percent sign is a unit that an answer may leave out: 50 for 50%, but not 0.5 for 0.5%."""
    if gold.rational == answer.rational:
        return True
    return gold.percent and not answer.percent and abs(gold.value) >= 1 and gold.value == answer.value


def _is_rounded(gold: Node, answer: Node) -> bool:
    """Whether a gold can be a rounding of an exact closed form: a decimal of five digits or more, of an irrational."""
    numerals = [n.value for n in walk(gold) if n.kind == "num" and n.text == "." and n.value is not None]
    if len(numerals) != 1 or not _irrational(answer) or _has_decimal(answer):
        return False
    value = abs(numerals[0])
    while value.denominator != 1:
        value *= 10
    return value >= 10_000


def _irrational(node: Node) -> bool:
    return any(n.kind in ("root", "call", "const") or (n.kind == "pow" and plain(n) is None) for n in walk(node))


def _has_decimal(node: Node) -> bool:
    return any(n.kind == "num" and n.text == "." for n in walk(node))


def _same_angles(gold: Node, answer: Node, ask: Ask) -> bool:
    """Degrees with degrees; a plain number where the other has the sign; radians for an exact multiple of pi."""
    inner = [n.parts[0] if n.kind == "deg" else n for n in (gold, answer)]
    if gold.kind == answer.kind or (plain(inner[0]) is not None and plain(inner[1]) is not None):
        return same(inner[0], inner[1], ask)
    return ask(gold, answer)


# Units.


def _same_units(gold: Node, answer: Node, ask: Ask) -> bool:
    """The value and the unit; either side may leave its unit out, but not have another one."""
    wanted = unit(gold.text) if gold.kind == "unit" else None
    found = unit(answer.text) if answer.kind == "unit" else None
    left, right = (n.parts[0] if n.kind == "unit" else n for n in (gold, answer))
    if answer.kind == "unit" and found is None:
        return gold.kind == "unit" and gold.text.casefold() == answer.text.casefold() and same(left, right, ask)
    if gold.kind == "unit" and wanted is None:
        return False
    if left.kind not in SCALARS or right.kind not in SCALARS:
        return wanted == found and same(left, right, ask)
    if wanted is None or found is None:
        return (found is None or is_measure(found[0])) and same(left, right, ask)
    if wanted[0] != found[0]:
        return _unnamed(wanted[0], found[0]) and same(left, right, ask)
    if wanted[1] == found[1]:
        return same(left, right, ask)
    numbers = plain(left), plain(right)
    if numbers[0] is None or numbers[1] is None:
        return False
    return numbers[0].rational * wanted[1] == numbers[1].rational * found[1]


def _unnamed(gold: tuple[tuple[str, int], ...], answer: tuple[tuple[str, int], ...]) -> bool:
    """Whether one is "units" where the other is a unit of the same power."""
    return "unit" in (gold[0][0], answer[0][0]) and len(gold) == len(answer) == 1 and gold[0][1] == answer[0][1]


# Tuples, sets and lists.


def _as_tuple(answer: Node, gold: Node) -> Node:
    """An answer's list as the tuple it stands for: x = 1, y = 2 in the order of the names; three or more bare items."""
    if answer.kind != "list" or answer.text == "or":
        return answer
    named = [named_value(part) for part in answer.parts]
    names = [n[0].text for n in named if n is not None and n[0].kind == "sym"]
    if len(names) == len(named) and names == sorted(set(names)) and len(gold.parts) == len(names):
        return Node("tuple", tuple(n[1] for n in named if n is not None), "()")
    return Node("tuple", answer.parts, gold.text) if len(answer.parts) > 2 and not names else answer


def _same_tuples(gold: Node, answer: Node, ask: Ask) -> bool:
    """Part by part in order; the brackets of two parts may be an interval's, so they must be the same."""
    answer = _value(answer)
    if answer.kind != "tuple" or len(gold.parts) != len(answer.parts):
        return False
    alike = gold.text == answer.text or len(gold.parts) > 2
    return alike and all(same(g, a, ask) for g, a in zip(gold.parts, answer.parts, strict=True))


def _same_sets(gold: Node, answer: Node, ask: Ask) -> bool:
    """The same members in any order. Values of different names (x = 1, y = 2) go by their names."""
    wanted, found = members(gold), members(answer)
    names = {n[0] for n in map(named_value, wanted) if n is not None}
    if gold.kind == "list" and len(names) == len(wanted) > 1:
        if all(named_value(a) is None for a in found):
            alike = answer.kind == "list" and len(wanted) == len(found)
            return alike and all(same(g, a, ask) for g, a in zip(wanted, found, strict=True))
        return matched(wanted, found, lambda g, a: named_value(a) is not None and same(g, a, ask))
    if {gold.kind, answer.kind} == {"set", "list"} or "pm" in (gold.kind, answer.kind) or gold.kind == answer.kind:
        return matched(wanted, found, lambda g, a: same(g, a, ask))
    return False


def members(node: Node) -> list[Node]:
    """The members of a set or a list, each plus-or-minus as two; a repeated one counts once."""
    parts = node.parts if node.kind in ("set", "list") else (node,)
    found = [n for part in parts for n in spread(_value(part) if node.kind == "set" or _has_sign(part) else part)]
    return list(dict.fromkeys(found))


def _has_sign(node: Node) -> bool:
    return any(n.kind == "pm" for n in walk(node))


def matched(gold: Sequence[_T], answer: Sequence[_T], equal: Callable[[_T, _T], bool]) -> bool:
    """Whether each of the gold's has its own partner among the answer's, and none is left over."""
    if len(gold) != len(answer) or len(gold) > MAX_ITEMS:
        return False
    left = list(answer)
    for wanted in gold:
        partner = next((i for i, found in enumerate(left) if equal(wanted, found)), None)
        if partner is None:
            return False
        del left[partner]
    return True


# Relations.


def named_value(node: Node) -> tuple[Node, Node] | None:
    """The name and the value of `x = 3`, `f(x) = x^2`, `x \\in S`; None where no name is given to anything."""
    if node.kind != "rel" or node.text not in ("=", "in"):
        return None
    left, right = node.parts
    if left == right or (left.kind == "sym" and left.text in _unknowns(right)):
        return None  # it is not solved for the name
    if is_name(left) and not (is_name(right) and right.kind != "sym"):
        return left, right
    return (right, left) if is_name(right) and node.text == "=" and plain(left) is not None else None


def is_name(node: Node) -> bool:
    """A symbol, symbols in brackets, a function of symbols or numbers (f(2)), words, a symbol's absolute value."""
    if node.kind in ("sym", "words"):
        return True
    if node.kind == "tuple":  # (x, y) = (1, 2), in the order of the alphabet
        names = [p.text for p in node.parts]
        return all(p.kind == "sym" for p in node.parts) and names == sorted(set(names))
    if node.kind == "call" and node.text == "abs":
        return all(is_name(p) for p in node.parts)
    if node.kind == "mul" and len(node.parts) == 2 and node.parts[0].kind == "sym":
        known = node.parts[0].text[:1] in ("f", "g", "h", "P", "p", "F", "T", "E", "a", "S", "A", "V", "u", "y", "x")
        return known and (node.parts[1].kind in ("sym", "tuple") or plain(node.parts[1]) is not None)
    return node.kind == "mul" and all(p.kind == "sym" and p.text.isupper() for p in node.parts)


def _value(node: Node) -> Node:
    named = named_value(node)
    return node if named is None else named[1]


def _same_relations(gold: Node, answer: Node, ask: Ask) -> bool:
    """Relations: the same names and values, or both sides in proportion. A name may be left out, or added."""
    wanted, found = named_value(gold), named_value(answer)
    if gold.kind != "rel":
        return found is not None and same(gold, found[1], ask)
    if answer.kind != "rel":
        return wanted is not None and same(wanted[1], answer, ask)
    if wanted is not None and found is not None and wanted[0] == found[0]:
        return same(wanted[1], found[1], ask)
    if wanted is not None and not any(n.kind == "sym" for n in walk(wanted[1])):
        return False  # 2x = 6 leaves the work to do
    if region(gold) is not None:
        return False  # and so does x + 2 > 0
    return _same_chains(_ordered(gold), _ordered(answer), ask)


def _ordered(node: Node) -> Node:
    """The chain with its signs pointing to the left: a > b as b < a."""
    signs = node.text.split()
    if not all(s in (">", ">=") for s in signs):
        return node
    return Node("rel", node.parts[::-1], " ".join(_FLIPPED[s] for s in reversed(signs)))


def _same_chains(gold: Node, answer: Node, ask: Ask) -> bool:
    if gold.text != answer.text:
        return False
    if all(p.kind in SCALARS for p in (*gold.parts, *answer.parts)) and gold.text in ("=", "!=", "<", "<="):
        sides = [Node("add", (n.parts[0], Node("neg", (n.parts[1],)))) for n in (gold, answer)]
        return ask(Node("ratio", (sides[0],), gold.text), Node("ratio", (sides[1],), gold.text))
    return all(same(g, a, ask) for g, a in zip(gold.parts, answer.parts, strict=True))


# Regions of the real line.


def region(node: Node) -> list[Piece] | None:
    """The intervals that a node stands for, or None: an interval, a union, an inequality in one symbol, all reals."""
    if node.kind == "const" and node.text == "reals":
        return [(_MINUS_INFINITY, "(", ")", _INFINITY)]
    if node.kind == "tuple" and len(node.parts) == 2:
        return [(node.parts[0], node.text[0], node.text[1], node.parts[1])]
    if node.kind == "union":
        return _joined([region(p) for p in node.parts])
    if node.kind == "list" and node.text == "or" and all(p.kind == "rel" for p in node.parts):
        return _joined([region(p) for p in node.parts]) if len(_symbols(node)) == 1 else None
    if node.kind == "list" and node.text == "and" and len(node.parts) == 2 and len(_symbols(node)) == 1:
        return _between(region(node.parts[0]), region(node.parts[1]))
    if node.kind == "minus" and node.parts[0].text == "reals" and node.parts[1].kind == "set":
        return _without(node.parts[1].parts)
    return _of_relation(node) if node.kind == "rel" else None


def _symbols(node: Node) -> set[str]:
    return {p.text for part in node.parts for p in part.parts if p.kind == "sym"}


def _joined(parts: Sequence[list[Piece] | None]) -> list[Piece] | None:
    return None if None in parts else [piece for part in parts if part is not None for piece in part]


def _between(first: list[Piece] | None, second: list[Piece] | None) -> list[Piece] | None:
    """What a ray up and a ray down have in common: x > 3 and x < 5."""
    if first is None or second is None or len(first) != 1 or len(second) != 1:
        return None
    (low, high) = (first[0], second[0]) if second[0][0] == _MINUS_INFINITY else (second[0], first[0])
    if high[0] != _MINUS_INFINITY or low[3] != _INFINITY or low[0] == _MINUS_INFINITY:
        return None
    return [(low[0], low[1], high[2], high[3])]


def _without(points: Sequence[Node]) -> list[Piece] | None:
    values = [plain(p) for p in points]
    if any(v is None for v in values):
        return _around(list(points)) if len(points) == 1 else None
    return _around([number(x) for x in sorted({v.rational for v in values if v is not None})])


def _around(points: list[Node]) -> list[Piece]:
    return [(a, "(", ")", b) for a, b in pairwise([_MINUS_INFINITY, *points, _INFINITY])]


def _of_relation(node: Node) -> list[Piece] | None:
    """x < 3, 3 > x, 1 <= x < 2, x != 3, x in an interval; the symbol alone on its side."""
    if node.text == "in":
        return region(node.parts[1]) if node.parts[0].kind == "sym" else None
    chain = _ordered(node)
    signs, parts = chain.text.split(), chain.parts
    where = [i for i, p in enumerate(parts) if p.kind == "sym"]
    if len(where) != 1 or any(_free(p) for i, p in enumerate(parts) if i != where[0]):
        return None
    if signs == ["!="]:
        return _around([parts[1 - where[0]]])
    if not set(signs) <= {"<", "<="} or len(signs) > 2 or (len(signs) == 2 and where != [1]):
        return None
    low, high = (parts[0] if where[0] else _MINUS_INFINITY), (parts[-1] if where[0] < len(signs) else _INFINITY)
    left = "[" if where[0] and signs[0] == "<=" else "("
    right = "]" if where[0] < len(signs) and signs[-1] == "<=" else ")"
    return [(low, left, right, high)]


def _unknowns(node: Node) -> set[str]:
    return {n.text for n in walk(node) if n.kind == "sym"}


def _free(node: Node) -> bool:
    return any(n.kind == "sym" for n in walk(node))


def _same_piece(gold: Piece, answer: Piece, ask: Ask) -> bool:
    return gold[1:3] == answer[1:3] and same(gold[0], answer[0], ask) and same(gold[3], answer[3], ask)
