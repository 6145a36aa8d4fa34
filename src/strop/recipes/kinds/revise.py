"""Answers criticised and revised by the principles of a constitution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.judges import BackendSettings
from strop.recipes.parts import Data, Found, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviseStage:
    """Given or sampled answers, revised `depth` times by drawn principles: rows to fine-tune on, without the criticism.

    Leaves the chosen depth in samples.jsonl, each depth for itself in depth-1.jsonl, depth-2.jsonl, ..., and every
    step with its principle and its criticism in revisions.jsonl.

    Attributes:
        model: criticises and revises where no critic is named: the model that answered.
        constitution: the name of one that comes with the package, or a YAML file.
        critic: who is asked in the model's place.
        depth: revisions of each answer.
        keep: the depth that samples.jsonl has; null is the last.
        critique: ask for criticism before each revision; false asks for the revision at once.
        temperature, max_tokens: of the critic's replies.
        refusals: what becomes of revisions that refuse: "keep" them, "drop" them, or "drop_benign" those of prompts
            that the column `benign` says are harmless.
        save_every: prompts that are revised together and then written; a stop loses at most so many.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (1, None)
    leaves: ClassVar[tuple[str, ...]] = ("samples",)
    datasets: ClassVar[tuple[str, ...]] = ("data",)

    kind: Literal["revise"] = "revise"
    name: str = "revise"
    model: str | None = None
    data: Data | None = None
    constitution: str = "assistant"
    critic: BackendSettings | None = None
    depth: int = 1
    keep: int | None = None
    critique: bool = True
    temperature: float = 1.0
    max_tokens: int = 512
    refusals: Literal["keep", "drop", "drop_benign"] = "drop_benign"
    benign: str = "benign"
    save_every: int = 64

    @property
    def models(self) -> tuple[str, ...]:
        """The stage's own model is asked only where no critic is named."""
        return ("model",) if self.critic is None else ()

    def problems(self) -> Found:
        """Counts, a depth that is not reached, and a model beside a critic."""
        yield from at_least(self, ("depth", "keep", "max_tokens", "save_every"), 1)
        yield from at_least(self, ("temperature",), 0)
        if self.keep is not None and self.keep > self.depth:
            yield ("keep",), f"must be at most depth={self.depth}, got {self.keep}"
        if self.critic is not None and self.model is not None:
            yield ("model",), "nothing asks it: the critic criticises and revises; leave one of the two out"
