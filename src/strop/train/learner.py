"""The learner: one model, one objective, one optimizer; an update is one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from strop import dist
from strop.batch import Batch, Step, step_totals, weighted_loss
from strop.model.forward import Model
from strop.objectives import Objective
from strop.train.metrics import MetricSums
from strop.train.optim import set_lr

Schedule = Callable[[int, int], float]


class NonFinite(RuntimeError):
    """Too many steps in a row had a loss or gradient that is not a number."""


@dataclass(slots=True)
class Learner:
    """Trains one model by one objective.

    Attributes:
        num_updates: optimizer steps the schedule spans.
        max_grad_norm: gradients are clipped to this norm; 0 leaves them.
        temperature: of the log-probs; the sampling temperature in RL, else 1.
        label: put before the loss, gradient norm and learning rate where a step has several learners.
        begins_at: the loop's step before which it makes no update (a critic warms up first).
        nonfinite_limit: raise after so many skipped updates in a row.
        updates, skipped, skipped_in_a_row: counted so far; part of a checkpoint.
    """

    model: Model
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    num_updates: int
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    nonfinite_limit: int = 5
    label: str = ""
    begins_at: int = 0
    updates: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    parameters: list[torch.nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.model.module.parameters() if p.requires_grad]

    def update(self, step: Step) -> dict[str, float]:
        """One optimizer step over the micro-batches; returns the step's means under TRL's names.

        A step whose loss or gradient norm is not finite changes nothing and is counted.
        Raises: NonFinite after `nonfinite_limit` such steps in a row.
        """
        factor = self.schedule(self.updates, self.num_updates)
        set_lr(self.optimizer, factor)
        sums = MetricSums()
        total_loss = 0.0
        reductions = self.objective.reductions
        totals = step_totals(reductions, step.batches, step.idle)
        for batch in step.batches:
            self._check_needs(batch)
            outputs = self.model(batch, temperature=self.temperature, wants=self.objective.wants)
            terms = self.objective(outputs, batch)
            loss = weighted_loss(terms, batch, reductions, totals)
            loss.backward()
            total_loss += float(loss.detach())
            for name, values in terms.metrics.items():
                sums.add(name, values)
        summed = dist.sum_numbers([total_loss])[0]
        own = {"loss": summed, "grad_norm": self._step(summed)}
        own["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
        if self.skipped:
            own["train/nonfinite"] = float(self.skipped)
        self.updates += 1
        return {**{f"{self.label}/{name}" if self.label else name: v for name, v in own.items()}, **sums.result()}

    def _step(self, loss: float) -> float:
        """Clip and apply the gradients unless something is not finite; returns the norm before clipping."""
        dist.sum_gradients(self.parameters)
        limit = self.max_grad_norm if self.max_grad_norm > 0 else math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step()
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)
        if self.skipped_in_a_row >= self.nonfinite_limit:
            raise NonFinite(
                f"the loss or gradient was not finite {self.skipped_in_a_row} steps in a row (last loss {loss}, "
                f"gradient norm {norm}); lower optimizer.lr, or check the data and rewards for extreme values"
            )
        return norm

    def _check_needs(self, batch: Batch) -> None:
        missing = self.objective.needs - batch.columns.keys()
        assert not missing, f"{type(self.objective).__name__} needs the columns {sorted(missing)}"
