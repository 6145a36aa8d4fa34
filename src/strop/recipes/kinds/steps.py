"""Step labels from sampled continuations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import Data, Found, Sampling, at_least, rewards_problems, separator_problems
from strop.rewards import RewardSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsStage:
    """Solutions cut in steps, each labelled by how often the model gets to a right outcome from there.

    The rewards judge outcomes (a verifier); a stage of kind process takes what this one leaves.

    Attributes:
        solutions: "sampled" from the model, or "given" in the rows.
        num_samples: solutions a prompt, where they are sampled.
        num_continuations: continuations from the end of each step but the last.
        separator: ends a step.
        labels: "soft", the share of continuations that come out right, or "hard", whether one does.
        right_above: a score above this is right.
        save_every: prompts that are worked through together and then written; they share a stream of
            random numbers, so another number gives other continuations.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("samples",)
    models: ClassVar[tuple[str, ...]] = ("model",)
    datasets: ClassVar[tuple[str, ...]] = ("data",)

    kind: Literal["steps"] = "steps"
    name: str = "steps"
    model: str | None = None
    data: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    solutions: Literal["sampled", "given"] = "sampled"
    num_samples: int = 4
    num_continuations: int = 8
    separator: str = "\n"
    labels: Literal["soft", "hard"] = "soft"
    right_above: float = 0.5
    save_every: int = 32
    sampling: Sampling = Sampling()

    def problems(self) -> Found:
        """Counts, rewards, and continuations that could only be the same one."""
        yield from at_least(self, ("num_samples", "num_continuations", "save_every"), 1)
        yield from separator_problems(self.separator)
        if self.num_continuations > 1 and self.sampling.temperature == 0:
            text = f"0 is greedy: all {self.num_continuations} continuations would be the same; use 1.0"
            yield ("sampling", "temperature"), text
        yield from rewards_problems(self.rewards, needed="a stage of kind steps")
