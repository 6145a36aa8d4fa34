"""The reward for following verifiable instructions: 1 if all of a row's instructions hold, else 0."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from strop.rewards.extract import after_think
from strop.rewards.instructions.held import Held
from strop.rewards.instructions.table import holds
from strop.rewards.protocol import check_column, each
from strop.types import Group, Verdict

Check = Callable[[str, str, Mapping[str, Any]], Held]
"""An instruction's id, a text and the instruction's arguments, to whether it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """1 if the text after the thinking follows all instructions of its row, else 0.

    The reason names each one that does not hold, with what was counted; the fact `held` is the share
    that do. Unscorable is a row whose ids or arguments are not known.

    Attributes:
        column: the row's list of instruction ids ("punctuation:no_comma").
        arguments: the row's list of their arguments, one object an id; nulls in it are not there.
        rule: `strict` takes the text as it is; `loose` is the paper's second accuracy, for texts with
            a greeting or markup around the answer (see `loosely`).
    """

    name: Literal["ifeval"] = "ifeval"
    weight: float = 1.0
    label: str | None = None
    column: str = "instruction_id_list"
    arguments: str = "kwargs"
    rule: Literal["strict", "loose"] = "strict"

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        check_column(groups, self.column, self.name)
        verify = verify_instructions if self.rule == "strict" else verify_loosely
        return each(groups, lambda c, g: verify(c.text, g.row.get(self.column), g.row.get(self.arguments)))


def verify_instructions(text: str, ids: Any, arguments: Any) -> Verdict:
    """Whether the text after the thinking follows every instruction: 1 or 0.

    Args: ids: a list of instruction ids. arguments: one object (or null) an id.
    Returns: `None` for an id or arguments that are not known, or lists that do not fit together.
    """
    return _verdict(text, ids, arguments, holds)


def verify_loosely(text: str, ids: Any, arguments: Any) -> Verdict:
    """The same, where an instruction holds if any of the eight texts that `variants` gives follows it.

    Zhou et al. 2023, arXiv:2311.07911, section 2.2, "loose accuracy".
    """
    return _verdict(text, ids, arguments, loosely)


def loosely(instruction_id: str, text: str, given: Mapping[str, Any]) -> Held:
    """Whether a text follows one instruction in one of its variants."""
    strict = holds(instruction_id, text, given)
    if strict.ok:
        return strict
    tried = (holds(instruction_id, variant, given) for variant in variants(text)[1:])
    return next((held for held in tried if held.ok), strict)


def variants(text: str) -> list[str]:
    """The text with and without: its asterisks, its first line ("Sure, here it is:"), its last line."""
    lines = text.strip().split("\n")
    cut = [lines, lines[1:], lines[:-1], lines[1:-1]]
    whole = [text, *("\n".join(part).strip() for part in cut[1:])]
    return [*whole, *(part.replace("*", "") for part in whole)]


def _verdict(text: str, ids: Any, arguments: Any, check: Check) -> Verdict:
    text = after_think(text)
    try:
        pairs = _paired(_plain(ids), _plain(arguments))
    except ValueError as error:
        return Verdict(None, str(error))
    found: list[tuple[str, Held]] = []
    for name, given in pairs:
        try:
            found.append((name, check(name, text, given)))
        except ValueError as error:
            return Verdict(None, f"{name}: {error}")
    failed = [f"{name}: {held.said}" for name, held in found if not held.ok]
    num, share = len(found), 1 - len(failed) / len(found)
    reason = f"all {num} hold" if not failed else f"{num - len(failed)} of {num} hold; " + "; ".join(failed)
    return Verdict(float(not failed), reason, facts={"held": share})


def _paired(ids: Any, arguments: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Ids with their arguments. Raises: ValueError where they are none or do not fit together."""
    if not isinstance(ids, list | tuple) or not ids or not all(isinstance(i, str) for i in ids):
        raise ValueError(f"the row's instructions must be a list of ids, got {ids!r:.60}")
    arguments = [{}] * len(ids) if arguments is None else arguments
    if not isinstance(arguments, list | tuple) or len(arguments) != len(ids):
        raise ValueError(f"{len(ids)} instructions need a list of as many arguments, got {arguments!r:.60}")
    given = [{} if a is None else _plain(a) for a in arguments]
    if not all(isinstance(a, Mapping) for a in given):
        raise ValueError(f"an instruction's arguments must be an object or null, got {arguments!r:.60}")
    return list(zip(ids, given, strict=True))


def _plain(value: Any) -> Any:
    """A value that a table holds as JSON text (a CSV cell), read."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
