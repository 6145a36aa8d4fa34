"""Penalties for saying the same again, and for a length outside what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from strop.rewards.protocol import each
from strop.rewards.shape import size_of
from strop.rewards.texts import words
from strop.types import Group, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """0 where no run of `n` words comes twice, falling to -`scale` where nothing else is said.

    -scale * max(0, share - allowed) / (1 - allowed), where the share of repeated n-grams is
    1 - different n-grams / n-grams. Of the whole completion, thinking included; capitals do not
    count. The penalty of Yeo et al. 2025, arXiv:2502.03373, over words and as a share.

    Attributes:
        n: words in a run. allowed: a share that costs nothing, for texts that must say a thing twice.
        scale: the penalty where every run is a repeat.
    """

    name: Literal["repetition"] = "repetition"
    weight: float = 1.0
    label: str | None = None
    n: int = 4
    allowed: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"repetition.n: {self.n} words make no run; give at least 1")
        if not 0 <= self.allowed < 1:
            raise ValueError(f"repetition.allowed: {self.allowed} is no share in [0, 1)")
        if self.scale <= 0:
            raise ValueError(f"repetition.scale: {self.scale} must be more than 0")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        return each(groups, lambda c, _: verify_repetition(c.text, self.n, allowed=self.allowed, scale=self.scale))


def verify_repetition(text: str, n: int = 4, *, allowed: float = 0.0, scale: float = 1.0) -> Verdict:
    """The penalty of `Repetition`, in [-scale, 0]; a text of fewer than n words repeats nothing."""
    said = [word.lower() for word in words(text)]
    runs = [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]
    share = 1 - len(set(runs)) / len(runs) if runs else 0.0
    excess = max(0.0, share - allowed) / (1 - allowed)
    return Verdict(-scale * excess or 0.0, f"{share:.1%} of {len(runs)} runs of {n} words are repeats")


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthRange:
    """0 between `low` and `high`, falling linearly to -1 over `ramp` on both sides.

    Attributes: unit: what is counted; `tokens` needs sampled completions, others are unscorable.
    """

    low: int
    high: int
    ramp: int
    name: Literal["length_range"] = "length_range"
    weight: float = 1.0
    label: str | None = None
    unit: Literal["characters", "words", "tokens"] = "tokens"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError(f"length_range: low {self.low} must be at least 0 and at most high {self.high}")
        if self.ramp < 1:
            raise ValueError(f"length_range.ramp: {self.ramp} must be at least 1")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        return each(
            groups,
            lambda c, _: verify_length_range(size_of(c, self.unit), self.low, self.high, self.ramp, unit=self.unit),
        )


def verify_length_range(size: int | None, low: int, high: int, ramp: int, *, unit: str = "tokens") -> Verdict:
    """-min(1, distance to [low, high] / ramp); `None` if the size is not known."""
    if size is None:
        return Verdict(None, f"the number of {unit} is not known: the completion was not sampled")
    outside = max(low - size, size - high, 0)
    return Verdict(-min(outside / ramp, 1.0) or 0.0, f"{size} {unit}, free from {low} to {high}")
