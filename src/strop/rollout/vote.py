"""Votes among sampled solutions: each is a voice for its answer, weighing one or its score.

What counts is the answer, not the words, so it is taken out of the solution and written in one way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from strop.rewards import extract
from strop.rewards.answers import answer_number, extracted
from strop.rewards.quantity import Quantity

_ANY = re.compile(r"\S")


def canonical_answer(text: str, by: str = "auto") -> str | None:
    """The answer of a solution as votes count it; None where there is none, which never wins.

    Args: by: "auto" takes the last marked answer (a box, an answer tag, "the answer is"), a number as
        a number, else all that stands behind the thinking; "number" the last number of the text even
        if nothing marks it; "answer_tag" the tag; anything else is a pattern whose last match (its
        first group) is the answer.
    """
    if by in ("auto", "number"):
        found = answer_number(text, unmarked=by == "number")
        if isinstance(found, Quantity):
            return f"{found.value}%" if found.percent else str(found.value)
        if by == "number":
            return None
    return _normal(_marked(text) if by == "auto" else extracted(text, by))


def winner(answers: Sequence[str | None], weights: Sequence[float]) -> str | None:
    """The answer with the largest sum of weights; of equal ones the first given; None where nothing has weight."""
    totals: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    best = max(totals, key=lambda answer: totals[answer], default=None)
    return best if best is not None and totals[best] > 0 else None


def _marked(text: str) -> str | None:
    part = extract.answer_part(text)
    answer = extract.last_answer(part, extract.CLAUSE, _ANY)
    return part if answer is None else extract.innermost(answer, extract.CLAUSE, _ANY)


def _normal(text: str | None) -> str | None:
    """Spaces, case, dollar signs and a full stop make no other answer."""
    words = " ".join((text or "").split()).casefold().strip("$ ").rstrip(".").strip("$ ")
    return words or None
