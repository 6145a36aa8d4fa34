"""What fits where, and what to change first where it does not.

`strop run` is one process on one card and keeps every model whole there, so that more cards make nothing smaller.
Beside that stands what engines that cut states into shards (ZeRO-3, Rajbhandari et al. 2020, arXiv:1910.02054)
would need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from strop.model.adapter import LoRA
from strop.recipes.planning.place import GIB
from strop.recipes.settings import OnPolicyStage, Stage, TrainingStage

STATES = ("weights", "gradients", "optimizer", "reference", "critic", "monitor's copy", "sampler's copy")
"""What is cut into shards; everything else stands on each card whole."""

Parts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Cards:
    """Some equal GPUs."""

    gib: float
    num: int = 1

    @staticmethod
    def of(text: str) -> Cards:
        """`80`, or `4x24` for four of 24.

        Raises: ValueError for anything else.
        """
        num, times, gib = text.lower().removesuffix("gb").rpartition("x")
        try:
            found = Cards(float(gib), int(num if times else 1))
        except ValueError:
            found = Cards(0, 0)
        if not (0 < found.gib < 1e4 and found.num > 0):
            raise ValueError(f"--gpu {text}: give GB of a card, as 24, or several cards, as 4x24")
        return found

    def __str__(self) -> str:
        return f"{self.gib:g} GB" if self.num == 1 else f"{self.num} x {self.gib:g} GB"


USUAL = (Cards(24), Cards(80), Cards(80, 8))
"""Cards that are told about where none are named."""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that makes a stage smaller, and the stage with it."""

    setting: str
    stage: Stage
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a stage fits on some cards.

    Attributes:
        needed: bytes on each card, as `strop run` works. sharded: the same with states cut over the cards.
        changes: settings, in order, after which it fits; empty where it does, or nothing helps.
    """

    cards: Cards
    needed: float
    sharded: float
    changes: tuple[str, ...]
    after: float

    @property
    def fits(self) -> bool:
        """As it is."""
        return self.needed <= self.cards.gib * GIB

    @property
    def would_fit(self) -> bool:
        """With the changes."""
        return self.after <= self.cards.gib * GIB


def sharded(parts: Parts, num: int) -> float:
    """Bytes a card where states are cut over so many."""
    return sum(size / num if name in STATES or name.startswith("rewards") else size for name, size in parts.items())


def judge(stage: Stage, phases_of: Callable[[Stage], Sequence[Parts]], cards: Cards) -> Verdict:
    """Try the changes one after another until the stage fits, each on top of those that helped.

    A change helps that takes from what the phases have too much, all together: of two phases that are equally full
    no single one may help the fullest.

    Args: phases_of: what a stage holds in each of its phases, bytes by what it is for.
    """
    phases = phases_of(stage)
    needed, shards = _fullest(phases), max(sharded(parts, cards.num) for parts in phases)
    made: list[str] = []
    while (over := _over(phases, cards)) > 0:
        for change in changes(stage):
            smaller = phases_of(change.stage)
            if _over(smaller, cards) < 0.97 * over:
                stage, phases = change.stage, smaller
                key = change.setting.partition("=")[0]
                made = [m for m in made if m.partition("=")[0] != key] + [change.setting]
                break
        else:
            break
    return Verdict(cards, needed, shards, tuple(made), _fullest(phases))


def _fullest(phases: Sequence[Parts]) -> float:
    return max(sum(parts.values()) for parts in phases)


def _over(phases: Sequence[Parts], cards: Cards) -> float:
    """Bytes that the phases hold above a card's memory, all together."""
    return sum(max(0.0, sum(parts.values()) - cards.gib * GIB) for parts in phases)


def changes(stage: Stage) -> Iterator[Change]:
    """Smaller settings, those first that change no result."""
    if not isinstance(stage, TrainingStage):
        sampling = getattr(stage, "sampling", None)
        if sampling is not None and (sampling.rows or 256) > 8:
            yield _set(stage, "sampling", rows=(sampling.rows or 256) // 2, why="fewer answers side by side")
        return
    training = stage.training
    if training.micro_batch_tokens is None or training.micro_batch_tokens > 2 * training.max_length:
        fewer = max(training.max_length, (training.micro_batch_tokens or 16384) // 2)
        if fewer < (training.micro_batch_tokens or 16384):
            yield _set(stage, "training", micro_batch_tokens=fewer, why="the same result, slower")
    if not training.gradient_checkpointing:
        yield _set(stage, "training", gradient_checkpointing=True, why="the same result, a third slower")
    if isinstance(stage, OnPolicyStage):
        rows = min(stage.sampling.rows or 256, training.batch_size * stage.num_generations)
        if rows > 8:
            yield _set(stage, "sampling", rows=rows // 2, why="the same result, slower")
    if stage.adapter is None:
        yield Change("adapter.r=16", replace(stage, adapter=LoRA()), "trains thin matrices only")
    elif stage.adapter.quantize is None:
        small = replace(stage.adapter, quantize="nf4", use_dora=False)
        yield Change("adapter.quantize=nf4", replace(stage, adapter=small), "frozen weights in 4 bits")
    least = 2 * stage.sampling.max_completion_length if isinstance(stage, OnPolicyStage) else 256
    if training.max_length // 2 >= max(least, 256):  # room for a prompt
        yield _set(stage, "training", max_length=training.max_length // 2, why="longer rows are cut")


def _set(stage: Any, block: str, *, why: str, **values: Any) -> Change:
    (key, value), *_ = values.items()
    shown = str(value).lower() if isinstance(value, bool) else value
    return Change(f"{block}.{key}={shown}", replace(stage, **{block: replace(getattr(stage, block), **values)}), why)
