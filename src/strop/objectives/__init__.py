"""Objectives: pure functions from a forward's numbers to unreduced loss terms.

Each file is first the maths, then its binding to a batch: a frozen settings dataclass whose
`__call__(outputs, batch)` is the method. A new method is a formula, a dataclass and a test.
"""

from __future__ import annotations

from typing import Protocol

from strop.batch import Batch, Outputs, Reduction, Terms
from strop.objectives.policy import GRPO, dapo, deepseek_grpo, dr_grpo
from strop.objectives.ppo import PPO
from strop.objectives.preference import DPO, DPOP, RDPO, DPONorm, RobustDPO
from strop.objectives.preference_shapes import IPO, APODown, APOZero, Hinge, IPOSum
from strop.objectives.process import ImplicitPRM, ProcessLoss
from strop.objectives.reference_free import CPO, ORPO, RefFreeDPO, SimPO, SLiC
from strop.objectives.reward import AllPairs, BradleyTerry, PlackettLuce
from strop.objectives.sequence_policy import GSPO, RLOO, GSPOToken
from strop.objectives.supervised import SFT
from strop.objectives.token_policy import CISPO, DPPO
from strop.objectives.unpaired import KTO
from strop.objectives.value import ClippedValue, PPOWithValue


class Objective(Protocol):
    """What the learner asks of a method.

    Attributes:
        needs: recorded columns it reads; a missing one is refused before step 0.
        wants: extra per-token numbers of the forward it logs: "entropy", "correct", "values".
        reductions: how each tensor of its terms is weighed over the optimizer step.
    """

    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def wants(self) -> frozenset[str]: ...
    @property
    def reductions(self) -> tuple[Reduction, ...]: ...
    def __call__(self, outputs: Outputs, batch: Batch) -> Terms: ...


__all__ = [
    "CISPO",
    "CPO",
    "DPO",
    "DPOP",
    "DPPO",
    "GRPO",
    "GSPO",
    "IPO",
    "KTO",
    "ORPO",
    "PPO",
    "RDPO",
    "RLOO",
    "SFT",
    "APODown",
    "APOZero",
    "AllPairs",
    "BradleyTerry",
    "ClippedValue",
    "DPONorm",
    "GSPOToken",
    "Hinge",
    "IPOSum",
    "ImplicitPRM",
    "Objective",
    "PPOWithValue",
    "PlackettLuce",
    "ProcessLoss",
    "RefFreeDPO",
    "RobustDPO",
    "SLiC",
    "SimPO",
    "dapo",
    "deepseek_grpo",
    "dr_grpo",
]
