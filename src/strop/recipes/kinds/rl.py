"""Sampled groups and the clipped policy gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.credit import GroupRelative, LeaveOneOut, ProcessRelative
from strop.model.adapter import LoRA
from strop.objectives import CISPO, DPPO, GRPO, GSPO, RLOO, GSPOToken
from strop.recipes.monitor import Monitor
from strop.recipes.parts import (
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
    steps_problems,
)
from strop.rewards import RewardSettings
from strop.rollout.corrections import Correction
from strop.rollout.dynamic import DynamicSampling
from strop.token_credit import ReinforcePP, ReinforcePPBaseline
from strop.train.optim import AdamW, Constant

PolicyObjective = GRPO | GSPO | GSPOToken | CISPO | RLOO | DPPO
Advantage = GroupRelative | LeaveOneOut | ReinforcePP | ReinforcePPBaseline | ProcessRelative


@dataclass(frozen=True, slots=True, kw_only=True)
class RLStage:
    """Sampled groups, scored by rewards: GRPO and its relatives.

    Attributes:
        num_generations: completions a prompt (G).
        passes: times each rollout is trained on; minibatches: optimizer steps a pass.
        mask_truncated: leave completions cut by the length limit out of loss and baseline.
        missing_eos_penalty: subtract this from the score of such completions instead.
        dynamic_sampling: replace prompts whose answers score all the same by others (DAPO).
        reset_reference_every: put the policy's weights into the reference each so many steps; 0 never.
        correction: weigh tokens by how likely the policy finds what the sampler drew, both measured;
            for a sampler that differs from the trainer.
        sync_every: sample with a copy of the policy that is renewed each so many steps; 1 samples
            with the policy itself. max_staleness: leave out what was sampled more updates ago.
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
    monitor: Monitor | None = None
    rewards: tuple[RewardSettings, ...] = ()
    num_generations: int = 8
    passes: int = 1
    minibatches: int = 1
    mask_truncated: bool = False
    missing_eos_penalty: float = 0.0
    dynamic_sampling: DynamicSampling | None = None
    reset_reference_every: int = 0
    correction: Correction | None = None
    sync_every: int = 1
    max_staleness: int | None = None
    sampling: Sampling = Sampling()
    advantage: Advantage = GroupRelative()
    adapter: LoRA | None = None
    objective: PolicyObjective = GRPO()
    optimizer: Optimizer = AdamW(lr=1e-6)
    schedule: Schedule = Constant(warmup=0.0)
    training: Training = Training(max_length=4096)

    def problems(self) -> Found:
        """Counts, rewards, and sampling that training could not take."""
        yield from at_least(self, ("num_generations", "passes", "minibatches", "sync_every"), 1)
        yield from at_least(self, ("missing_eos_penalty", "reset_reference_every", "max_staleness"), 0)
        if not isinstance(self.advantage, ReinforcePP) and self.num_generations < 2:
            yield ("num_generations",), "must be at least 2: an advantage is relative to the group's other completions"
        if self.minibatches > max(1, self.training.batch_size):
            sizes = f"{self.minibatches} minibatches of {self.training.batch_size} prompts"
            yield ("minibatches",), f"{sizes}: must not be more than training.batch_size"
        yield from rewards_problems(self.rewards, needed="a stage of kind rl")
        yield from on_policy_problems(self.sampling)
        yield from self._parts_that_do_not_fit()
        yield from self._steps()

    def _steps(self) -> Found:
        """Credit for steps that nothing scores, or that an objective of whole sequences could not use."""
        if not isinstance(self.advantage, ProcessRelative):
            return
        yield from steps_problems(self.rewards, "advantage")
        if self.missing_eos_penalty > 0 and self.advantage.outcome == 0:
            text = "is taken off the score, which does not count while advantage.outcome is 0"
            yield ("missing_eos_penalty",), text
        if isinstance(self.objective, GSPO | RLOO):
            text = f"{self.objective.name} has one ratio a completion; process gives each token its own advantage"
            yield ("objective",), text + "; use grpo, cispo or gspo_token"

    def _parts_that_do_not_fit(self) -> Found:
        labels = [reward.label or reward.name for reward in self.rewards]
        named = self.dynamic_sampling.reward if self.dynamic_sampling is not None else None
        if named is not None and named not in labels:
            known = ", ".join(labels) or "none"
            yield ("dynamic_sampling", "reward"), f"no reward is called {named!r}; there are: {known}"
        if self.dynamic_sampling is not None and self.num_generations == 1:
            yield ("dynamic_sampling",), "a completion alone has none to differ from; set num_generations, or null"
        if self.mask_truncated and self.missing_eos_penalty > 0:
            yield (
                ("missing_eos_penalty",),
                "mask_truncated leaves those completions out, so nothing is left to penalise",
            )
        if self._kl_in_reward and self._kl_in_loss:
            text = "the KL is in the reward already (advantage.beta), so it would count twice; set one of the two to 0"
            yield ("objective", "beta"), text
        why = "the KL has no weight, in the loss or in the reward"
        yield from reference_problems(self.reference, read=self.wants_reference, why=why)
        if self.reset_reference_every and not self.wants_reference:
            yield (
                ("reset_reference_every",),
                "there is no reference: the KL has no weight, in the loss or in the reward",
            )
        if self.reset_reference_every and self.adapter is not None:
            yield ("reset_reference_every",), "an adapter's reference is its base model, which does not change"
        if self.max_staleness is not None and self.sync_every == 1:
            yield ("max_staleness",), "nothing is stale while the policy itself samples; set sync_every too"
        if self.objective.weighted and self.correction is None:
            yield ("objective", "weighted"), "is set by a correction; give one, as correction=token_tis"

    @property
    def wants_reference(self) -> bool:
        """Whether the KL to the reference has a weight, in the loss or in the reward."""
        return self._kl_in_reward or self._kl_in_loss

    @property
    def _kl_in_reward(self) -> bool:
        return isinstance(self.advantage, LeaveOneOut | ReinforcePP) and self.advantage.beta > 0

    @property
    def _kl_in_loss(self) -> bool:
        return "ref_logprobs" in self.objective.needs
