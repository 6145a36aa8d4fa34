"""Objectives: pure functions from a forward's numbers to unreduced loss terms.

Each file is first the maths, then its binding to a batch: a frozen settings dataclass whose
`__call__(outputs, batch)` is the method. A new method is a formula, a dataclass and a test.
"""

from __future__ import annotations

from typing import Protocol

from strop.batch import Batch, Outputs, Reduction, Terms
from strop.objectives.policy import GRPO
from strop.objectives.preference import DPO, IPO, Hinge, IPOSum
from strop.objectives.supervised import SFT


class Objective(Protocol):
    """What the learner asks of a method.

    Attributes:
        needs: recorded columns it reads; a missing one is refused before step 0.
        wants: extra per-token numbers of the forward it logs: "entropy", "correct".
        reductions: how each tensor of its terms is weighed over the optimizer step.
    """

    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def wants(self) -> frozenset[str]: ...
    @property
    def reductions(self) -> tuple[Reduction, ...]: ...
    def __call__(self, outputs: Outputs, batch: Batch) -> Terms: ...


__all__ = ["DPO", "GRPO", "IPO", "SFT", "Hinge", "IPOSum", "Objective"]
