"""Who says which of two answers is better: rules, the answers' scores, a judge, or people.

A labeller is a settings object whose call takes couples to one `Preference` each; `values` tells how
high the answers of a group stand where it can say that without comparing them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from strop.judges import Compare, Comparison, Pair
from strop.judges.prompts import as_text
from strop.rollout.couples import Couple, Preference, alike, sigmoid
from strop.rollout.people import People
from strop.rollout.rules import Rules
from strop.types import Completion, Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The answer that scores higher, by the stage's rewards or by scores that the rows have.

    P(first better) = sigmoid(Delta / T), Delta the difference of scores (Bradley and Terry 1952);
    1 or 0 without a temperature. The margin is |Delta|.

    Attributes:
        temperature: T; null for hard labels, as a verifier's; "fitted" for the one that stands beside
            the reward model (reward.json), on the scale of its own scores.
        min_margin: a difference that is no more is a tie.
    """

    name: Literal["scores"] = "scores"
    temperature: float | Literal["fitted"] | None = None
    min_margin: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.temperature, int | float) and not self.temperature > 0:
            raise ValueError(f"scores.temperature must be more than 0, or null for hard labels, got {self.temperature}")
        if not self.min_margin >= 0:
            raise ValueError(f"scores.min_margin must not be negative, got {self.min_margin}")

    def __call__(self, couples: Sequence[Couple]) -> list[Preference]:
        return [self._compare(couple) for couple in couples]

    def values(self, group: Group) -> list[float | None]:
        """The answers' scores."""
        return [completion.score for completion in group.completions]

    def _compare(self, couple: Couple) -> Preference:
        first, second = (completion.score for completion in couple.answers)
        if first is None or second is None:
            return Preference(probability=None, reason="abstained: an answer without a score")
        assert self.temperature != "fitted", "the stage puts the number in"
        delta = first - second
        tie = alike(first, second, self.min_margin)
        if self.temperature is None:
            probability = 0.5 if tie else float(delta > 0)
        else:
            probability = sigmoid(delta / self.temperature)
        reason = f"scores {first:.4g} and {second:.4g}"
        return Preference(probability=probability, margin=abs(delta), reason=reason, tie=tie)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """The answer that a judge prefers, asked in both orders; the margin is |2 p - 1|.

    Attributes:
        compare: how it is asked.
        constitution: principles to judge by, one drawn for each couple: the name of one that comes with
            the package, or a YAML file; null takes the judge's general criterion.
        num_principles: so many different ones a couple, and the mean of their probabilities.
        reference: column with a known good answer, for the judge to read; null shows it none.
    """

    compare: Compare
    name: Literal["judge"] = "judge"
    constitution: str | None = None
    num_principles: int = 1
    reference: str | None = None

    def __post_init__(self) -> None:
        if self.num_principles < 1:
            raise ValueError(f"judge.num_principles must be at least 1, got {self.num_principles}")
        if self.num_principles > 1 and self.constitution is None:
            raise ValueError("judge.num_principles is for a constitution; name one, as constitution=assistant")

    @property
    def models(self) -> tuple[str, ...]:
        """The settings that name models, those of a judge in this process."""
        return tuple(f"compare.backend.{key}" for key in getattr(self.compare.backend, "models", ()))

    def __call__(self, couples: Sequence[Couple]) -> list[Preference]:
        asked = [pair for couple in couples for pair in self._pairs(couple)]
        said = iter(self.compare(asked))
        return [self._preference(couple, [next(said) for _ in couple.principles or ("",)]) for couple in couples]

    def values(self, group: Group) -> list[float | None]:
        """The answers' scores, where an earlier stage gave them some."""
        return [completion.score for completion in group.completions]

    def _pairs(self, couple: Couple) -> list[Pair]:
        first, second = (_said(completion) for completion in couple.answers)
        gold = None if self.reference is None else couple.group.row.get(self.reference)
        reference = None if gold is None else str(gold)
        return [
            Pair(
                prompt=couple.group.prompt,
                first=first,
                second=second,
                principle=None if principle is None else principle.comparison,
                reference=reference,
            )
            for principle in couple.principles or (None,)
        ]

    def _preference(self, couple: Couple, said: Sequence[Comparison]) -> Preference:
        """One couple's preference: the mean over principles, those that the judge abstained from left out."""
        known = [c.probability for c in said if c.probability is not None]
        facts: dict[str, Any] = {"principles": [p.id for p in couple.principles]} if couple.principles else {}
        for name in ("forward", "backward", "flipped"):
            if (value := _mean([getattr(c, name) for c in said])) is not None:
                facts[name] = value
        if not known:
            return Preference(probability=None, reason=said[0].reason or "abstained", facts=facts)
        probability = math.fsum(known) / len(known)
        tie = all(c.tie for c in said) or abs(probability - 0.5) < self.compare.tie_margin
        return Preference(
            probability=0.5 if tie else probability,
            margin=0.0 if tie else abs(2 * probability - 1),
            reason=said[0].reason if len(said) == 1 else f"the mean of {len(known)} principles",
            tie=tie,
            facts=facts,
        )


Labeller = Rules | Scores | Judge | People


def _said(completion: Completion) -> str:
    """An answer's words; of several turns all of them, each under its role."""
    whole = isinstance(completion.content, tuple) and len(completion.content) > 1
    return as_text(completion.content) if whole else completion.text


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
