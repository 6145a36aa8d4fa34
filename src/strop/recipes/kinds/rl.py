"""Sampled groups and the clipped policy gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.credit import GroupRelative, LeaveOneOut
from strop.model.adapter import LoRA
from strop.objectives import GRPO
from strop.recipes.parts import (
    Data,
    Found,
    Optimizer,
    Sampling,
    Schedule,
    Training,
    at_least,
    on_policy_problems,
    rewards_problems,
)
from strop.rewards import RewardSettings
from strop.train.optim import AdamW, Constant

PolicyObjective = GRPO
Advantage = GroupRelative | LeaveOneOut


@dataclass(frozen=True, slots=True, kw_only=True)
class RLStage:
    """Sampled groups, scored by rewards: GRPO and its relatives.

    Attributes:
        num_generations: completions a prompt (G).
        passes: times each rollout is trained on; minibatches: optimizer steps a pass.
        mask_truncated: leave completions cut by the length limit out of loss and baseline.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ("model", "reference")
    datasets: ClassVar[tuple[str, ...]] = ("data", "eval_data")

    kind: Literal["rl"] = "rl"
    name: str = "rl"
    model: str | None = None
    reference: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    num_generations: int = 8
    passes: int = 1
    minibatches: int = 1
    mask_truncated: bool = False
    sampling: Sampling = Sampling()
    advantage: Advantage = GroupRelative()
    adapter: LoRA | None = None
    objective: PolicyObjective = GRPO()
    optimizer: Optimizer = AdamW(lr=1e-6)
    schedule: Schedule = Constant(warmup=0.0)
    training: Training = Training(max_length=4096)

    def problems(self) -> Found:
        """Counts, rewards, and sampling that training could not take."""
        yield from at_least(self, ("num_generations", "passes", "minibatches"), 1)
        if isinstance(self.advantage, GroupRelative | LeaveOneOut) and self.num_generations < 2:
            yield ("num_generations",), "must be at least 2: an advantage is relative to the group's other completions"
        if self.minibatches > max(1, self.training.batch_size):
            sizes = f"{self.minibatches} minibatches of {self.training.batch_size} prompts"
            yield ("minibatches",), f"{sizes}: must not be more than training.batch_size"
        yield from rewards_problems(self.rewards, needed="a stage of kind rl")
        yield from on_policy_problems(self.sampling)
