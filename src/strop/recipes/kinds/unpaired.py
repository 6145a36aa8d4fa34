"""Offline optimisation on single answers that were found desirable or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.model.adapter import LoRA
from strop.objectives import KTO, ImplicitPRM
from strop.recipes.monitor import Monitor
from strop.recipes.parts import Data, Found, Optimizer, Schedule, Training
from strop.train.optim import AdamW, Linear

UnpairedObjective = KTO | ImplicitPRM


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpairedStage:
    """KTO on labelled answers, or on pairs, whose better side is desirable and whose worse one is not.

    With the objective implicit_prm it leaves a process reward model in place of an assistant.

    Attributes: reference: another model than the one training starts from.
    """

    takes: ClassVar[tuple[str, ...]] = ("unpaired_preference", "preference", "groups")
    answers: ClassVar[tuple[int, int | None]] = (1, None)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ("model", "reference")
    datasets: ClassVar[tuple[str, ...]] = ("data", "eval_data")

    kind: Literal["unpaired"] = "unpaired"
    name: str = "unpaired"
    model: str | None = None
    reference: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    monitor: Monitor | None = None
    adapter: LoRA | None = None
    objective: UnpairedObjective = KTO()
    optimizer: Optimizer = AdamW(lr=5e-7)
    schedule: Schedule = Linear(warmup=0.1)
    training: Training = Training()

    def problems(self) -> Found:
        """Nothing that single values do not show."""
        return iter(())
