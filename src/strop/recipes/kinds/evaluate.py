"""Evaluation on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import Data, Found, Sampling, at_least, rewards_problems
from strop.rewards import RewardSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateStage:
    """Samples on held-out prompts, scored by rewards; every figure with n and an interval.

    Without rewards nothing is sampled: on pairs and rankings it is measured how often the better side
    is the likelier (against a baseline: became so), on texts and prompts with answers the loss.

    Attributes:
        num_samples: completions a prompt; more than one also gives pass@k and maj@k.
        baseline: a model to compare with on the same prompts, paired.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("samples",)
    models: ClassVar[tuple[str, ...]] = ("model", "baseline")
    datasets: ClassVar[tuple[str, ...]] = ("data",)

    kind: Literal["evaluate"] = "evaluate"
    name: str = "evaluate"
    model: str | None = None
    baseline: str | None = None
    data: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    num_samples: int = 1
    sampling: Sampling = Sampling(temperature=0.0)

    def problems(self) -> Found:
        """Sampling that nothing would score."""
        yield from at_least(self, ("num_samples",), 1)
        if not self.rewards and (self.num_samples, self.sampling) != (1, EvaluateStage().sampling):
            key = "num_samples" if self.num_samples != 1 else "sampling"
            yield (key,), "without rewards nothing is sampled: the rows' own answers are evaluated; give rewards"
        yield from rewards_problems(self.rewards)
