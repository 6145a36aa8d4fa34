"""Evaluation on held-out rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import Data, Found, Sampling, at_least, rewards_problems
from strop.rewards import RewardSettings, label_of
from strop.rollout.labellers import Judge, Scores
from strop.rollout.rules import Rules

Comparing = Rules | Scores | Judge
"""Who can say which of two answers is better while a run goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """Tasks of EleutherAI's lm-evaluation-harness (the extra `lm-eval`).

    Attributes:
        names: of tasks or groups of tasks, as it lists them.
        folder: with task files of one's own (YAML), read beside its own.
        num_fewshot: examples before each question; null is what each task says.
        limit: questions a task, the first ones; null is all.
        chat: write prompts by the model's chat template.
        max_completion_length: of answers where a task sets no limit itself.
    """

    names: tuple[str, ...] = ()
    folder: str | None = None
    num_fewshot: int | None = None
    limit: int | None = None
    chat: bool = False
    max_completion_length: int = 256

    def problems(self) -> Found:
        """No task, or numbers that are too small."""
        if not self.names:
            yield ("names",), "is empty; name tasks, as tasks.names=[arc_easy,gsm8k]"
        yield from at_least(self, ("num_fewshot",), 0)
        yield from at_least(self, ("limit", "max_completion_length"), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateStage:
    """Samples on held-out prompts, scored by rewards; every figure with n and an interval.

    Without rewards, labeller and reference nothing is sampled, and the rows' own answers are evaluated: on pairs and
    rankings how often the better side is the likelier (against a baseline: became so), on texts and prompts with
    answers the loss. A reward model is asked how often it scores the better side higher, and how honest it is.

    Attributes:
        num_samples: completions a prompt; more than one also gives pass@k and maj@k.
        baseline: a model to compare with on the same prompts, paired.
        against: in its place, answers of another model to the same prompts, paired: an earlier evaluation, as
            `@eval-start`, or a file of answers. Those without this stage's rewards are scored here.
        reference: a model that the KL of the sampled answers is taken to.
        labeller: who says which answer is better, ours or the baseline's: a judge in both orders, rules, or scores
            (the rewards' sum). Our first answer meets their first, and so on.
        trained_on: rows that the model saw before this recipe; prompts that stand in them, or in what the recipe's
            own stages trained it on, are counted in the account of the data.
        answer: how maj@k finds an answer: "auto", "number", "answer_tag" or a pattern; null is as each reward does.
        by: a column of the rows, for whose values the rewards are told as well.
        tasks: tasks of lm-evaluation-harness, beside data or in its place.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("samples",)
    models: ClassVar[tuple[str, ...]] = ("model", "baseline", "reference")
    datasets: ClassVar[tuple[str, ...]] = ("data", "against", "trained_on")

    kind: Literal["evaluate"] = "evaluate"
    name: str = "evaluate"
    model: str | None = None
    baseline: str | None = None
    reference: str | None = None
    data: Data | None = None
    against: Data | None = None
    trained_on: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    labeller: Comparing | None = None
    num_samples: int = 1
    answer: str | None = None
    by: str | None = None
    tasks: Tasks | None = None
    sampling: Sampling = Sampling(temperature=0.0)

    @property
    def asks(self) -> bool:
        """Whether there is something to evaluate on: rows, or tasks."""
        return self.data is not None or self.tasks is not None

    @property
    def samples(self) -> bool:
        """Whether answers are drawn, and not the rows' own looked at."""
        return bool(self.rewards) or self.labeller is not None or self.reference is not None

    def problems(self) -> Found:
        """Settings that nothing would read, and samples that would all be the same."""
        yield from at_least(self, ("num_samples",), 1)
        if self.against is not None and self.baseline is not None:
            text = "stands in the place of baseline, whose answers are drawn anew; leave one of the two out"
            yield ("against",), text
        if self.tasks is not None:
            yield from (((("tasks", *path)), text) for path, text in self.tasks.problems())
        yield from self._sampling_problems() if self.samples else self._unread(_OF_SAMPLES)
        if self.data is None and self.tasks is not None:
            yield from self._unread(("rewards", "labeller", "trained_on", "by"))
        if self.labeller is not None:
            yield from self._labeller_problems()
        yield from rewards_problems(self.rewards)

    def _sampling_problems(self) -> Found:
        greedy = self.sampling.temperature == 0
        truncated = self.sampling.top_k is not None or self.sampling.top_p is not None
        if greedy and self.num_samples > 1:
            yield ("num_samples",), "all samples of a prompt would be the same; set sampling.temperature, as 0.7"
        if self.reference is not None and (greedy or truncated):
            text = "the KL is one of answers drawn from the whole distribution; set sampling.temperature=1"
            yield ("reference",), f"{text}, without top_k and top_p"
        if self.answer is not None:
            try:
                re.compile(self.answer)
            except re.error as error:
                yield ("answer",), f"{self.answer!r} is no regular expression: {error}"
            if self.num_samples == 1:
                yield ("answer",), "is for maj@k, which takes several samples; set num_samples"

    def _labeller_problems(self) -> Found:
        assert self.labeller is not None
        if self.baseline is None and self.against is None:
            yield ("labeller",), "has nothing to compare with; name baseline=MODEL, or against=ANSWERS"
        if self.labeller.name in (label_of(reward) for reward in self.rewards):
            yield ("labeller",), f"a reward is logged as {self.labeller.name!r} too; give the reward a label of its own"
        if isinstance(self.labeller, Scores) and not self.rewards:
            yield ("labeller",), "there are no scores to compare; give rewards"
        if isinstance(self.labeller, Scores) and self.labeller.temperature == "fitted":
            yield ("labeller", "temperature"), "'fitted' is for labelling pairs; a win needs none: leave it out"

    def _unread(self, keys: Sequence[str]) -> Found:
        """Settings that are set and that nothing reads, as nothing is sampled or there are no rows."""
        plain = EvaluateStage()
        for key in keys:
            if getattr(self, key) != getattr(plain, key):
                why = "there are no rows to ask about; give data" if self.data is None else _NOT_SAMPLED
                yield (key,), why


_OF_SAMPLES = ("num_samples", "sampling", "answer")
_NOT_SAMPLED = "without rewards nothing is sampled: the rows' own answers are evaluated; give rewards"
