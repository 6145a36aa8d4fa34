"""Online preference optimisation: pairs of the policy's own samples, made anew at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.model.adapter import LoRA
from strop.objectives import DPO
from strop.recipes.kinds.preference import PreferenceObjective
from strop.recipes.monitor import Monitor
from strop.recipes.parts import (
    ROW_NUMBERS,
    Data,
    Found,
    Optimizer,
    Sampling,
    Schedule,
    Training,
    at_least,
    on_policy_problems,
    reference_problems,
    rewards_problems,
)
from strop.rewards import RewardSettings
from strop.train.optim import AdamW, Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineStage:
    """Each step samples from the current policy, scores, and prefers each prompt's best answer to its worst.

    Attributes:
        reference: another model than the one training starts from; it stays fixed.
        num_generations: completions a prompt, of which two are trained on.
        missing_eos_penalty: taken from the score of a completion cut by the length limit, before ranking.
        min_margin: pairs whose scores differ by no more are skipped, as ties are.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ("model", "reference")
    datasets: ClassVar[tuple[str, ...]] = ("data", "eval_data")

    kind: Literal["online"] = "online"
    name: str = "online"
    model: str | None = None
    reference: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    monitor: Monitor | None = None
    rewards: tuple[RewardSettings, ...] = ()
    num_generations: int = 2
    missing_eos_penalty: float = 1.0
    min_margin: float = 0.0
    sampling: Sampling = Sampling(temperature=0.9)
    adapter: LoRA | None = None
    objective: PreferenceObjective = DPO()
    optimizer: Optimizer = AdamW(lr=5e-7)
    schedule: Schedule = Constant(warmup=0.0)
    training: Training = Training(max_length=4096)

    def problems(self) -> Found:
        """Counts, rewards, and sampling that training could not take."""
        yield from at_least(self, ("num_generations",), 2)
        yield from at_least(self, ("missing_eos_penalty", "min_margin"), 0)
        why = f"{self.objective.name} has no reference in its loss"
        yield from reference_problems(self.reference, read="ref_logprobs" in self.objective.needs, why=why)
        if read := self.objective.needs & ROW_NUMBERS:
            text = f"reads the rows' {' and '.join(sorted(read))}, which pairs sampled on the way do not have"
            yield ("objective",), f"{text}; leave soft_labels and margin out"
        yield from rewards_problems(self.rewards, needed="a stage of kind online")
        yield from on_policy_problems(self.sampling)
