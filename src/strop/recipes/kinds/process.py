"""Process reward models: a judgement of every step of a solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.model.adapter import LoRA
from strop.objectives import ProcessLoss
from strop.recipes.parts import Data, Found, Optimizer, Schedule, Training, separator_problems
from strop.train.optim import AdamW, Cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStage:
    """A process reward model from step labels: one logit, read where each step ends.

    Attributes:
        separator: stands behind every step, in training and whenever the model is asked; it is saved
            with the model. Best is a text that is one token and occurs nowhere inside a step.
    """

    takes: ClassVar[tuple[str, ...]] = ("stepwise", "stepwise_strict", "groups")
    answers: ClassVar[tuple[int, int | None]] = (1, None)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ("model",)
    datasets: ClassVar[tuple[str, ...]] = ("data", "eval_data")

    kind: Literal["process"] = "process"
    name: str = "process"
    model: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    separator: str = "\n"
    adapter: LoRA | None = None
    objective: ProcessLoss = ProcessLoss()
    optimizer: Optimizer = AdamW(lr=1e-5)
    schedule: Schedule = Cosine(warmup=0.03, final=0.1)
    training: Training = Training()

    def problems(self) -> Found:
        """A separator that separates nothing."""
        yield from separator_problems(self.separator)
