"""Answers chosen among many by a reward: best of n, votes, step-level beams."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import Data, Found, Sampling, at_least, rewards_problems
from strop.rewards import RewardSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfN:
    """n solutions a prompt, one of them chosen.

    Attributes:
        num_samples: n.
        choose: "best", the highest score; "vote", the answer with the largest sum of scores (which must
            not be negative); "majority", the most frequent answer, for comparison. Of the solutions with
            the chosen answer the best-scored one stands first.
        answer: how votes find a solution's answer: "auto", "number", "answer_tag" or a pattern.
    """

    name: Literal["best_of_n"] = "best_of_n"
    num_samples: int = 16
    choose: Literal["best", "vote", "majority"] = "best"
    answer: str = "auto"

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise ValueError(f"num_samples must be at least 2, got {self.num_samples}: there is nothing to choose")
        try:
            re.compile(self.answer)
        except re.error as error:
            raise ValueError(f"answer: {self.answer!r} is no regular expression: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """Step-level beam search: keep the best width / expand beginnings, continue each in `expand` ways.

    Attributes:
        width: candidates a round (N). expand: continuations of each kept beginning (M).
        max_steps: rounds. step_length: tokens a step may have.
        separator: ends a step.
    """

    name: Literal["beam"] = "beam"
    width: int = 16
    expand: int = 4
    max_steps: int = 32
    step_length: int = 128
    separator: str = "\n"

    def __post_init__(self) -> None:
        for name in ("width", "expand", "max_steps", "step_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.expand:
            raise ValueError(f"width {self.width} must be a multiple of expand {self.expand}: width / expand are kept")
        if not self.separator:
            raise ValueError("separator is empty, so nothing ends a step; name the text behind each step")


Method = BestOfN | Beam


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchStage:
    """Answers of a model chosen among many by rewards, and what the choice is worth.

    A reward of weight 0 chooses nothing. The first such one is the truth that the figures are of: how
    often the chosen answer is right, beside the majority's and, where there is one, a right one's.

    Attributes: save_every: prompts that are worked through together and then written.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("samples",)
    models: ClassVar[tuple[str, ...]] = ("model",)
    datasets: ClassVar[tuple[str, ...]] = ("data",)

    kind: Literal["search"] = "search"
    name: str = "search"
    model: str | None = None
    data: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    method: Method = BestOfN()
    save_every: int = 64
    sampling: Sampling = Sampling()

    def problems(self) -> Found:
        """Counts, rewards that choose, and samples that could only be the same one."""
        yield from at_least(self, ("save_every",), 1)
        if self.sampling.temperature == 0:
            yield ("sampling", "temperature"), "0 is greedy: there would be nothing to choose from; use 1.0"
        if isinstance(self.method, Beam) and self.sampling.stop:
            yield ("sampling", "stop"), "a beam's steps end with method.separator; leave stop out"
        yield from rewards_problems(self.rewards, needed="a stage of kind search")
