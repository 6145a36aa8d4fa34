"""What people said of two answers, as rows of many habits write it.

A verdict is told of the row's answers as they are listed: 1, "a", "model_a", "first" for the first,
2, "b", "model_b", "second" for the second, "tie" (or 0) for neither. A list holds several people's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from strop.rollout.couples import Couple, Preference
from strop.types import Group

FIRST = frozenset({"1", "a", "first", "model_a", "response_a", "response_1", "output_1", "answer_a", "chosen"})
SECOND = frozenset({"2", "b", "second", "model_b", "response_b", "response_2", "output_2", "answer_b", "rejected"})
NEITHER = frozenset({"0", "tie", "both", "neither", "same", "equal", "both bad", "tie (bothbad)", "tie (both bad)"})
COLUMNS = ("winner", "label", "preference")
"""Where rows of kind comparison have people's verdict."""


def people_of(group: Group, kind: str, column: str | None, first: int, second: int) -> tuple[float | None, ...]:
    """Each person's verdict on two of a group's answers: 1 (the first place is better), 0, 1/2; None where none.

    Args: kind: of the rows; the answers of preferences and rankings are listed best first, or scored.
        column: where the verdicts stand; null goes by the kind.
    """
    if column is None and kind == "comparison":
        column = next((name for name in COLUMNS if name in group.row), None)
    if column is not None:
        return _told(group, column, first, second)
    if kind == "ranking" and all(c.score is not None for c in group.completions):
        apart = (group.completions[first].score or 0.0) - (group.completions[second].score or 0.0)
        return (0.5 if apart == 0 else float(apart > 0),)
    return (float(first < second),) if kind in ("preference", "ranking") else ()


def _told(group: Group, column: str, first: int, second: int) -> tuple[float | None, ...]:
    """Verdicts in a column, which are about the first two answers that are listed."""
    if {first, second} != {0, 1} or column not in group.row:
        return ()
    told = group.row[column]
    verdicts = [verdict_from(value) for value in (told if isinstance(told, list | tuple) else [told])]
    return tuple(v if v is None or first == 0 else 1.0 - v for v in verdicts)


def verdict_from(value: Any) -> float | None:
    """1 for the first answer listed, 0 for the second, 1/2 for neither; None for what says nothing of the kind."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = str(value).strip().lower()
    if word in NEITHER:
        return 0.5
    return 1.0 if word in FIRST else 0.0 if word in SECOND else None


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """What people said of a row's two answers: the share of them that prefer the first, who is undecided a half.

    The margin is |2 p - 1|.

    Attributes: column: where their verdicts stand; null takes `winner`, `label` or `preference`.
    """

    name: Literal["people"] = "people"
    column: str | None = None

    def __call__(self, couples: Sequence[Couple]) -> list[Preference]:
        return [self._preference(couple) for couple in couples]

    def values(self, group: Group) -> list[float | None]:
        """The answers' scores, where an earlier stage gave them some."""
        return [completion.score for completion in group.completions]

    def _preference(self, couple: Couple) -> Preference:
        said = people_of(couple.group, "comparison", self.column, couple.first, couple.second)
        known = [verdict for verdict in said if verdict is not None]
        if not known:
            return Preference(probability=None, reason="abstained: nobody said which is better")
        probability = math.fsum(known) / len(known)
        margin = abs(2 * probability - 1)
        reason = f"{len(known)} asked" if len(known) > 1 else "one was asked"
        return Preference(probability=probability, margin=margin, reason=reason, tie=margin < 1e-12)
