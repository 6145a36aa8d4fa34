"""The model that evaluated best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.parts import Found, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class BestStage:
    """The model of the best of several evaluations, by one of their figures; of equals the earliest.

    In a repeat it can end the rounds: once `patience` rounds in a row did not have the best, the stages of
    the rounds to come are skipped, and behind them the best of what there is goes on.

    Attributes:
        among: the evaluations: `@eval-dpo`, or a pattern as `@eval*` of all that stand before. Each entry
            is a round; in a repeat they are sorted by its rounds.
        metric: the figure, as summary.json has it: a reward's label, `pass@4`, `eval_loss`; null is the first
            reward of the evaluations that has a weight.
        better: whether the higher or the lower value is the better one.
        min_gain: by how much more than this a later round must be better to count as the best; 0 also takes
            what is no more than chance.
        patience: rounds; null goes through all of them.
        skips: the stages that are then skipped; in a repeat those of the rounds to come.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ()
    datasets: ClassVar[tuple[str, ...]] = ()

    kind: Literal["best"] = "best"
    name: str = "best"
    among: tuple[tuple[str, ...], ...] = (("@eval*",),)
    metric: str | None = None
    better: Literal["higher", "lower"] = "higher"
    min_gain: float = 0.0
    patience: int | None = None
    skips: tuple[str, ...] = ()

    def problems(self) -> Found:
        """Nothing to compare, or by nothing; patience that would end nothing."""
        yield from at_least(self, ("patience",), 1)
        yield from at_least(self, ("min_gain",), 0)
        if not any(self.among):
            yield ("among",), "is empty; name evaluations, as among=@eval*"
        elif self.metric is None:
            why = "is missing, and no evaluation has a reward that counts"
            yield ("metric",), f"{why}; name one of their figures, as metric=eval_loss"
        for place, text in ((i, t) for i, group in enumerate(self.among) for t in group if not t.startswith("@")):
            yield ("among", place), f"{text}: no name of an evaluation; as @{text}"
        if self.skips and self.patience is None:
            yield ("skips",), "nothing is skipped without patience; set patience=1"
