"""Another reward, for some rows only: verifiers where there is an answer to check, a reward model elsewhere.

    rewards:
      - {name: only, column: answer, reward: number, label: accuracy}
      - {name: only, column: answer, rows: without, reward: {name: model, path: "@helpful"}, label: helpful}

To other rows the reward does not apply: it is no part of their score, stands in no mean, and is not
what "unscorable" is. A row's completions are compared with one another only, so rewards of different
scales may stand beside one another in a data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from strop.rewards.plain import Plain
from strop.rewards.protocol import label_of, verdicts_of
from strop.rewards.shaping import Shaped
from strop.types import Group, Verdict

Rewards = Sequence[Any]
"""Settings of rewards; those of other classes than `Only` apply to every row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """The inner reward of rows that have a column (or lack it); it does not apply to the others.

    Attributes:
        reward: the reward; its own weight does not count.
        column: a column of the rows. A row has it if its value is not null.
        values: only these values count; none takes any.
        rows: "with" takes the rows that have it, "without" the others.
    """

    reward: Plain | Shaped
    column: str
    values: tuple[str, ...] = ()
    rows: Literal["with", "without"] = "with"
    name: Literal["only"] = "only"
    weight: float = 1.0
    label: str | None = None

    def __post_init__(self) -> None:
        if not self.column:
            raise ValueError("only.column is empty; name the column that tells which rows the reward is for")

    @property
    def models(self) -> tuple[str, ...]:
        """The inner reward's settings that name models."""
        return tuple(f"reward.{key}" for key in getattr(self.reward, "models", ()))

    def applies(self, group: Group) -> bool:
        """Whether the reward is for this row."""
        value = group.row.get(self.column)
        has = value is not None and (not self.values or str(value) in self.values)
        return has == (self.rows == "with")

    @property
    def told(self) -> str:
        """Which rows it is for, in words."""
        of = f" of {', '.join(self.values)}" if self.values else ""
        return f"rows {self.rows} {self.column!r}{of}"

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        meant = [group for group in groups if self.applies(group)]
        found = iter(verdicts_of(self.reward, meant, self.label or label_of(self.reward)))
        other = Verdict(None, f"for {self.told} only", applies=False)
        return [next(found) if self.applies(g) else [other] * len(g.completions) for g in groups]


def none_applies(group: Group, rewards: Rewards) -> bool:
    """Whether no reward that counts is for this row, so that nothing could be learned from it."""
    counted = [reward for reward in rewards if reward.weight != 0]
    return bool(counted) and all(isinstance(r, Only) and not r.applies(group) for r in counted)


def never_applied(groups: Sequence[Group], rewards: Rewards) -> list[str]:
    """What is to be said of rewards that are for none of the rows.

    Raises: ValueError if no row has the column at all that a reward's rows must have: a wrong name.
    """
    idle = [r for r in rewards if isinstance(r, Only) and groups and not any(map(r.applies, groups))]
    known = {key for group in groups for key in group.row}
    for reward in idle:
        if reward.rows == "with" and reward.column not in known:
            columns = ", ".join(sorted(known)) or "none"
            raise ValueError(
                f"reward {label_of(reward)!r} is for {reward.told}, and no row has that column (columns: {columns}); "
                "set the reward's column, or map it in the data's columns"
            )
    return [f"reward {label_of(r)!r} is for {r.told}, and none of the {len(groups)} rows is one" for r in idle]
