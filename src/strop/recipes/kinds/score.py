"""Rewards of given or sampled answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import Data, Found, at_least, rewards_problems
from strop.rewards import RewardSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreStage:
    """Answers with their rewards, and what the best of k of them is worth.

    Attributes: save_every: prompts that are scored together and then written.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (1, None)
    leaves: ClassVar[tuple[str, ...]] = ("samples",)
    models: ClassVar[tuple[str, ...]] = ()
    datasets: ClassVar[tuple[str, ...]] = ("data",)

    kind: Literal["score"] = "score"
    name: str = "score"
    data: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    save_every: int = 64

    def problems(self) -> Found:
        """Rewards that are missing or weigh nothing."""
        yield from at_least(self, ("save_every",), 1)
        yield from rewards_problems(self.rewards, needed="a stage of kind score")
