"""The reward that scores an answer as its reasoning-gym generator does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from strop.rewards import extract
from strop.rewards.gym.check import FULL, entry_floor, raw_score
from strop.rewards.gym.client import require_gym
from strop.rewards.gym.entries import pack
from strop.rewards.protocol import each
from strop.types import Group, Verdict

Where = Literal["auto", "answer_tag", "box", "whole"]
_NEVER = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningGym:
    """The score of the row's generator, for rows of `gym:NAME`. Needs `strop[tasks]`.

    Unscorable is an entry whose own answer does not score 1, or on which nonsense does. An answer that
    makes the scorer raise or hang scores 0.

    Attributes:
        column: the row's column with the entry; rows of the library itself (`question`, `answer`,
            `metadata`) are read as well.
        credit: `exact` gives 1 for a full score and else 0. `partial` gives the scorer's own number, less
            what nonsense gets, on the scale that is left: (s - floor) / (1 - floor). Many scorers give
            part for an answer that holds the right one among others, so partial credit can be gamed.
        extract: where the answer stands after the thinking: the last `answer_tag` or `box`, the `whole`
            text, or `auto`: the last tag or box, else the whole text.
        timeout_s: seconds a scorer may take.
    """

    name: Literal["gym"] = "gym"
    weight: float = 1.0
    label: str | None = None
    column: str = "gym"
    credit: Literal["exact", "partial"] = "exact"
    extract: Where = "auto"
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ValueError(f"gym.timeout_s: {self.timeout_s} must be more than 0")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        require_gym()
        return each(groups, lambda c, g: self._verdict(c.text, g))

    def _verdict(self, text: str, group: Group) -> Verdict:
        try:
            name, config, entry = entry_of(group, self.column)
        except ValueError as error:
            return Verdict(None, str(error))
        floor = entry_floor(name, config, entry, timeout_s=self.timeout_s)
        if isinstance(floor, str):
            return Verdict(None, f"{name}: {floor}")
        answer = answer_of(text, self.extract)
        if not answer:
            return Verdict(0.0, "no answer")
        score = raw_score(name, config, entry, answer, timeout_s=self.timeout_s)
        if isinstance(score, str):  # the entry's own answer passed, so this answer is to blame
            return Verdict(0.0, f"{name}: {score} on this answer", answer[:80])
        given = float(score >= FULL) if self.credit == "exact" else max(0.0, (score - floor) / (1 - floor))
        return Verdict(given, f"{name} gives {score:.3g}", answer[:80], facts={"raw": score})


def entry_of(group: Group, column: str) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """The generator's name, its settings and the packed entry of a row.

    Raises: ValueError if the row has none.
    """
    row, about = group.row, group.row.get(column)
    if isinstance(about, Mapping) and {"name", "config", "entry"} <= set(about):
        return str(about["name"]), about["config"], about["entry"]
    metadata = row.get("metadata")
    if isinstance(metadata, Mapping) and "source_dataset" in metadata:
        question = row.get("question", group.prompt_text)
        return str(metadata["source_dataset"]), {}, pack({**row, "question": question, "answer": row.get("answer")})
    raise ValueError(f"the row has no entry of a generator in {column!r}; make rows with data gym:NAME")


def answer_of(text: str, where: Where) -> str | None:
    """The answer of a completion, without white space around it; `None` where it is not marked as wanted."""
    rest = extract.after_think(text)[-extract.MAX_CHARS :]
    if where == "whole":
        return rest.strip()
    found = extract.last_tag(rest) if where == "answer_tag" else extract.last_answer(rest, _NEVER, _NEVER)
    if found is None or (where == "box" and found.kind != "box"):
        return rest.strip() if where == "auto" else None
    inside = extract.innermost(found, _NEVER, _NEVER) if where == "auto" else found.content
    return None if inside is None else inside.strip()
