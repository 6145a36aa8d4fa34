"""Preference data from answers that are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import Data, Found, at_least, rewards_problems
from strop.rewards import RewardModel, RewardSettings
from strop.rollout.couples import Adjacent, BestWorst, Pairing, Random
from strop.rollout.labellers import Judge, Labeller, Scores
from strop.rollout.rules import HigherScore, Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStage:
    """Pairs of answers, better first, with soft labels and margins, by rules, scores, a judge or people.

    Leaves pairs in samples.jsonl, whose rows have `probability` (that the first is better), `margin` and
    `labelled` (by whom, and why); and all that was said, of dropped ones too, in comparisons.jsonl.

    Attributes:
        rewards: score the answers first, for `scores`, for the rule `higher_score`, and for pairs by rank.
        labeller: who says which answer is better.
        pairs: which two of a prompt's answers are compared.
        ties: "drop", or "keep" with a probability near one half. Abstentions are dropped; all are counted.
        human: column with what people said of the row's two answers, one verdict or a list: 1 or "a", 2 or "b",
            "tie". Null takes `winner` of rows that have it, and the order of preferences and rankings.
        save_every: prompts that are labelled together and then written; a stop loses at most so many.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (2, None)
    leaves: ClassVar[tuple[str, ...]] = ("samples",)
    models: ClassVar[tuple[str, ...]] = ()
    datasets: ClassVar[tuple[str, ...]] = ("data",)

    kind: Literal["label"] = "label"
    name: str = "label"
    data: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    labeller: Labeller | None = None
    pairs: Pairing = Random()
    ties: Literal["drop", "keep"] = "drop"
    human: str | None = None
    save_every: int = 64

    def problems(self) -> Found:
        """No labeller, rewards that nothing reads, and a temperature that stands nowhere."""
        yield from at_least(self, ("save_every",), 1)
        yield from rewards_problems(self.rewards)
        if self.labeller is None:
            text = "is missing; name who labels: rules, scores, judge or people"
            yield ("labeller",), f"{text}, as labeller={{name: rules, rules: [shorter]}}"
        elif self.rewards and not self._reads_scores:
            text = f"nothing reads them: {self.labeller.name} labels pairs={self.pairs.name} without scores"
            yield ("rewards",), text
        if isinstance(self.labeller, Scores) and self.labeller.temperature == "fitted" and self.fitted is None:
            text = (
                "'fitted' is one reward model's own: give rewards=[{name: model, path: RM}] and no other, or a number"
            )
            yield ("labeller", "temperature"), text

    @property
    def _reads_scores(self) -> bool:
        by_rules = isinstance(self.labeller, Rules) and any(isinstance(r, HigherScore) for r in self.labeller.rules)
        by_rank = isinstance(self.labeller, Judge) and isinstance(self.pairs, BestWorst | Adjacent)
        return isinstance(self.labeller, Scores) or by_rules or by_rank

    @property
    def fitted(self) -> RewardModel | None:
        """The one reward model whose own temperature can be used."""
        counted = [reward for reward in self.rewards if reward.weight != 0]
        only = counted[0] if len(counted) == 1 else None
        if isinstance(only, RewardModel) and len(only.paths) == 1 and not only.length_debias and only.weight > 0:
            return only
        return None
