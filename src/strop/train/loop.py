"""The loop: collect, annotate, pack, update. The stage logs, evaluates and saves: no callbacks."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from strop import dist
from strop.batch import Idle, Step
from strop.data.encoded import EncodedGroup
from strop.data.pack import pack
from strop.data.source import Collected, Source
from strop.train.learner import Learner
from strop.train.metrics import extreme

Annotate = Callable[[Sequence[EncodedGroup]], Sequence[EncodedGroup]]
"""Groups to the same groups with more columns; what it measures on the way stands in `Measured.metrics`."""

Groups = Sequence[EncodedGroup]


@runtime_checkable
class Measured(Protocol):
    """An annotation that also measures: numbers of its last call, logged with the step."""

    @property
    def metrics(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True)
class Passes:
    """How often and in how many parts a step's groups are trained on.

    Attributes: max_kl: leave a step's remaining parts once `policy/approxkl_avg` exceeds it; null never does.
    """

    passes: int = 1
    minibatches: int = 1
    seed: int = 0
    max_kl: float | None = None

    def __call__(self, step: int, groups: Sequence[EncodedGroup]) -> Iterator[list[EncodedGroup]]:
        """The parts in order, reshuffled each pass by (seed, step, pass); whole groups, near-equal parts.

        Always as many, so that all ranks make the same updates; a part is empty where groups are few.
        """
        for number in range(self.passes):
            order = list(range(len(groups)))
            if self.minibatches > 1:
                order = np.random.default_rng([self.seed, step, number]).permutation(len(groups)).tolist()
            for part in range(self.minibatches):
                yield [groups[i] for i in sorted(order[part :: self.minibatches])]

    @property
    def updates(self) -> int:
        """Optimizer steps a collected batch gives, at most."""
        return self.passes * self.minibatches


@dataclass(frozen=True, slots=True)
class Packing:
    """How groups become micro-batches; `read_last` where a scalar head reads the last token."""

    max_tokens: int
    device: str
    splittable: bool
    read_last: bool = False

    def __call__(self, groups: Sequence[EncodedGroup]) -> Step:
        """The groups packed, but for idle ones; a rank that has none takes part in the update with an empty step."""
        idle = counted(group for group in groups if group.idle)
        live = [group for group in groups if not group.idle]
        if not live:
            return Step((), idle=idle)
        packed = pack(
            live,
            max_tokens=self.max_tokens,
            device=self.device,
            splittable=self.splittable,
            read_last=self.read_last,
        )
        return replace(packed, idle=idle)


def counted(groups: Iterable[EncodedGroup]) -> Idle:
    """How much the groups hold."""
    rows = [[s.num_trained for s in group.sequences] for group in groups]
    return Idle(sum(map(sum, rows)), sum(map(len, rows)), len(rows), sum(row[0] for row in rows))


@dataclass(frozen=True, slots=True)
class Update:
    """What one step of the loop did.

    Attributes:
        metrics: over the whole step; see `means`.
        first: of its first optimizer step, with what was collected and measured before it; empty where
            no update was made.
    """

    step: int
    metrics: dict[str, float]
    first: dict[str, float]
    collected: Collected
    num_tokens: int
    seconds: dict[str, float]


def train(
    learners: Sequence[Learner],
    source: Source,
    *,
    steps: int,
    start: int = 0,
    annotations: Sequence[Annotate] = (),
    packing: Packing,
    passes: Passes,
) -> Iterator[Update]:
    """Steps start .. steps - 1, yielding after each; a resumed run passes the step it stopped at.

    Every learner updates on each part, in order (a critic beside a policy). A step whose source
    gives no groups makes no update, and counts.
    """
    for step in range(start, steps):
        collected = source(step)
        seconds = dict(collected.seconds)
        groups, measured = annotated(annotations, collected.groups, seconds)
        began = time.perf_counter()
        results: list[dict[str, float]] = []
        num_tokens = 0
        for part in passes(step, groups):
            if dist.sum_numbers([sum(not g.idle for g in part)])[0] == 0:
                continue
            packed = packing(part)
            results.append({k: v for ln in learners if step >= ln.begins_at for k, v in ln.update(packed).items()})
            num_tokens += sum(map(tokens_of, part))
            if passes.max_kl is not None and results[-1].get("policy/approxkl_avg", 0.0) > passes.max_kl:
                break
        seconds["training"] = time.perf_counter() - began
        before = {**collected.metrics, **measured}
        first = {**before, **results[0]} if results else {}
        yield Update(step, {**means(results), **before}, first, collected, num_tokens, seconds)


def annotated(
    annotations: Sequence[Annotate], groups: Groups, seconds: dict[str, float]
) -> tuple[Groups, dict[str, float]]:
    """The groups after every annotation, in order, and what was measured; the time goes into `seconds`.

    Idle groups are not annotated, for nothing reads their columns; they stand last.
    """
    measured: dict[str, float] = {}
    began = time.perf_counter()
    live: Groups = [group for group in groups if not group.idle]
    for annotate in annotations:
        live = annotate(live)
        if isinstance(annotate, Measured):
            measured.update(annotate.metrics)
    if annotations:
        seconds["annotating"] = time.perf_counter() - began
    return [*live, *(group for group in groups if group.idle)], measured


def tokens_of(group: EncodedGroup) -> int:
    """Tokens that a forward of one row a completion sees of a group; none of an idle one."""
    if group.idle:
        return 0
    return len(group.prompt_ids) * len(group.sequences) + sum(len(s.ids) for s in group.sequences)


def means(results: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each metric's mean over a step's optimizer steps; of those that are the largest or smallest entry, that."""
    names = dict.fromkeys(name for result in results for name in result)
    return {name: _over_updates(name, [r[name] for r in results if name in r]) for name in names}


def _over_updates(name: str, values: Sequence[float]) -> float:
    pick = extreme(name)
    return float(np.mean(values)) if pick is None else functools.reduce(pick, values)
