"""Completions of prompts, written down for later stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import Data, Found, Sampling, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleStage:
    """Several answers of a model to each prompt, as groups in samples.jsonl.

    Which answers are drawn is a function of the seed and the place of the prompt, so a stage that was
    stopped goes on with the same answers.

    Attributes:
        num_prompts: so many of the prompts, drawn by the stage's seed, so that each round of a repeat has others;
            null takes all.
        num_samples: answers a prompt.
        save_every: prompts that are sampled together and then written; a stop loses at most so many.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("samples",)
    models: ClassVar[tuple[str, ...]] = ("model",)
    datasets: ClassVar[tuple[str, ...]] = ("data",)

    kind: Literal["sample"] = "sample"
    name: str = "sample"
    model: str | None = None
    data: Data | None = None
    num_prompts: int | None = None
    num_samples: int = 8
    save_every: int = 64
    sampling: Sampling = Sampling()

    def problems(self) -> Found:
        """Counts, and several answers that could only be the same one."""
        yield from at_least(self, ("num_prompts", "num_samples", "save_every"), 1)
        if self.num_samples > 1 and self.sampling.temperature == 0:
            yield ("sampling", "temperature"), f"0 is greedy: all {self.num_samples} answers would be the same; use 1.0"
