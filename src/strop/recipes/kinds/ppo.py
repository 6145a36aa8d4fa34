"""Proximal policy optimisation with a critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.model.adapter import LoRA
from strop.objectives import PPO, ClippedValue
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
from strop.rollout.process import StepRewards
from strop.token_credit import GAE
from strop.train.control import AdaptiveKL, FixedKL
from strop.train.optim import AdamW, Linear

SHARED = "shared"
"""The critic that is a head on the policy's own trunk."""

KL = FixedKL | AdaptiveKL


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOStage:
    """PPO: sampled completions, scored by rewards, with a critic that says what each state was worth.

    Attributes:
        reference: what the KL in the reward is taken to; null: the model it starts from.
        critic: a reward model or critic to start the critic from, or `shared` for a head on the
            policy's trunk; null: the trunk of the model it starts from, as a network of its own,
            with a head that says 0.
        reward_clip: bound of a completion's score, null for none; meant for scores of about unit size.
        missing_eos_penalty: taken off the score of a completion that the length limit cut.
        step_rewards: rewards where steps end as well, from a process reward; null rewards the last token alone.
        kl: weight of the KL in the reward.
        gae: how rewards and values become advantages.
        num_generations: completions a prompt.
        passes: times each rollout is trained on; minibatches: optimizer steps a pass, shuffled anew.
        target_kl: leave a rollout's other updates once policy/approxkl_avg is over 1.5 times this;
            null makes them all.
        value_warmup: steps in which only the critic learns.
        critic_optimizer: the critic's; its schedule is the policy's.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("model", "critic")
    datasets: ClassVar[tuple[str, ...]] = ("data", "eval_data")

    kind: Literal["ppo"] = "ppo"
    name: str = "ppo"
    model: str | None = None
    reference: str | None = None
    critic: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    monitor: Monitor | None = None
    rewards: tuple[RewardSettings, ...] = ()
    reward_clip: float | None = 5.0
    missing_eos_penalty: float = 1.0
    step_rewards: StepRewards | None = None
    kl: KL = FixedKL()
    gae: GAE = GAE()
    num_generations: int = 1
    passes: int = 4
    minibatches: int = 1
    target_kl: float | None = None
    value_warmup: int = 0
    sampling: Sampling = Sampling()
    adapter: LoRA | None = None
    objective: PPO = PPO()
    value: ClippedValue = ClippedValue()
    optimizer: Optimizer = AdamW(lr=1e-6, eps=1e-5)
    critic_optimizer: Optimizer = AdamW(lr=1e-5, eps=1e-5)
    schedule: Schedule = Linear(warmup=0.0)
    training: Training = Training(max_length=4096)

    @property
    def models(self) -> tuple[str, ...]:
        """The fields that name models."""
        return ("model", "reference") if self.critic == SHARED else ("model", "reference", "critic")

    def problems(self) -> Found:
        """Counts, rewards, and sampling that training could not take."""
        yield from at_least(self, ("num_generations", "passes", "minibatches"), 1)
        yield from at_least(self, ("missing_eos_penalty", "value_warmup"), 0)
        for key in ("reward_clip", "target_kl"):
            if (value := getattr(self, key)) is not None and value <= 0:
                yield (key,), f"must be positive, or null for none, got {value}"
        if self.target_kl is not None and self.passes * self.minibatches == 1:
            yield ("target_kl",), "there is one update a rollout, and none after it to leave out; set passes, or null"
        if self.minibatches > max(1, self.training.batch_size):
            sizes = f"{self.minibatches} minibatches of {self.training.batch_size} prompts"
            yield ("minibatches",), f"{sizes}: must not be more than training.batch_size"
        if self.critic == SHARED and self.value_warmup:
            yield ("value_warmup",), "a shared critic cannot learn without moving the policy; set 0, or critic: null"
        yield from reference_problems(self.reference, read=self.kl.coefficient > 0, why="the KL has no weight")
        yield from rewards_problems(self.rewards, needed="a stage of kind ppo")
        if self.step_rewards is not None:
            yield from steps_problems(self.rewards, "step_rewards")
        yield from on_policy_problems(self.sampling)
