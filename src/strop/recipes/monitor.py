"""The setting `monitor` of training stages: what is watched besides the reward that is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from strop.monitor.settings import Thresholds
from strop.recipes.parts import Data, Found, Sampling, at_least, rewards_problems, sampling_problems
from strop.rewards import RewardSettings

LOOKS = 20
"""Evaluations of a stage where nothing says how often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """Samples of fixed prompts with fixed seeds, drawn as training goes on and compared with the start's.

    Attributes:
        data: the prompts; null takes eval_data, else the first of the stage's data.
        num_prompts, num_generations: how many, and answers to each; below 3 answers nothing is known of
            length within a prompt.
        every: steps between evaluations, besides those at the start and the end (0: only these); null is
            training.eval_every, or twenty evaluations in all where that is 0.
        rewards: held-out rewards, never trained on: what you really want of an answer.
        sampling: null is the stage's own, or its defaults where the stage does not sample.
        kl: measure the KL to the start, which holds a copy of it (4 bytes a parameter in fp32; nothing
            under an adapter, whose base model it is).
        on_alarm: warn and go on; stop and keep the model as it is; or roll back to the model of the best
            evaluation by the held-out rewards (by nothing held out: the last one before the alarm's).
        patience: evaluations in a row that must show a thing before it is told.
        early_stop: end and roll back after so many evaluations without a new best; 0 never.
        thresholds: where the detectors draw their lines.
    """

    data: Data | None = None
    num_prompts: int = 128
    num_generations: int = 4
    every: int | None = None
    rewards: tuple[RewardSettings, ...] = ()
    sampling: Sampling | None = None
    kl: bool = True
    on_alarm: Literal["warn", "stop", "rollback"] = "warn"
    patience: int = 2
    early_stop: int = 0
    thresholds: Thresholds = Thresholds()

    def problems(self) -> Found:
        """Counts that are too small, rewards that clash, a stop that nothing could ask for."""
        yield from at_least(self, ("num_generations", "patience"), 1)
        yield from at_least(self, ("num_prompts",), 8)
        yield from at_least(self, ("every", "early_stop"), 0)
        yield from rewards_problems(self.rewards)
        if self.early_stop and not self.rewards:
            yield ("early_stop",), "needs held-out rewards to know the best by, as monitor.rewards=[...]"
        if self.data is not None:
            yield from ((("data", *path), text) for path, text in at_least(self.data, ("limit",), 1))
        if self.sampling is not None:
            yield from ((("sampling", *path), text) for path, text in sampling_problems(self.sampling))
            if self.sampling.temperature == 0 and self.num_generations > 1:
                text = "0 is greedy: all answers to a prompt are one; set monitor.num_generations=1, or a temperature"
                yield ("sampling", "temperature"), text

    @property
    def keeps_best(self) -> bool:
        """Whether the model of the best evaluation is kept."""
        return self.on_alarm == "rollback" or self.early_stop > 0
