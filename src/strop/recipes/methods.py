"""The built-in methods side by side: what each takes, holds, samples and costs, read from what the stages declare.

No table is kept by hand: a new recipe is a new row. Costs are forward-equivalent FLOPs a parameter and token of a
row (a text, a pair, a prompt with its samples): 2 for a forward pass or a decoding step, 6 for a forward and a
backward pass. Rewards that are models come on top, 2 for each sample they score. No torch.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from strop.recipes.config import resolve
from strop.recipes.kinds.ppo import SHARED
from strop.recipes.kinds.search import BestOfN
from strop.recipes.settings import (
    OnlineStage,
    OnPolicyStage,
    PPOStage,
    ProcessStage,
    Recipe,
    RefreshStage,
    RewardStage,
    RLStage,
    SampleStage,
    SearchStage,
    Stage,
    StepsStage,
    TrainingStage,
    UnpairedStage,
)
from strop.recipes.sources import builtin_names, source_of

FORWARD, TRAINING = 2.0, 6.0
"""FLOPs a parameter and token: a forward pass, and one with its backward pass (arXiv:2001.08361)."""
PAPER = re.compile(r"^# Paper: (.+)$", re.MULTILINE)
"""How a recipe's file names where its method comes from."""
WIDTH = 100


@dataclass(frozen=True, slots=True)
class Method:
    """A built-in recipe as a row of the table.

    Attributes:
        kinds: its stages'. takes: kinds of rows; `prompts` where it samples its own answers.
        trained, frozen: models held while it trains, by what they are for.
        cached: models that are asked once before step 0, and not held.
        samples: answers drawn for each prompt, 0 for none. rewards: whether it asks for rewards.
        cost: FLOPs a parameter and token of a row; None where it depends on the answers.
    """

    name: str
    kinds: tuple[str, ...]
    takes: tuple[str, ...]
    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    cached: tuple[str, ...]
    samples: int
    rewards: bool
    cost: float | None
    description: str
    paper: str

    @property
    def relative(self) -> float | None:
        """The cost of a row, that of fine-tuning on one answer being 1."""
        return None if self.cost is None else self.cost / TRAINING

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "relative": self.relative}


@cache
def methods() -> tuple[Method, ...]:
    """Every built-in recipe that leaves the model to the user, in the order of the stage kinds, then by name."""
    found = [(recipe, name) for name in builtin_names() if (recipe := resolve(name)).model is None]
    order = [c.__name__ for c in Stage.__args__]
    found.sort(key=lambda pair: (len(pair[0].stages) > 1, order.index(type(pair[0].stages[-1]).__name__), pair[1]))
    return tuple(method_of(recipe, name) for recipe, name in found)


def method_of(recipe: Recipe, name: str) -> Method:
    """The row of a recipe; of several stages it is their sum."""
    stages = recipe.stages
    paper = PAPER.search(source_of(name)[1])
    costs = [cost_of(stage) for stage in stages]
    return Method(
        name=name,
        kinds=tuple(stage.kind for stage in stages),
        takes=takes_of(stages[0]),
        trained=_together(trained_of(stage) for stage in stages),
        frozen=_together(frozen_of(s) for s in [s for s in stages if isinstance(s, TrainingStage)] or stages),
        cached=_together(("reference",) if asks_before(stage) else () for stage in stages),
        samples=max(samples_of(stage) for stage in stages),
        rewards=any(("rewards",) in [path for path, _ in stage.problems()] for stage in stages),
        cost=None if None in costs else sum(cost for cost in costs if cost is not None),
        description=recipe.description,
        paper=paper[1].strip() if paper else "",
    )


# One stage.


def takes_of(stage: Stage) -> tuple[str, ...]:
    """Kinds of rows; groups that other stages leave go without saying."""
    if samples_of(stage):
        return ("prompts",)
    if not stage.datasets:
        return ("models",)
    return tuple(kind for kind in stage.takes if kind != "groups") or ("answers",)


def samples_of(stage: Stage) -> int:
    """Answers drawn for each prompt."""
    if isinstance(stage, OnPolicyStage):
        return stage.num_generations
    if isinstance(stage, SearchStage):
        return stage.method.num_samples if isinstance(stage.method, BestOfN) else stage.method.width
    return stage.num_samples if isinstance(stage, SampleStage | StepsStage | RefreshStage) else 0


def trained_of(stage: Stage) -> tuple[str, ...]:
    """Models that learn."""
    if isinstance(stage, RefreshStage):
        return ("reward model",)
    if not isinstance(stage, TrainingStage):
        return ()
    if isinstance(stage, RewardStage | ProcessStage):
        return ("reward model",)
    return ("policy", "critic") if isinstance(stage, PPOStage) and stage.critic != SHARED else ("policy",)


def frozen_of(stage: Stage) -> tuple[str, ...]:
    """Models held beside them; a refresh lets its policy go before the reward model is loaded."""
    if isinstance(stage, RefreshStage):
        return ()
    if isinstance(stage, TrainingStage):
        return ("reference",) if holds_reference(stage) else ()
    return ("model",) if "model" in stage.models else ()


def holds_reference(stage: TrainingStage) -> bool:
    """Whether a reference is in memory while the stage trains: where what it is asked about is sampled anew."""
    if isinstance(stage, PPOStage):
        return stage.kl.coefficient > 0
    if isinstance(stage, RLStage):
        return stage.wants_reference
    return isinstance(stage, OnlineStage) and "ref_logprobs" in stage.objective.needs


def asks_before(stage: Stage) -> bool:
    """Whether a reference is asked once before step 0: rows that stand in a file."""
    return (
        isinstance(stage, TrainingStage)
        and not isinstance(stage, OnPolicyStage)
        and "ref_logprobs" in stage.objective.needs
    )


def cost_of(stage: Stage) -> float | None:
    """FLOPs a parameter and token of a row; None where the number of steps in an answer decides."""
    if isinstance(stage, StepsStage):
        return None
    decoding = FORWARD * samples_of(stage)
    if isinstance(stage, RefreshStage):  # a pair of each prompt, and old pairs beside it
        return decoding + TRAINING * 2 / (1 - stage.old_share)
    if not isinstance(stage, TrainingStage):
        return decoding
    trained = _trained_answers(stage)
    reference = FORWARD * trained if holds_reference(stage) or asks_before(stage) else 0.0
    passes = stage.passes if isinstance(stage, RLStage | PPOStage) else 1
    cost = decoding + reference + TRAINING * trained * passes
    if isinstance(stage, PPOStage):  # its values before the update, and the critic's own updates
        cost += FORWARD * trained + (TRAINING * trained * passes if stage.critic != SHARED else 0.0)
    if isinstance(stage, UnpairedStage):  # another prompt's answer, by policy and reference, for the baseline
        cost += 2 * FORWARD
    if isinstance(stage, RLStage) and stage.correction is not None:
        cost += FORWARD * trained
    return cost


def _trained_answers(stage: TrainingStage) -> int:
    """Answers of a row that are trained on; of a ranking at least two."""
    if isinstance(stage, OnlineStage):
        return 2
    return stage.num_generations if isinstance(stage, RLStage | PPOStage) else max(1, stage.answers[0])


def _together(parts: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in parts for name in part))


# As text.

NOTES = (
    "trains: models that learn. holds: models beside them; one in brackets is asked once, before the first step.",
    "samples: answers drawn for each prompt.",
    "compute: FLOPs a row and token, fine-tuning on one answer = 1; a row is an answer, a pair, or a prompt with its"
    " samples. Rewards that are models come on top, a third for each sample they score.",
)


def as_text(found: Sequence[Method], width: int = WIDTH) -> str:
    """A line of figures for each method, and one of words."""
    heads = ("method", "trains", "holds", "samples", "compute", "takes")
    rows = [heads, *(_cells(method) for method in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = [_line(heads, widths)]
    for row, method in zip(rows[1:], found, strict=True):
        lines.append(_line(row, widths))
        words = method.description + (f" ({method.paper})" if method.paper else "")
        lines += textwrap.wrap(words, width, initial_indent="    ", subsequent_indent="    ")
    notes = [line for note in NOTES for line in textwrap.wrap(note, width)]
    return "\n".join([*lines, "", *notes]) + "\n"


def _cells(method: Method) -> tuple[str, ...]:
    asked = [f"({name})" for name in method.cached if name not in method.frozen]  # of another stage of the recipe
    holds = ", ".join([*method.frozen, *asked])
    compute = "?" if method.relative is None else f"{method.relative:.1f}"
    trains, samples = str(len(method.trained) or "-"), str(method.samples or "-")
    return method.name, trains, holds or "-", samples, compute, ", ".join(method.takes)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{w}}" for cell, w in zip(cells, widths, strict=True)).rstrip()


def by_name() -> Mapping[str, Method]:
    """The methods by their recipes' names."""
    return {method.name: method for method in methods()}
