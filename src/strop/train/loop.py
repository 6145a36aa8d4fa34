"""The loop: collect, annotate, pack, update. The stage logs, evaluates and saves: no callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from strop.data.encoded import EncodedGroup
from strop.data.pack import pack
from strop.data.source import Collected, Source
from strop.train.learner import Learner

Annotate = Callable[[Sequence[EncodedGroup]], Sequence[EncodedGroup]]


@dataclass(frozen=True, slots=True)
class Passes:
    """How often and in how many parts a step's groups are trained on."""

    passes: int = 1
    minibatches: int = 1
    seed: int = 0

    def __call__(self, step: int, groups: Sequence[EncodedGroup]) -> Iterator[list[EncodedGroup]]:
        """The parts in order, reshuffled each pass by (seed, step, pass); whole groups, near-equal parts."""
        for number in range(self.passes):
            order = list(range(len(groups)))
            if self.minibatches > 1:
                order = np.random.default_rng([self.seed, step, number]).permutation(len(groups)).tolist()
            for part in range(self.minibatches):
                chosen = sorted(order[part :: self.minibatches])
                if chosen:
                    yield [groups[i] for i in chosen]

    @property
    def updates(self) -> int:
        """Optimizer steps a collected batch gives, at most."""
        return self.passes * self.minibatches


@dataclass(frozen=True, slots=True)
class Packing:
    """How groups become micro-batches."""

    max_tokens: int
    device: str
    splittable: bool


@dataclass(frozen=True, slots=True)
class Update:
    """What one step of the loop did. `first` are the metrics of its first optimizer step."""

    step: int
    metrics: dict[str, float]
    first: dict[str, float]
    collected: Collected
    num_tokens: int
    seconds: dict[str, float]


def train(
    learner: Learner,
    source: Source,
    *,
    steps: int,
    start: int = 0,
    annotate: Annotate,
    packing: Packing,
    passes: Passes,
) -> Iterator[Update]:
    """Steps start .. steps - 1, yielding after each; a resumed run passes the step it stopped at."""
    for step in range(start, steps):
        collected = source(step)
        began = time.perf_counter()
        groups = annotate(collected.groups)
        annotated = time.perf_counter()
        results: list[dict[str, float]] = []
        num_tokens = 0
        for part in passes(step, groups):
            packed = pack(part, max_tokens=packing.max_tokens, device=packing.device, splittable=packing.splittable)
            results.append(learner.update(packed))
            num_tokens += sum(len(g.prompt_ids) * len(g.sequences) + sum(len(s.ids) for s in g.sequences) for g in part)
        seconds = {**collected.seconds, "annotating": annotated - began, "training": time.perf_counter() - annotated}
        metrics = {**means(results), **collected.metrics}
        yield Update(step, metrics, results[0] if results else {}, collected, num_tokens, seconds)


def means(results: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each metric's mean over a step's optimizer steps."""
    names = dict.fromkeys(name for result in results for name in result)
    return {name: float(np.mean([r[name] for r in results if name in r])) for name in names}
