"""A reward model, trained again on what the policy says now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.model.adapter import LoRA
from strop.objectives import BradleyTerry
from strop.recipes.parts import Data, Found, Optimizer, Sampling, Schedule, Training, at_least, rewards_problems
from strop.rewards import RewardSettings
from strop.rollout.choose import Pair
from strop.train.optim import AdamW, Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshStage:
    """Fresh answers of the policy, labelled, mixed with old pairs; the reward model trained on both and measured anew.

    A policy that is trained against a reward model goes where the model was never asked. This stage asks there:
    it samples `policy`, has `rewards` say which of a prompt's answers is best and which worst, and trains on
    those pairs and on old ones, so that what was known is kept. The temperature, mean, deviation and length slope
    in reward.json are taken from the fresh answers. A stage that follows takes `@refresh` as its reward's path
    and, for PPO, as its critic; as data, `@refresh` are the fresh pairs, for the next refresh's `old`.

    Attributes:
        model: what training starts from: the reward model that is to be refreshed, or a language model to begin anew.
        policy: the model whose answers are labelled, as it is now.
        data: prompts that it answers.
        old: the pairs that the reward model was trained on, as [pairs.jsonl, "@refresh"].
        rewards: who labels: any rewards; their weighted sum decides.
        old_share: of the trained pairs, at least so many are old where there are enough of them.
        num_prompts: so many of the prompts, drawn by the stage's seed, so that each round of a repeat has others;
            null takes all.
        num_samples: answers a prompt.
        pair: which two of them are compared.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("model", "samples")
    models: ClassVar[tuple[str, ...]] = ("model", "policy")
    datasets: ClassVar[tuple[str, ...]] = ("data", "old")

    kind: Literal["refresh"] = "refresh"
    name: str = "refresh"
    model: str | None = None
    policy: str | None = None
    data: Data | None = None
    old: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    old_share: float = 0.5
    num_prompts: int | None = None
    num_samples: int = 4
    pair: Pair = Pair()
    sampling: Sampling = Sampling()
    adapter: LoRA | None = None
    objective: BradleyTerry = BradleyTerry()
    optimizer: Optimizer = AdamW(lr=1e-5)
    schedule: Schedule = Linear(warmup=0.03)
    training: Training = Training(batch_size=64, eval_fraction=0.05)

    def problems(self) -> Found:
        """No policy, no old pairs, a share that is none, nobody who labels."""
        yield from at_least(self, ("num_prompts",), 1)
        yield from at_least(self, ("num_samples",), 2)
        yield from rewards_problems(self.rewards, needed="a stage of kind refresh")
        if self.policy is None:
            yield ("policy",), "is missing; name the model whose answers are labelled, as policy: @ppo"
        if self.old is None and self.old_share > 0:
            yield ("old",), "is missing; name the pairs of the old reward model, or set old_share: 0"
        if not 0 <= self.old_share < 1:
            yield ("old_share",), f"must be at least 0 and less than 1, got {self.old_share}"
        if self.sampling.temperature == 0:
            yield ("sampling", "temperature"), "0 is greedy: all answers of a prompt would be the same; use 1.0"
        if self.objective.needs:
            told = ", ".join(sorted(self.objective.needs))
            yield ("objective",), f"reads {told} of each row, which fresh pairs do not have"
