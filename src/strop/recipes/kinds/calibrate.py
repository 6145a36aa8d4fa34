"""A finished reward model's figures, measured anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import PAIRS, Data, Found, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateStage:
    """A reward model's accuracy and calibration on comparisons, and a copy of it with a new reward.json.

    For models that other programs trained, averages of models, and a model whose policy has moved.

    Attributes:
        data: comparisons that the model was not trained on.
        normalize: as in a stage of kind reward; null takes the comparisons.
        max_length: tokens of prompt and answer; longer rows are dropped.
        micro_batch_tokens: packed tokens a forward holds at most.
    """

    takes: ClassVar[tuple[str, ...]] = (*PAIRS, "groups")
    answers: ClassVar[tuple[int, int | None]] = (2, None)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ("model",)
    datasets: ClassVar[tuple[str, ...]] = ("data", "normalize")

    kind: Literal["calibrate"] = "calibrate"
    name: str = "calibrate"
    model: str | None = None
    data: Data | None = None
    normalize: Data | None = None
    max_length: int = 2048
    micro_batch_tokens: int = 4096

    def problems(self) -> Found:
        """Numbers that are too small."""
        yield from at_least(self, ("max_length",), 2)
        yield from at_least(self, ("micro_batch_tokens",), 1)
