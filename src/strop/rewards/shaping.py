"""Another reward, bounded or freed of what length explains: shapes that any reward can be given.

    rewards:
      - name: shaped
        reward: {name: model, path: "@reward"}
        shape: [length_control, {name: sigmoid, reference: reference}]

Shapes are taken in their order. An unscorable completion stays unscorable.

Left out: a mean that runs along with training. It would hide that scores drift, and a run that was
stopped would go on with another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from strop.rewards.plain import Plain
from strop.rewards.protocol import label_of, verdicts_of
from strop.rewards.scale import residual
from strop.rewards.shape import size_of
from strop.types import Completion, Group, Verdict

Rows = Sequence[Sequence[float | None]]
"""Scores, a row a prompt; None is unscorable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """min(max(r, low), high): a score that runs away is worth no more than the bound."""

    name: Literal["clip"] = "clip"
    low: float = -5.0
    high: float = 5.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"clip: low {self.low} must be below high {self.high}")

    def __call__(self, scores: Rows, groups: Sequence[Group], references: Sequence[float | None]) -> Rows:
        return [[None if r is None else min(max(r, self.low), self.high) for r in row] for row in scores]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigmoid:
    """sigmoid((r - r_ref) / scale): how surely the completion beats a reference, which ends at 1.

    The steep part is where the completion is about as good as the reference; far above it there is little
    left to gain, and little to be had by a trick. Fu et al. 2025, arXiv:2502.18770 (there r_ref is of
    reference answers, scale 1). r is a difference of log-odds where it comes from a Bradley-Terry model.

    Attributes:
        centre: r_ref where no reference is given.
        reference: column with a reference answer, which the same reward scores; a row whose reference is
            missing or cannot be scored makes its completions unscorable. Null takes `centre`.
        scale: points of r that one unit of log-odds stands for.
    """

    name: Literal["sigmoid"] = "sigmoid"
    centre: float = 0.0
    reference: str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if self.reference == "":
            raise ValueError("reference is empty; name a column that has an answer to compare with, or null")

    def __call__(self, scores: Rows, groups: Sequence[Group], references: Sequence[float | None]) -> Rows:
        centres = references if self.reference is not None else [self.centre] * len(groups)
        return [
            [None if r is None or c is None else _sigmoid((r - c) / self.scale) for r in row]
            for row, c in zip(scores, centres, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthControl:
    """r - b (|y| - mean |y| of the prompt): the score without what length explains within the prompt.

    With b null it is fitted on the groups at hand (a step's), within prompts, by least squares, and the
    scores that are left are exactly uncorrelated with length there: right answers that need more words
    lose what the words explain. With b given (the `length_slope` of a reward model's reward.json, which
    was fitted before training) length is worth what it is worth beyond that.

    Attributes:
        slope: b, points a unit; null fits it.
        unit: what is counted; tokens needs sampled completions.
    """

    name: Literal["length_control"] = "length_control"
    slope: float | None = None
    unit: Literal["characters", "words", "tokens"] = "tokens"

    def __call__(self, scores: Rows, groups: Sequence[Group], references: Sequence[float | None]) -> Rows:
        sizes = [[size_of(completion, self.unit) for completion in group.completions] for group in groups]
        known = [
            [None if n is None else r for r, n in zip(row, lengths, strict=True)]
            for row, lengths in zip(scores, sizes, strict=True)
        ]
        lengths = [[n or 0 for n in row] for row in sizes]
        slope = fitted_slope(known, lengths) if self.slope is None else self.slope
        return [residual(row, counts, slope) for row, counts in zip(known, lengths, strict=True)]


Shape = Clip | Sigmoid | LengthControl


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """Another reward's scores, shaped; what it was before stands in the verdict's reason.

    Attributes:
        reward: the reward; its own weight does not count.
        shape: what is done to its scores, in this order.
    """

    reward: Plain
    shape: tuple[Shape, ...] = (Clip(),)
    name: Literal["shaped"] = "shaped"
    weight: float = 1.0
    label: str | None = None

    def __post_init__(self) -> None:
        if not self.shape:
            raise ValueError("shape is empty, so nothing would be shaped; name one, as shape=clip, or take the reward")

    @property
    def models(self) -> tuple[str, ...]:
        """The inner reward's settings that name models."""
        return tuple(f"reward.{key}" for key in getattr(self.reward, "models", ()))

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        label = self.label or label_of(self.reward)
        verdicts = verdicts_of(self.reward, groups, label)
        scores: Rows = [[verdict.score for verdict in row] for row in verdicts]
        for shape in self.shape:
            references = self._references(groups, shape, label)
            scores = shape(scores, groups, references)
        return [
            [_shaped(verdict, score) for verdict, score in zip(row, shaped, strict=True)]
            for row, shaped in zip(verdicts, scores, strict=True)
        ]

    def _references(self, groups: Sequence[Group], shape: Shape, label: str) -> list[float | None]:
        """What the reward says of each row's reference answer, where the shape asks for it."""
        if not isinstance(shape, Sigmoid) or shape.reference is None:
            return [None] * len(groups)
        column = shape.reference
        answers = [group.row.get(column) for group in groups]
        if groups and not any(isinstance(answer, str) for answer in answers):
            raise ValueError(
                f"reward {label!r}: no row has a text in the column {column!r} that shape.reference names; add the "
                "reference answers, or set shape.centre"
            )
        asked = [g for g, answer in zip(groups, answers, strict=True) if isinstance(answer, str)]
        alone = [replace(group, completions=(Completion(str(group.row[column])),)) for group in asked]
        found = iter([row[0].score for row in verdicts_of(self.reward, alone, label)])
        return [next(found) if isinstance(answer, str) else None for answer in answers]


def fitted_slope(scores: Rows, lengths: Sequence[Sequence[int]]) -> float:
    """Least squares of score on length, both centred within their prompt, over what is scorable.

    b = sum (r - mean r)(n - mean n) / sum (n - mean n)^2; 0 where no lengths differ.
    """
    products, squares = [], []
    for row, counts in zip(scores, lengths, strict=True):
        pairs = [(r, n) for r, n in zip(row, counts, strict=True) if r is not None]
        if not pairs:
            continue
        r_mean = math.fsum(r for r, _ in pairs) / len(pairs)
        n_mean = math.fsum(n for _, n in pairs) / len(pairs)
        products += [(r - r_mean) * (n - n_mean) for r, n in pairs]
        squares += [(n - n_mean) ** 2 for _, n in pairs]
    total = math.fsum(squares)
    return math.fsum(products) / total if total > 0 else 0.0


def _shaped(verdict: Verdict, score: float | None) -> Verdict:
    if verdict.score is None:
        return verdict
    if score is None:
        return replace(verdict, score=None, reason="no reference or no token count to shape the score by")
    reason = f"{verdict.score:.4g} before shaping" + (f"; {verdict.reason}" if verdict.reason else "")
    return replace(verdict, score=score, reason=reason)


def _sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
