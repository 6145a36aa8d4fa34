"""Where the answer stands, and what is refused before anything reads it.

The answer is the content of the one `\\boxed{...}` after the thinking. Several boxes are several
answers, and no answer; so is a text in which the thinking never ends.
"""

from __future__ import annotations

import math
import re
import unicodedata

from strop.rewards.extract import after_think
from strop.rewards.math.nodes import Node, integer

MAX_ANSWER = 1000
"""Characters an answer may have."""

MAX_DIGITS = 5000
"""Decimal digits that any number worked out of an answer may have."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_TO_BRACE = re.compile(r"(?:[^{}\\]++|\\.|\{[^{}\\]*+\})*+([{}])", re.DOTALL)
"""Up to the next brace that counts: escaped ones are skipped, and groups that hold no brace and no escape."""
_WORKED = re.compile(
    r"\\(?:i{0,3}nt|oint|iint|iiint|sum|prod|coprod|lim|limsup|liminf|max|min|sup|inf|det|gcd|lcm|deg|dim|ker|partial|nabla"
    r"|bigcup|bigcap|pmod|bmod|mod|operatorname\*?\{(?:lcm|gcd|max|min|tr|det|rank)\}|ldots|dots|cdots|vdots"
    r"|implies|iff|Rightarrow|rightarrow|to|quest|approxeq|therefore|because|url|href|input|include|def|newcommand)"
    r"(?![a-zA-Z])"
)
_OPENING = frozenset("([{")
_CLOSING = frozenset(")]}")
_MAX_NESTING = 30


def boxed(text: str) -> tuple[str | None, str]:
    """The content of the one box after the thinking, or None and why there is none."""
    text = after_think(text)
    starts = list(_BOX.finditer(text))
    if not starts:
        return None, "no \\boxed{} after the thinking" if text else "no answer after the thinking"
    content, stop = _content(text, starts[0].end())
    if content is None:
        return None, "the box is not closed"
    inside = sum(1 for m in starts[1:] if m.start() < stop)
    if inside < len(starts) - 1:
        return None, f"{len(starts) - inside} boxes; an answer has exactly one"
    for _ in range(inside):  # \boxed{\boxed{42}}
        match = _BOX.match(content.strip())
        inner, end = (None, 0) if match is None else _content(content.strip(), match.end())
        if inner is None or content.strip()[end:].strip():
            return None, "a box stands among other things in a box"
        content = inner
    content = "".join(c for c in content if c.isascii() or unicodedata.category(c) != "Cf").strip()
    return (content, "") if content.strip("$ ") else (None, "the box is empty")


def _content(text: str, at: int) -> tuple[str | None, int]:
    """What the braces that open at `at` hold, and where they end."""
    if text[at : at + 1] != "{":
        return None, at
    depth, stop = 1, at + 1
    while match := _TO_BRACE.match(text, stop):
        stop = match.end()
        depth += 1 if match[1] == "{" else -1
        if depth == 0:
            return text[at + 1 : stop - 1], stop
    return None, len(text)


def refusal(answer: str) -> str:
    """Why an answer is refused unread: too long, too deep, an operation still to be carried out; "" if it is not."""
    if len(answer) > MAX_ANSWER:
        return f"the answer has {len(answer)} characters, more than {MAX_ANSWER}"
    depth = deepest = 0
    for char in answer:
        depth += (char in _OPENING) - (char in _CLOSING)
        deepest = max(deepest, depth)
    if deepest > _MAX_NESTING:
        return f"brackets are nested {deepest} deep"
    worked = _WORKED.search(answer)
    if worked is not None:
        return f"{worked[0]} is still to be worked out"
    if "?" in answer:
        return "the answer is a question"
    digits = max((len(d) for d in re.findall(r"[0-9]+", answer)), default=0)
    return f"a number has {digits} digits" if digits > 400 else ""


def refusal_of_size(node: Node) -> str:
    """Why the numbers of an answer are refused: one has too many digits to be worked out."""
    return "" if _digits(node) <= MAX_DIGITS else f"a number in it has more than {MAX_DIGITS} digits"


def _digits(node: Node) -> float:
    """About an upper bound of the decimal digits before the point of any number on the way to the node's value.

    Symbols are tried at values below 4; powers with an exponent over 10^5 count as infinite.
    """
    if node.kind == "num":
        assert node.value is not None
        return math.log10(max(2, math.ceil(abs(node.value))))
    inner = [_digits(p) for p in node.parts]
    if any(d > MAX_DIGITS for d in inner):
        return math.inf
    if node.kind == "pow":
        return math.inf if inner[1] > 5 else max(inner[0], 0.3) * 10 ** inner[1]
    if node.kind == "call" and node.text in ("factorial", "binomial", "exp", "sinh", "cosh"):
        return math.inf if max(inner) > 5 else max(1.0, *inner) * 10 ** max(inner)
    if node.kind == "div":
        return inner[0] + (0 if integer(node.parts[1]) else inner[1])
    if node.kind == "mul":
        return sum(inner)
    return max(inner, default=0.5) + (0.5 if len(inner) > 1 else 0)
