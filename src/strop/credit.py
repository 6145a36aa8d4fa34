"""Credit: from the rewards of a group to the advantage of each completion.

Pure functions on host numbers; `None` (unscorable) takes no part in any mean or spread and gets
no advantage. The settings are applied to all groups of a step at once, on every rank, because some
scales are taken over the whole batch. Credit token by token (GAE, the KL in the reward) is in `token_credit`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from strop import dist

Rewards = Sequence[float | None]
Advantages = list[float | None]
TokenAdvantages = list[list[float] | None]
"""One number a token of each completion; None where it takes no part."""


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


def step_deviation(groups: Sequence[Rewards]) -> float:
    """Sample standard deviation of the scorable rewards of all groups on all ranks; every rank must call this."""
    known = [r for rewards in groups for r in rewards if r is not None]
    total, count = dist.sum_numbers([math.fsum(known), float(len(known))])
    mean = total / max(count, 1.0)
    (squares,) = dist.sum_numbers([math.fsum((r - mean) ** 2 for r in known)])
    return math.sqrt(squares / max(count - 1, 1.0))


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


def process_advantages(
    step_rewards: Sequence[Rewards],
    step_ends: Sequence[Sequence[int]],
    lengths: Sequence[int],
    *,
    eps: float = 1e-4,
    mean: bool = False,
) -> TokenAdvantages:
    """Process supervision within a group: A_t is the sum of the normalised rewards of the steps that end at t or later.

    All step rewards of all completions are one pool, normalised by its mean and deviation as in
    `group_relative`; a step that ends at the last token, alone, gives the outcome's advantage. The
    more steps, the larger A can be, and the longest completions weigh most.

    Args:
        step_rewards, step_ends: of each completion's steps, the rewards and their last tokens' indices, ascending.
        lengths: tokens of each completion.
        mean: the mean over those steps in place of the sum.
    Returns: one number a token; None for a completion without steps or with one that is unscorable,
        which takes no part in the pool. 0 behind the last step's end.
    Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, section 4.1.3; ddof and eps as for outcomes.
    """
    whole = [bool(rewards) and all(r is not None for r in rewards) for rewards in step_rewards]
    pool = [r for rewards, ok in zip(step_rewards, whole, strict=True) if ok for r in rewards]
    left = iter(group_relative(pool, eps=eps))
    out: TokenAdvantages = []
    for ok, ends, length in zip(whole, step_ends, lengths, strict=True):
        credit = [next(left) or 0.0 for _ in ends] if ok else []
        out.append(_ahead(credit, ends, length, mean) if ok else None)
    return out


def _ahead(credit: Sequence[float], ends: Sequence[int], length: int, mean: bool) -> list[float]:
    """The sum, or the mean, of what ends at each token or later, [length]."""
    assert all(a <= b for a, b in zip((0, *ends), ends, strict=False)) and ends[-1] < length, (ends, length)
    sums = [math.fsum(credit[k:]) / (len(credit) - k if mean else 1) for k in range(len(credit))]
    starts = (0, *(end + 1 for end in ends))
    parts = [[total] * (end + 1 - start) for total, start, end in zip(sums, starts, ends, strict=False)]
    return [a for part in parts for a in part] + [0.0] * (length - starts[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRelative:
    """Advantages relative to the group's mean.

    Attributes:
        scale: divide by the group's deviation (GRPO), by that of all the step's rewards ("batch",
            Liu et al. 2025, arXiv:2508.08221), or by nothing ("none", Dr. GRPO, arXiv:2503.20783).
        eps: added to the deviation that is divided by.
    """

    name: Literal["group_relative"] = "group_relative"
    scale: Literal["group", "batch", "none"] = "group"
    eps: float = 1e-4

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def __call__(self, groups: Sequence[Rewards]) -> list[Advantages]:
        """One list of advantages for each group of rewards."""
        if self.scale == "group":
            return [group_relative(rewards, eps=self.eps) for rewards in groups]
        scale = 1.0
        if self.scale == "batch":
            scale = step_deviation(groups) + self.eps
        return [[None if a is None else a / scale for a in centred(rewards)] for rewards in groups]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOneOut:
    """Advantages against the mean of the group's other completions.

    Attributes: beta: weight of the KL to the reference in the reward, as k1 summed over the
        completion; 0 needs no reference. It takes the reference's log-probs, so it is applied later
        than credit by the score alone.
    """

    name: Literal["leave_one_out"] = "leave_one_out"
    beta: float = 0.0

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta must not be negative, got {self.beta}")

    def __call__(self, groups: Sequence[Rewards]) -> list[Advantages]:
        """One list of advantages for each group of rewards."""
        return [leave_one_out(rewards) for rewards in groups]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRelative:
    """Advantages from the scores of steps (DeepSeekMath's process supervision), a number a token.

    Attributes:
        combine: "sum" of the steps that are still to end (the paper's), or their "mean", which does
            not grow with their number.
        cap: advantages are cut to +- this; None leaves them.
        outcome: adds this much of the group-relative advantage of the whole score to every token.
        eps: added to the deviation that is divided by.
    """

    name: Literal["process"] = "process"
    combine: Literal["sum", "mean"] = "sum"
    cap: float | None = None
    outcome: float = 0.0
    eps: float = 1e-4

    def __post_init__(self) -> None:
        if self.cap is not None and self.cap <= 0:
            raise ValueError(f"cap must be positive, or null for none, got {self.cap}")
        if self.outcome < 0:
            raise ValueError(f"outcome must not be negative, got {self.outcome}")
        _check_eps(self.eps)

    def tokens(
        self,
        scores: Rewards,
        step_rewards: Sequence[Rewards],
        step_ends: Sequence[Sequence[int]],
        lengths: Sequence[int],
    ) -> TokenAdvantages:
        """One number a token of each completion of a group; None where a step, or a needed score, is unscorable."""
        if self.outcome > 0:
            step_rewards = [() if s is None else r for s, r in zip(scores, step_rewards, strict=True)]
        steps = process_advantages(step_rewards, step_ends, lengths, eps=self.eps, mean=self.combine == "mean")
        whole = [None if tokens is None else score for tokens, score in zip(steps, scores, strict=True)]
        outcomes = [self.outcome * (a or 0.0) for a in group_relative(whole, eps=self.eps)]
        return [
            None if tokens is None else [self._capped(a + outcome) for a in tokens]
            for tokens, outcome in zip(steps, outcomes, strict=True)
        ]

    def _capped(self, advantage: float) -> float:
        return advantage if self.cap is None else min(max(advantage, -self.cap), self.cap)


def _check_eps(eps: float) -> None:
    if eps <= 0:
        raise ValueError(f"eps must be positive, got {eps}: rewards that do not differ have deviation 0")
