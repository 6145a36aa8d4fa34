"""What is worked out in the worker: closed forms by their values, and the rest by math-verify.

math-verify takes the last of several equations, drops words and compares decimals to six digits,
so it only sees what our own reader cannot read (a scalar times a matrix, an integral in the gold),
and pairs whose relations and commas are as many.
"""

from __future__ import annotations

from typing import Any

from math_verify import parse, verify
from math_verify.parser import LatexExtractionConfig

from strop.rewards.math import numeric
from strop.rewards.math.decide import BadGold, Decision, decide, may_ask_peer
from strop.rewards.math.nodes import Node
from strop.rewards.math.read import read
from strop.rewards.math.same import SCALARS
from strop.rewards.math.tokens import Unread


def work_out(gold: str, answer: str) -> Decision:
    """The decision on two texts.

    Raises: BadGold for a gold that neither reader understands.
    """
    found = decide(gold, answer, ask)
    if found is not None:
        return found
    if not may_ask_peer(gold, answer):
        _parsed(gold, BadGold)
        return Decision(False, "not the gold's form")
    return Decision(compare(gold, answer), "compared by math-verify", "math-verify")


def work_out_alone(gold: str) -> Decision:
    """Whether a gold can be worked out at all: each of its values, or its reading by math-verify.

    Raises: BadGold for one that neither reader understands.
    """
    try:
        node = read(gold)
    except Unread:
        compare(gold, "7")  # equal texts would be equal without any work
        return Decision(True, "compared by math-verify", "math-verify")
    if node.kind in ("set", "list", "tuple", "rel", "unit", "union"):
        return Decision(all(ask(part, part) for part in node.parts if part.kind in SCALARS), "its parts have values")
    return Decision(node.kind not in SCALARS or ask(node, node), "it has a value")


def ask(gold: Node, answer: Node) -> bool:
    """Whether two closed forms are equal by their values; a form without one equals nothing."""
    try:
        return numeric.equal(gold, answer)
    except numeric.Undefined:
        return False


def compare(gold: str, answer: str) -> bool:
    """What math-verify says of two LaTeX texts, with its own time limits off: they need the main thread's signals.

    Raises: BadGold if it cannot parse the gold.
    """
    wanted = _parsed(gold, BadGold)
    try:
        found = _parsed(answer, ValueError)
    except ValueError:
        return False
    equal = verify(wanted, found, float_rounding=15, numeric_precision=30, strict=True, timeout_seconds=None)
    return bool(equal)


def _parsed(text: str, trouble: type[Exception]) -> Any:
    found = parse(
        f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=False
    )
    if not found:
        raise trouble(f"the gold answer cannot be read: {text[:80]}")
    return found
