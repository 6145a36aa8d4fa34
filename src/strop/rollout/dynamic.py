"""Dynamic sampling: prompts whose answers are all equally good are replaced until a step is full.

A group teaches something only where its rewards differ. Dropping the others makes steps of unlike
size; here further prompts are drawn in their place, as a function of (seed, step, attempt) and of
what was accepted so far, so that a resumed run draws the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from strop import dist
from strop.credit import all_equal
from strop.types import Group

Draw = Callable[[Sequence[int], int], Sequence[Group]]
"""(numbers of a step's rows on all ranks, attempt) to this rank's share of them, sampled and scored."""

Counted = Callable[[Group], Sequence[float | None]]
"""A group's scores as credit will see them: `None` for completions that will take no part."""

LEAST_RATE = 0.25
"""No attempt draws more than this rate of acceptance would make useful."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """This rank's groups of a step.

    Attributes: kept: those to go on with. everything: all that were sampled, for the figures.
        metrics: over all ranks.
    """

    kept: tuple[Group, ...]
    everything: tuple[Group, ...]
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicSampling:
    """Keep groups whose rewards differ, and refill the step from further prompts.

    Attributes:
        reward: the label of the reward that must differ; null is the score. Name the one that says
            right or wrong: a shaped score (length, format) nearly always differs.
        attempts: sample at most so often; a step that is not full by then is trained as it is.

    Yu et al. 2025 (DAPO), arXiv:2503.14476, section 3.2: 0 < right answers < all. Refills are sized by
    the rate of acceptance so far; the paper draws whole batches.
    """

    reward: str | None = None
    attempts: int = 10

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")

    def __call__(
        self, draw: Draw, first: Sequence[int], *, num_rows: int, seed: int, step: int, counted: Counted
    ) -> Drawn:
        """The step's groups, at most as many over all ranks as `first` has rows.

        Args: first: the rows that the step would have without it. num_rows: rows there are.
        """
        wanted, taken = len(first), list(first)
        accepted: list[int] = []
        tried: list[int] = []
        kept: list[Group] = []
        everything: list[Group] = []
        attempt = 0
        while True:
            groups = draw(taken, attempt)
            everything += groups
            good = self._accepted(groups, len(taken), counted)
            room = wanted - len(accepted)
            places = [i for i, fits in enumerate(good) if fits][:room]
            accepted += [taken[i] for i in places]
            kept += [group for i, group in zip(dist.share(range(len(taken))), groups, strict=True) if i in places]
            tried += taken
            attempt += 1
            if len(accepted) == wanted or attempt == self.attempts:
                break
            rate = max(len(accepted) / len(tried), LEAST_RATE)
            num = min(wanted, math.ceil((wanted - len(accepted)) / rate))
            taken = self._next(accepted, tried, num_rows, [seed, step, attempt])[:num]
            if not taken:
                break
        metrics = {"groups/accept_rate": len(accepted) / len(tried), "groups/attempts": float(attempt)}
        return Drawn(tuple(kept), tuple(everything), metrics)

    def _accepted(self, groups: Sequence[Group], num: int, counted: Counted) -> list[bool]:
        """Whether each of the step's rows has rewards that differ, over all ranks, [num]."""
        mine = dict(zip(dist.share(range(num)), groups, strict=True))
        differ = [float(i in mine and self._differs(mine[i], counted(mine[i]))) for i in range(num)]
        return [bool(x) for x in dist.sum_numbers(differ)]

    def _differs(self, group: Group, scores: Sequence[float | None]) -> bool:
        if self.reward is None or not any(self.reward in c.rewards for c in group.completions):
            return not all_equal(scores)  # a reward that is not for this row (`only`) cannot tell
        pairs = zip(group.completions, scores, strict=True)
        return not all_equal([None if score is None else c.rewards.get(self.reward) for c, score in pairs])

    def _next(self, accepted: Sequence[int], tried: Sequence[int], num_rows: int, key: Sequence[int]) -> list[int]:
        """Rows for the next attempt: those not tried in this step first, none that was accepted."""
        order = np.random.default_rng(key).permutation(num_rows).tolist()
        seen, done = set(tried), set(accepted)
        fresh = [i for i in order if i not in seen]
        again = [i for i in order if i in seen and i not in done]
        return fresh + again
