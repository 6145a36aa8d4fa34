"""Sources: the groups of optimizer step t, as a pure function of (seed, t).

Nothing is remembered between steps, so a resumed run needs only t. A fixed dataset is read as an
endless stream of shuffled passes; step t takes rows [t B, (t + 1) B) of that stream, so every row
is seen equally often and no batch is short.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from strop import dist
from strop.data.encoded import EncodedGroup
from strop.types import Group


@dataclass(frozen=True, slots=True)
class Collected:
    """What a source gives for one step.

    Attributes:
        groups: this rank's share, ready to be annotated and packed; may be empty.
        metrics: what was counted or measured on the way.
        seconds: wall time by phase.
        samples: the sampled and scored groups behind it, for people to read.
    """

    groups: tuple[EncodedGroup, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[Group, ...] = ()


Source = Callable[[int], Collected]


def rows(step: int, *, num_rows: int, batch_size: int, seed: int, shuffle: bool = True) -> list[int]:
    """The row numbers of optimizer step `step`: batch_size of them, by passes over all rows."""
    stream = range(step * batch_size, (step + 1) * batch_size)
    if not shuffle:
        return [i % num_rows for i in stream]
    return [int(_order(i // num_rows, num_rows, seed)[i % num_rows]) for i in stream]


@functools.lru_cache(maxsize=4)
def _order(epoch: int, num_rows: int, seed: int) -> Sequence[int]:
    order: Sequence[int] = np.random.default_rng([seed, epoch]).permutation(num_rows).tolist()
    return order


@dataclass(frozen=True, slots=True)
class Fixed:
    """Encoded groups of a dataset, `batch_size` a step."""

    groups: Sequence[EncodedGroup]
    batch_size: int
    seed: int
    shuffle: bool = True

    def __call__(self, step: int) -> Collected:
        taken = rows(step, num_rows=len(self.groups), batch_size=self.batch_size, seed=self.seed, shuffle=self.shuffle)
        return Collected(tuple(self.groups[i] for i in dist.share(taken)))
