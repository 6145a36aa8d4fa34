"""Whether the text of an answer says what the text of a gold says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from strop.rewards.math.box import refusal, refusal_of_size
from strop.rewards.math.nodes import Node, plain
from strop.rewards.math.read import read_tokens
from strop.rewards.math.same import Ask, same
from strop.rewards.math.tokens import Token, Unknown, Unread, key, tokens

_OPTION = re.compile(r"(?:(?:option|choice|answer)\s*:?\s*)?\(?\s*([A-Za-z])\s*[).:]?", re.IGNORECASE)
_RELATIONS = ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", ",", ";", r"\pm", r"\cup")


class NeedsWorker(Exception):
    """The comparison has parts that must be worked out."""


class BadGold(Exception):
    """The gold answer cannot be read: the verifier's fault, not the answer's."""


@dataclass(frozen=True, slots=True)
class Decision:
    """equal, and by what: equal texts, equal structure and numbers, or math-verify."""

    equal: bool
    reason: str
    by: Literal["text", "structure", "math-verify"] = "structure"


def unasked(gold: Node, answer: Node) -> bool:
    """The `Ask` of whoever works nothing out. Raises: NeedsWorker."""
    raise NeedsWorker


def decide(gold: str, answer: str, ask: Ask) -> Decision | None:
    """The decision, or None where one of the two cannot be read and only math-verify may tell.

    Raises: NeedsWorker from `unasked`.
    """
    wanted = _tokens(gold)
    refused = refusal(answer) if gold.strip() != answer.strip() else ""
    if refused:
        return Decision(False, refused)
    try:
        found = tokens(answer)
    except Unread as error:
        return Decision(False, f"the answer cannot be read: {error}")
    if wanted is not None and key(wanted) == key(found) and key(found):
        return Decision(True, "the same text", "text")
    if wanted is not None and (letter := _letter(wanted)) is not None:
        return _option(letter, answer)
    return _by_structure(gold, answer, wanted, found, ask)


def _tokens(gold: str) -> tuple[Token, ...] | None:
    try:
        return tokens(gold)
    except Unread:
        return None


def _letter(wanted: tuple[Token, ...]) -> str | None:
    """The option that a gold names: one capital letter, as text or in brackets or alone."""
    texts = [t.text for t in wanted if t.text not in "()."]
    return texts[0] if len(texts) == 1 and re.fullmatch(r"[A-J]", texts[0]) else None


def _option(letter: str, answer: str) -> Decision:
    bare = re.sub(r"\\(?:text|textbf|mathrm|mathbf|textit)\s*\{([^{}]*)\}", r"\1", answer)
    bare = re.sub(r"\\(?:text|textbf|mathrm|mathbf|textit)\s*\{([^{}]*)\}", r"\1", bare)
    match = _OPTION.fullmatch(bare.replace("$", "").replace("\\", "").strip())
    equal = match is not None and match[1].upper() == letter
    return Decision(equal, "the same option" if equal else f"not option {letter}", "text")


def _by_structure(
    gold: str, answer: str, wanted: tuple[Token, ...] | None, found: tuple[Token, ...], ask: Ask
) -> Decision | None:
    gold_node, _ = _read(wanted)
    node, unread = _read(found)
    if gold_node is not None and gold_node.kind == "words":
        return Decision(False, "not the gold's words")
    if gold_node is None:
        if wanted is not None and _are_words(wanted):
            return Decision(False, "not the gold's words")
        return None
    if node is None:
        may = isinstance(unread, Unknown) and plain(gold_node) is None and not _are_words(found)
        return None if may else Decision(False, f"the answer cannot be read: {unread}")
    too_big = refusal_of_size(node)
    if too_big:
        return Decision(False, too_big)
    equal = any(same(g, a, ask) for g, a in _readings(gold, answer, gold_node, node))
    return Decision(equal, "equal" if equal else "not equal")


def _readings(gold: str, answer: str, gold_node: Node, node: Node) -> list[tuple[Node, Node]]:
    """The two trees; where one is a list and the other has a number like 1,234, that as a list too."""
    found = [(gold_node, node)]
    if gold_node.kind in ("list", "set") and node.kind == "num" and "," in answer:
        found.append((gold_node, read_tokens(tokens(answer, grouped=False))))
    if node.kind in ("list", "set") and gold_node.kind == "num" and "," in gold and ", " in answer:
        found.append((read_tokens(tokens(gold, grouped=False)), node))
    return found


def _read(found: tuple[Token, ...] | None) -> tuple[Node | None, Exception | None]:
    try:
        return (None, None) if found is None else (read_tokens(found), None)
    except (Unread, RecursionError) as error:
        return None, error


def _are_words(found: tuple[Token, ...]) -> bool:
    return any(t.kind == "text" and len(t.text) > 1 for t in found)


def may_ask_peer(gold: str, answer: str) -> bool:
    """Whether math-verify may compare the two: as many relations, commas and unions in both, and no words.

    It takes the last of a chain of equations, and a list's or a sentence's parts, for the answer.
    """
    try:
        wanted, found = tokens(gold), tokens(answer)
    except Unread:
        return False
    count = [[side.count(sign) for sign in _RELATIONS] for side in map(_outside_braces, (wanted, found))]
    return count[0] == count[1] and not _are_words(found)


def _outside_braces(found: tuple[Token, ...]) -> list[str]:
    """The tokens that stand in no command's argument, where \\sum_{k=1} has its own sign."""
    out, depth = [], 0
    for token in found:
        depth += (token.text == "{") - (token.text == "}")
        if depth == 0:
            out.append(token.text)
    return out
