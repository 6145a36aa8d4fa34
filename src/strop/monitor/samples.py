"""What the detectors look at: the answers to fixed prompts at one evaluation, with what is known of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from strop.monitor.numbers import Floats
from strop.types import Completion, Group

HELD_OUT = "held_out/"
"""Names of held-out rewards among a completion's rewards begin so."""
OWN = "monitor"
"""Under this name a completion's facts hold what is measured here: kl, entropy, tokens."""
STATED = ("visible", "hidden", "flip_rate", "flipped", "std")
"""Facts of rewards that detectors know."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer.

    Attributes:
        proxy: what training makes rise; held_out: what it never sees; None is unscorable or not given.
        length: tokens where they are known, else words. is_cut: by the length limit.
        kl: log-prob less the reference's, nats. entropy: mean of -log-prob, nats a token.
        rewards: every named reward, held-out ones with their prefix.
        facts: visible and hidden tests, flipped judgements, an ensemble's deviation.
    """

    text: str
    proxy: float | None = None
    held_out: float | None = None
    length: float = 0.0
    is_cut: bool | None = None
    kl: float | None = None
    entropy: float | None = None
    rewards: Mapping[str, float | None] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)


Value = Callable[[Sample], float | None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The samples of one evaluation, by prompt."""

    step: int
    prompts: tuple[str, ...]
    samples: tuple[tuple[Sample, ...], ...]

    def values(self, of: Value) -> list[list[float | None]]:
        """A number of every sample, by prompt."""
        return [[of(sample) for sample in row] for row in self.samples]

    def means(self, of: Value) -> Floats:
        """The mean of a number over each prompt's samples that have it; NaN where none has."""
        return np.array([_mean(row) for row in self.values(of)], np.float64)

    def grid(self, of: Value) -> Floats:
        """A number of every sample, [prompts, answers], NaN where there is none."""
        rows = self.values(of)
        out = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
        for place, row in zip(out, rows, strict=True):
            place[: len(row)] = [math.nan if value is None else value for value in row]
        return out

    def has(self, of: Value) -> bool:
        """Whether any sample has the number."""
        return any(of(sample) is not None for row in self.samples for sample in row)


def proxy(sample: Sample) -> float | None:
    """The training rewards' score."""
    return sample.proxy


def held_out(sample: Sample) -> float | None:
    """The held-out rewards' score."""
    return sample.held_out


def kl(sample: Sample) -> float | None:
    """An answer's KL to the reference, nats."""
    return sample.kl


def length(sample: Sample) -> float:
    """An answer's length: tokens where they are known, else words."""
    return sample.length


def snapshot(step: int, groups: Sequence[Group], weights: Mapping[str, float] | None = None) -> Snapshot:
    """The samples of groups as the detectors read them.

    Args: weights: of the held-out rewards, by their label; None takes 1 for every one there is.
    """
    return Snapshot(
        step,
        tuple(group.prompt_text for group in groups),
        tuple(tuple(sample_of(c, weights) for c in group.completions) for group in groups),
    )


def sample_of(completion: Completion, weights: Mapping[str, float] | None = None) -> Sample:
    """One completion as the detectors read it."""
    own = measured(completion)
    return Sample(
        text=completion.text,
        proxy=completion.score,
        held_out=weighted(completion.rewards, weights),
        length=own.get("tokens", float(len(completion.text.split()))),
        is_cut=None if completion.finish is None else completion.finish == "length",
        kl=own.get("kl"),
        entropy=own.get("entropy"),
        rewards=completion.rewards,
        facts=_stated(completion),
    )


def measured(completion: Completion) -> dict[str, float]:
    """What is known of a completion's tokens: how many, -log-prob a token, and what was measured before."""
    facts: Mapping[str, Any] = completion.facts.get(OWN, {})
    found = {name: float(value) for name, value in facts.items() if name in ("kl", "entropy", "tokens")}
    if completion.token_ids is not None:
        found["tokens"] = float(len(completion.token_ids))
    if completion.logprobs:
        found["entropy"] = -math.fsum(completion.logprobs) / len(completion.logprobs)
    return found


def weighted(rewards: Mapping[str, float | None], weights: Mapping[str, float] | None) -> float | None:
    """The weighted sum of the held-out rewards; None where there is none, or one that counts is unscorable."""
    names = [name for name in rewards if name.startswith(HELD_OUT)]
    weight = {name: 1.0 if weights is None else weights.get(name.removeprefix(HELD_OUT), 0.0) for name in names}
    parts = [(weight[name], rewards[name]) for name in names if weight[name] != 0]
    known = [w * value for w, value in parts if value is not None]
    return math.fsum(known) if parts and len(known) == len(parts) else None


def kept(completion: Completion) -> Completion:
    """The completion as it is written to a file: without its tokens, but with what was counted of them."""
    facts = {**completion.facts, OWN: measured(completion)}
    return replace(completion, token_ids=None, logprobs=None, facts=facts)


def _stated(completion: Completion) -> dict[str, float]:
    """The facts that detectors know, as numbers: the first reward's that states each."""
    found: dict[str, float] = {}
    for name, facts in completion.facts.items():
        for key in STATED if name != OWN else ():
            value = facts.get(key)
            if isinstance(value, bool | int | float):
                found.setdefault(key, float(value))
    return found


def _mean(row: Sequence[float | None]) -> float:
    known = [value for value in row if value is not None]
    return math.fsum(known) / len(known) if known else math.nan
