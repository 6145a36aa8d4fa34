"""Supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.model.adapter import LoRA
from strop.objectives import SFT
from strop.recipes.parts import TEXTS, Data, Found, Optimizer, Schedule, Training
from strop.train.optim import AdamW, Cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTStage:
    """Supervised fine-tuning on every assistant turn."""

    takes: ClassVar[tuple[str, ...]] = (*TEXTS, "groups")
    answers: ClassVar[tuple[int, int | None]] = (1, 1)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ("model",)
    datasets: ClassVar[tuple[str, ...]] = ("data", "eval_data")

    kind: Literal["sft"] = "sft"
    name: str = "sft"
    model: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    adapter: LoRA | None = None
    objective: SFT = SFT()
    optimizer: Optimizer = AdamW(lr=1e-5)
    schedule: Schedule = Cosine(warmup=0.03, final=0.1)
    training: Training = Training()

    def problems(self) -> Found:
        """Nothing that single values do not show."""
        return iter(())
