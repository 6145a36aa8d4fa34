"""Credit: from the rewards of a group to the advantage of each completion.

Pure functions on host numbers; `None` (unscorable) takes no part in any mean or spread and gets
no advantage. The settings are applied to all groups of a step at once, because some scales are
taken over the whole batch. Token-level credit (GAE, KL in the reward) comes with value learning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Rewards = Sequence[float | None]
Advantages = list[float | None]


def centred(rewards: Rewards) -> Advantages:
    """r_i - mean(r) within a group; exactly 0 for all where the rewards do not differ.

    Rewards differ when their deviation (ddof 0) exceeds 1e-6 * max(1, |mean|); below that a
    difference is rounding, and dividing by it later would make noise into signal.
    """
    known = [r for r in rewards if r is not None]
    if not known or all_equal(rewards):
        return [None if r is None else 0.0 for r in rewards]
    mean = math.fsum(known) / len(known)
    return [None if r is None else r - mean for r in rewards]


def all_equal(rewards: Rewards) -> bool:
    """Whether a group carries no signal: fewer than two scorable rewards, or all the same."""
    known = [r for r in rewards if r is not None]
    if len(known) < 2:
        return True
    mean = math.fsum(known) / len(known)
    return math.sqrt(math.fsum((r - mean) ** 2 for r in known) / len(known)) < 1e-6 * max(1.0, abs(mean))


def standard_deviation(rewards: Rewards) -> float:
    """Sample standard deviation (ddof 1) of the scorable rewards; 0 for fewer than two."""
    known = [r for r in rewards if r is not None]
    if len(known) < 2:
        return 0.0
    mean = math.fsum(known) / len(known)
    return math.sqrt(math.fsum((r - mean) ** 2 for r in known) / (len(known) - 1))


def group_relative(rewards: Rewards, *, eps: float = 1e-4) -> Advantages:
    """GRPO's advantage (r_i - mean) / (std + eps), std with ddof 1.

    Shao et al. 2024, arXiv:2402.03300, section 4.1.2; ddof and eps as TRL and verl have them.
    """
    scale = standard_deviation(rewards) + eps
    return [None if a is None else a / scale for a in centred(rewards)]


def leave_one_out(rewards: Rewards) -> Advantages:
    """RLOO's advantage r_i - mean_{j != i} r_j = n/(n-1) (r_i - mean).

    Ahmadian et al. 2024, arXiv:2402.14740, eq. 8.
    """
    count = sum(r is not None for r in rewards)
    return [None if a is None else a * count / max(count - 1, 1) for a in centred(rewards)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRelative:
    """Advantages relative to the group's mean.

    Attributes: scale: divide by the group's deviation (GRPO), by the whole batch's ("batch",
        Liu et al. 2025, arXiv:2508.08221), or by nothing ("none", Dr. GRPO, arXiv:2503.20783).
    """

    name: Literal["group_relative"] = "group_relative"
    scale: Literal["group", "batch", "none"] = "group"
    eps: float = 1e-4

    def __call__(self, groups: Sequence[Rewards]) -> list[Advantages]:
        """One list of advantages for each group of rewards."""
        if self.scale == "group":
            return [group_relative(rewards, eps=self.eps) for rewards in groups]
        scale = 1.0
        if self.scale == "batch":
            scale = standard_deviation([r for rewards in groups for r in rewards]) + self.eps
        return [[None if a is None else a / scale for a in centred(rewards)] for rewards in groups]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOneOut:
    """Advantages against the mean of the group's other completions."""

    name: Literal["leave_one_out"] = "leave_one_out"

    def __call__(self, groups: Sequence[Rewards]) -> list[Advantages]:
        """One list of advantages for each group of rewards."""
        return [leave_one_out(rewards) for rewards in groups]
