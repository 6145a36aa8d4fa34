"""The numbers of a comparison's row that an objective reads: its `margin`, and its `probability`.

How far apart the two answers are, and P(the first is better), as annotators or a stage of kind
label wrote them down. A row without a number that is read is dropped, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup
from strop.recipes.context import Context
from strop.recipes.parts import ROW_NUMBERS
from strop.types import Group

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SWITCHES = {"probability": "soft_labels", "margin": "margin"}
"""The setting of an objective that reads each."""


def with_numbers(group: Group, encoded: EncodedGroup, columns: Iterable[str]) -> EncodedGroup | str:
    """The tokens with the row's numbers of these names, or what is wrong with one."""
    taken: dict[str, float] = {}
    for name in columns:
        value = _number(name, group.row.get(name))
        if isinstance(value, str):
            return value
        taken[name] = value
    return replace(encoded, columns={**encoded.columns, **taken})


def _number(name: str, value: Any) -> float | str:
    """A row's number, or what is wrong with it."""
    if value is None:
        return f"no {name}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"{name} is no number"
    if name == "probability" and not 0 <= value <= 1:
        return "probability is not in [0, 1]"
    return float(value)


class NumberedChat(Chat):
    """`Chat`, with the numbers of the rows that the objective reads.

    Attributes: columns: names of row columns to take along, of `margin` and `probability`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, system: str | None = None, *, columns: Iterable[str] = ()
    ) -> None:
        super().__init__(tokenizer, system)
        self.columns = sorted(columns)

    def encode_many(self, groups: Sequence[Group], max_length: int) -> list[EncodedGroup | str]:
        """Every pair's ids and numbers, or why it is dropped."""
        found = super().encode_many(groups, max_length)
        return [
            e if isinstance(e, str) else with_numbers(g, e, self.columns) for g, e in zip(groups, found, strict=True)
        ]


def _says_the_probability(group: Group) -> bool:
    """Whether a row's margin, if it has one, is |2 p - 1|, as judges and people leave it: the same said again."""
    margin, probability = (_number(name, group.row.get(name)) for name in ("margin", "probability"))
    if isinstance(margin, str) or isinstance(probability, str):
        return group.row.get("margin") is None
    return math.isclose(margin, abs(2 * probability - 1), abs_tol=1e-6)


def say_unread(groups: Sequence[Group], needs: frozenset[str], able: bool, context: Context) -> None:
    """Say which numbers the rows have and the objective leaves alone, so that soft labels are not lost in silence.

    Args: able: whether the objective can read them at all.
    """
    for name in sorted(ROW_NUMBERS - needs):
        values = [v for group in groups if isinstance(v := group.row.get(name), int | float)]
        if name == "margin" and "probability" in needs and all(map(_says_the_probability, groups)):
            continue
        if any(value != 1 for value in values):
            cure = f"set objective.{SWITCHES[name]}=true to read it" if able else "dpo and bradley_terry can read it"
            context.event("note", f"{len(values)} of {len(groups)} rows have a {name} that nothing reads; {cure}")
