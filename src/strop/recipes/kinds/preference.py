"""Offline preference optimisation on pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.model.adapter import LoRA
from strop.objectives import (
    CPO,
    DPO,
    DPOP,
    IPO,
    ORPO,
    RDPO,
    APODown,
    APOZero,
    DPONorm,
    Hinge,
    IPOSum,
    RefFreeDPO,
    RobustDPO,
    SimPO,
    SLiC,
)
from strop.recipes.monitor import Monitor
from strop.recipes.parts import PAIRS, Data, Found, Optimizer, Schedule, Training, reference_problems
from strop.train.optim import AdamW, Linear

PreferenceObjective = (
    DPO
    | RobustDPO
    | DPOP
    | DPONorm
    | RDPO
    | IPO
    | IPOSum
    | Hinge
    | APOZero
    | APODown
    | ORPO
    | SimPO
    | CPO
    | SLiC
    | RefFreeDPO
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceStage:
    """Offline preference optimisation on pairs, best first.

    Attributes: reference: another model than the one training starts from.
    """

    takes: ClassVar[tuple[str, ...]] = (*PAIRS, "groups")
    answers: ClassVar[tuple[int, int | None]] = (2, 2)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ("model", "reference")
    datasets: ClassVar[tuple[str, ...]] = ("data", "eval_data")

    kind: Literal["preference"] = "preference"
    name: str = "preference"
    model: str | None = None
    reference: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    monitor: Monitor | None = None
    adapter: LoRA | None = None
    objective: PreferenceObjective = DPO()
    optimizer: Optimizer = AdamW(lr=5e-7)
    schedule: Schedule = Linear(warmup=0.1)
    training: Training = Training()

    def problems(self) -> Found:
        """A reference that the loss does not read."""
        why = f"{self.objective.name} has no reference in its loss"
        yield from reference_problems(self.reference, read="ref_logprobs" in self.objective.needs, why=why)
