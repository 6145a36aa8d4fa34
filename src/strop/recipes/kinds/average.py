"""Several models' weights as one model's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import Found


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageStage:
    """The weighted mean of models' weights: checkpoints of one run, or fine-tunings of one start (WARM).

    Attributes:
        members: the models, folders or `@stage`; they must have the same tensors and tokenizer.
        weights: of each, normalised to sum to 1; null weighs them alike.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ("members",)
    datasets: ClassVar[tuple[str, ...]] = ()

    kind: Literal["average"] = "average"
    name: str = "average"
    members: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None

    def problems(self) -> Found:
        """No members, or weights that are none."""
        if not self.members:
            yield ("members",), "is empty; name model folders or earlier stages, as members=[@a, @b]"
        if self.weights is None:
            return
        if len(self.weights) != len(self.members):
            yield ("weights",), f"{len(self.weights)} weights for {len(self.members)} members; give one each, or null"
        elif not all(math.isfinite(w) and w >= 0 for w in self.weights) or not sum(self.weights) > 0:
            yield ("weights",), f"must not be negative, and not all 0, got {list(self.weights)}"
