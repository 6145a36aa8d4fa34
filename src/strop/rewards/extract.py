"""Where the answer stands in a text: after the thinking, behind the last marker.

Only the last answer counts, so that naming many candidates does not win. Markers, of equal rank:
`\\boxed{...}` (braces matched), `<answer>...</answer>`, `#### ...`, "the answer is ...",
"Answer: ..." and, for numbers, "A: ..." at the start of a line. A box inside a marked clause, or
the other way round, is one answer: the inner text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

MAX_CHARS = 20_000
"""Only this many last characters are searched for an answer, so that hostile texts stay cheap."""

_CLAUSE_CHARS = 300
_DEPTH = 5
_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,3}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_BOLD = re.compile(r"(?<![\w)])(?:\*\*|__|`)|(?:\*\*|__|`)(?![\w(])")
_IS = r"\banswers?(?:\s{1,3}to\s[^\n.:=]{1,60}?)?\s{0,3}(?:is\b|was\b|equals\b|would\sbe\b|[:=])"
CLAUSE = re.compile(rf"\#{{4}}|{_IS}", re.IGNORECASE)
"""Marks an answer that runs to the end of its sentence or line."""
CLAUSE_OR_A = re.compile(rf"\#{{4}}|{_IS}|^\s{{0,3}}A:", re.IGNORECASE | re.MULTILINE)
"""The same, with "A:" at the start of a line (no marker where A is an option's letter)."""
_CLAUSE_END = re.compile(r"\n|[.!?](?=\s|$)|</|\b(?:because|since)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A marked answer.

    Attributes: content: what the marker holds; `None` if its box or tag is not closed.
        start, stop: the place of marker and content in the text.
    """

    kind: Literal["box", "tag", "clause"]
    content: str | None
    start: int
    stop: int


def after_think(text: str) -> str:
    """The part after the last `</think>`; all of it if there is no think tag; empty if thinking never ends."""
    rest = text[text.rfind("</think>") + len("</think>") :] if "</think>" in text else text
    return "" if "<think>" in rest else rest


def answer_part(text: str) -> str:
    """The last `MAX_CHARS` characters after the thinking, without Markdown's bold and code marks or invisible ones."""
    text = after_think(text)[-MAX_CHARS:]
    if not text.isascii():  # a zero-width space must not cut a number in two
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return _BOLD.sub("", text)


def last_answer(text: str, clause: re.Pattern[str], wanted: re.Pattern[str]) -> Answer | None:
    """The last marked answer, or None.

    Args: clause: marks the beginning of an answer clause. wanted: what a clause must contain to
        count ("I hope the answer is clear" answers no number).
    """
    found = [a for a in (_last_box(text), last_tag(text)) if a is not None]
    clauses = _last_clause(text, clause, wanted, found)
    found += [clauses] if clauses else []
    return max(found, key=lambda a: (a.stop, -a.start), default=None)


def innermost(answer: Answer, clause: re.Pattern[str], wanted: re.Pattern[str]) -> str | None:
    """The content of an answer with all markers inside it taken off; `None` if one is not closed."""
    content = answer.content
    for _ in range(_DEPTH):
        inner = None if content is None else last_answer(content, clause, wanted)
        if inner is None:
            return content
        content = inner.content
    return None


def last_tag(text: str) -> Answer | None:
    """The last `<answer>` and what stands before its closing tag; content `None` if it is not closed."""
    tags = list(_TAG.finditer(text))
    opening = next((i for i in reversed(range(len(tags))) if not tags[i][1]), None)
    if opening is None:
        return None
    start = tags[opening]
    if opening + 1 == len(tags):
        return Answer("tag", None, start.start(), len(text))
    close = tags[opening + 1]
    return Answer("tag", text[start.end() : close.start()], start.start(), close.end())


def _last_box(text: str) -> Answer | None:
    """The last box that stands in no other box."""
    closing, found = _closing_braces(text), None
    for match in _BOX.finditer(text):
        if found is not None and match.start() < found.stop:
            continue
        stop = closing.get(match.end())
        content = None if stop is None else text[match.end() + 1 : stop]
        found = Answer("box", content, match.start(), len(text) if stop is None else stop + 1)
    return found


def _closing_braces(text: str) -> dict[int, int]:
    """The position of the brace that closes each opening brace, in one pass; escaped braces are text."""
    closing: dict[int, int] = {}
    open_braces: list[int] = []
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            open_braces.append(match.start())
        elif match[0] == "}" and open_braces:
            closing[open_braces.pop()] = match.start()
    return closing


def _last_clause(text: str, clause: re.Pattern[str], wanted: re.Pattern[str], others: list[Answer]) -> Answer | None:
    for match in reversed(list(clause.finditer(text))):
        if any(a.start <= match.start() < a.stop for a in others):
            continue  # it is part of that answer
        content = text[match.end() : match.end() + _CLAUSE_CHARS]
        end = _CLAUSE_END.search(content)
        content = content[: end.start()] if end else content
        if wanted.search(content):
            return Answer("clause", content, match.start(), match.end() + len(content))
    return None
