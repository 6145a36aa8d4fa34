"""Which answers are kept for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import Data, Found
from strop.rollout.choose import Best, Each, Label, Pair
from strop.rollout.filters import (
    Correct,
    Dedup,
    DedupAnswers,
    Difficulty,
    Finished,
    Length,
    LengthMatch,
    NearDup,
    Quantile,
    Repetition,
    Threshold,
    Without,
)
from strop.rollout.readable import OneLanguage, Paragraphs

Filter = (
    Threshold | Correct | Quantile | Difficulty | Finished | Length | LengthMatch | Repetition | Without
    | DedupAnswers | Dedup | NearDup | OneLanguage | Paragraphs
)  # fmt: skip
Keep = Best | Each | Pair | Label | Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectStage:
    """Scored answers to rows that are trained on: `best` or `each` for SFT, `pair` or `label` for preferences.

    Attributes: keep: filters and choices, applied in their order, as `[finished, correct, each]`.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (1, None)
    leaves: ClassVar[tuple[str, ...]] = ("samples",)
    models: ClassVar[tuple[str, ...]] = ()
    datasets: ClassVar[tuple[str, ...]] = ("data",)

    kind: Literal["select"] = "select"
    name: str = "select"
    data: Data | None = None
    keep: tuple[Keep, ...] = (Best(),)

    def problems(self) -> Found:
        """A list that keeps everything, or that chooses from what a choice has left alone."""
        if not self.keep:
            yield ("keep",), "is empty, so everything would be kept; name a choice, as keep=best"
        chosen = False
        for index, choice in enumerate(self.keep):
            if chosen and isinstance(choice, Best | Pair):
                text = f"{choice.name} finds one answer a row, for an earlier choice parted them; put it first"
                yield ("keep", index), text
            chosen = chosen or isinstance(choice, Best | Each)
