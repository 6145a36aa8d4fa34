"""What a check of one instruction says, and the comparison of a count with what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Relation = Literal["at least", "at most", "less than", "more than", "exactly"]
RELATIONS: tuple[Relation, ...] = ("at least", "at most", "less than", "more than", "exactly")


@dataclass(frozen=True, slots=True)
class Held:
    """Whether an instruction holds, and what was found beside what was asked for."""

    ok: bool
    said: str


def counted(number: int, relation: Relation, wanted: int, what: str) -> Held:
    """Whether a count stands in the relation to the wanted one ("3 words, at least 5 wanted")."""
    holds = {
        "at least": number >= wanted,
        "at most": number <= wanted,
        "less than": number < wanted,
        "more than": number > wanted,
        "exactly": number == wanted,
    }
    return Held(holds[relation], f"{number} {what}, {relation} {wanted} wanted")


def quoted(text: str, limit: int = 40) -> str:
    """A text in a message, cut where it is long."""
    return repr(text if len(text) <= limit else text[:limit] + "…")
