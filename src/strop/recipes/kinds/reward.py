"""A reward model from comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.model.adapter import LoRA
from strop.objectives import AllPairs, BradleyTerry, PlackettLuce
from strop.recipes.parts import PAIRS, Data, Found, Optimizer, Schedule, Training, at_least
from strop.train.optim import AdamW, Linear

RewardObjective = BradleyTerry | AllPairs | PlackettLuce


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardStage:
    """A reward model, saved as transformers' sequence classifier, from pairs or rankings, best first.

    Rows may have a column `margin` (how much better) or `probability` (that the first is better), which
    objectives read that ask for it.

    Attributes:
        normalize: answers to score once training is over, several a prompt, best of the policy that will be
            trained against the model; their mean, deviation and length slope go into reward.json. Null
            takes the held-out comparisons.
        head: where the score's layer starts, normal (variance 1/(d + 1)) or zero.
        head_seed: what a normal head is drawn from; null is the stage's own seed, so that members of an ensemble
            differ. Models whose weights will be averaged need the same.
        balance_length: repeat pairs of the rarer kind until as often the longer answer is the better one as
            the shorter.
    """

    takes: ClassVar[tuple[str, ...]] = (*PAIRS, "groups")
    answers: ClassVar[tuple[int, int | None]] = (2, None)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ("model",)
    datasets: ClassVar[tuple[str, ...]] = ("data", "eval_data", "normalize")

    kind: Literal["reward"] = "reward"
    name: str = "reward"
    model: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    normalize: Data | None = None
    head: Literal["normal", "zero"] = "normal"
    head_seed: int | None = None
    balance_length: bool = False
    adapter: LoRA | None = None
    objective: RewardObjective = BradleyTerry()
    optimizer: Optimizer = AdamW(lr=1e-5)
    schedule: Schedule = Linear(warmup=0.03)
    training: Training = Training(batch_size=64, eval_fraction=0.05)

    def problems(self) -> Found:
        """A balance where there are no pairs, a negative seed."""
        yield from at_least(self, ("head_seed",), 0)
        if self.balance_length and self.objective.name != "bradley_terry":
            yield ("balance_length",), f"is for pairs; {self.objective.name} takes rankings"
