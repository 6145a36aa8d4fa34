"""Which two of a prompt's answers are compared, and what is said of two.

A pairing is a settings object whose call takes how high each answer stands (None where that is not
known) and a generator to places of answers. Which of the two is then called the first is drawn, so
that no labeller, no kappa and no judge can make anything of places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np

from strop.rollout.choose import ROUNDING, best_and_worst
from strop.rollout.principles import Principle, drawn
from strop.types import Completion, Group

Places = tuple[int, int]
Values = Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Couple:
    """Two answers of a group, by their places. Attributes: principles: what to judge by, each asked once."""

    group: Group
    first: int
    second: int
    principles: tuple[Principle, ...] = ()

    @property
    def answers(self) -> tuple[Completion, Completion]:
        return self.group.completions[self.first], self.group.completions[self.second]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """What a labeller says of a couple.

    Attributes:
        probability: P(the first is better); None where it abstained.
        margin: how far apart it finds the two, never negative; None where it abstained.
        reason: why, in words.
        tie: that neither is better.
        facts: what else is written down, as JSON values.
    """

    probability: float | None
    margin: float | None = None
    reason: str = ""
    tie: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """So many different pairs a prompt, drawn by the seed."""

    name: Literal["random"] = "random"
    num: int = 1

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"random.num must be at least 1, got {self.num}")

    def __call__(self, values: Values, generator: np.random.Generator) -> list[Places]:
        found = list(combinations(range(len(values)), 2))
        chosen = generator.permutation(len(found))[: self.num]
        return [found[i] for i in sorted(chosen.tolist())]


@dataclass(frozen=True, slots=True, kw_only=True)
class All:
    """Every pair: K (K - 1) / 2 of K answers."""

    name: Literal["all"] = "all"

    def __call__(self, values: Values, generator: np.random.Generator) -> list[Places]:
        return list(combinations(range(len(values)), 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class BestWorst:
    """The highest and the lowest answer, each the first of its equals; none where all stand alike."""

    name: Literal["best_worst"] = "best_worst"

    def __call__(self, values: Values, generator: np.random.Generator) -> list[Places]:
        found = best_and_worst(values)
        return [] if found is None else [found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjacent:
    """Each answer and the next lower one: K - 1 pairs, which connect all answers and are the hardest to tell apart.

    In the order they were listed where nothing says how high they stand.
    """

    name: Literal["adjacent"] = "adjacent"

    def __call__(self, values: Values, generator: np.random.Generator) -> list[Places]:
        known = [i for i, value in enumerate(values) if value is not None]
        order = sorted(known, key=lambda i: -(values[i] or 0.0)) if known else range(len(values))
        return list(pairwise(order))


Pairing = Random | All | BestWorst | Adjacent


def couples_of(
    group: Group,
    values: Values,
    pairing: Pairing,
    principles: Sequence[Principle],
    num_principles: int,
    key: Sequence[int],
) -> list[Couple]:
    """A group's couples: the pairing's, each with its first and its principles drawn by `key` alone.

    Args: principles: to draw `num_principles` different ones of for each couple; all where it has no more.
        key: what the draws are a function of, as (seed, place of the group).
    """
    generator = np.random.default_rng([*key])
    out = []
    for places in pairing(values, generator):
        first, second = places if generator.random() < 0.5 else places[::-1]
        chosen = drawn(principles, num_principles, generator)
        out.append(Couple(group=group, first=first, second=second, principles=chosen))
    return out


def alike(first: float, second: float, margin: float = 0.0) -> bool:
    """Whether two scores differ by no more than the margin, but for rounding."""
    return abs(first - second) <= margin + ROUNDING * max(1.0, abs(first), abs(second))


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x) without overflow."""
    e = math.exp(-abs(x))
    return 1 / (1 + e) if x >= 0 else e / (1 + e)
