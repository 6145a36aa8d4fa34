"""How well a process reward model tells right steps from wrong ones, on held-out solutions.

Figures over steps count every labelled step alike; their intervals resample prompts with all their
solutions. A step is right where its label exceeds 1/2, and is called right where its logit exceeds 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from strop.evaluate.calibration import ece, nll, resampled
from strop.evaluate.statistics import Measure, measure

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """One solution as a process reward model judged it.

    Attributes:
        logits: at the ends of its steps, as many as were read.
        labels: of its steps, in [0, 1]; None where unlabelled.
    """

    logits: tuple[float, ...]
    labels: tuple[float | None, ...]


def step_measures(by_prompt: Sequence[Sequence[Judged]], *, seed: int = 0) -> dict[str, Measure]:
    """Figures of held-out solutions; n counts labelled steps, for first_error_accuracy solutions.

    Returns:
        loss: cross-entropy a step (nats), with the labels as they are.
        accuracy, f1/right, f1/wrong: over steps; the rarer class's F1 is the one to watch.
        auroc: the chance that a right step's logit exceeds a wrong one's.
        ece: expected calibration error, in 15 bins of equal mass.
        first_error_accuracy: see `first_error`.
        share_right: how many of the labels say right, what always saying so would score.
    """
    rows = [
        (z, y, number)
        for number, solutions in enumerate(by_prompt)
        for solution in solutions
        for z, y in zip(solution.logits, solution.labels, strict=False)
        if y is not None
    ]
    logit, label, prompt = np.array(rows, np.float64).reshape(-1, 3).T
    owner, right = prompt.astype(np.int64), label > 0.5
    loss, hit = nll(logit, label), ((logit > 0) == right).astype(np.float64)

    def of(statistic: Callable[[Floats], float]) -> Measure:
        found = resampled(lambda times: statistic(times[owner]), len(by_prompt), seed)
        return replace(found, n=len(rows))

    figures = {
        "loss": of(lambda w: _mean(loss, w)),
        "accuracy": of(lambda w: _mean(hit, w)),
        "f1/right": of(lambda w: f1(logit > 0, right, w)),
        "f1/wrong": of(lambda w: f1(logit <= 0, ~right, w)),
        "auroc": of(_auroc_of(logit, right)),
        "ece": of(lambda w: ece(logit, label, w)),
        "share_right": of(lambda w: _mean(right.astype(np.float64), w)),
    }
    firsts = [[first_error(solution) for solution in solutions] for solutions in by_prompt]
    if any(value is not None for value in chain.from_iterable(firsts)):
        figures["first_error_accuracy"] = measure(firsts, share=True, seed=seed)
    return figures


def first_error(solution: Judged) -> bool | None:
    """Whether the first step called wrong is the first that is wrong, or none is and none is called so.

    None where the labels do not tell: an unlabelled step stands before the first error, or no error is
    labelled and some step is not; also where that step was not read. Zheng et al. 2024 (ProcessBench),
    arXiv:2412.06559, ask the same of each solution.
    """
    wrong = next((k for k, y in enumerate(solution.labels) if y is not None and y <= 0.5), None)
    told = solution.labels if wrong is None else solution.labels[: wrong + 1]
    if any(y is None for y in told) or len(told) > len(solution.logits):
        return None
    return next((k for k, z in enumerate(solution.logits[: len(solution.labels)]) if z <= 0), None) == wrong


def f1(called: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_], weight: Floats) -> float:
    """2 TP / (2 TP + FP + FN) of a class; nan where it neither occurs nor is called."""
    hits = float(weight[called & true].sum())
    either = float(weight[called].sum() + weight[true].sum())
    return 2 * hits / either if either > 0 else math.nan


def auroc(scores: npt.ArrayLike, right: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """The chance that a right entry's score exceeds a wrong one's, ties counting a half; nan without both.

    The area under the receiver operating characteristic; Hanley & McNeil 1982, Radiology 143.
    """
    z = np.asarray(scores, np.float64)
    w = np.ones_like(z) if weight is None else np.asarray(weight, np.float64)
    return _auroc_of(z, np.asarray(right, np.bool_))(w)


def _auroc_of(z: Floats, right: npt.NDArray[np.bool_]) -> Callable[[Floats], float]:
    """`auroc` of any weights, with the sorting done once."""
    _, place = np.unique(z, return_inverse=True)
    num = int(place.max()) + 1 if len(place) else 0

    def area(weight: Floats) -> float:
        good = np.bincount(place[right], weight[right], num)
        bad = np.bincount(place[~right], weight[~right], num)
        pairs = float(good.sum() * bad.sum())
        return float((good * (bad.cumsum() - bad / 2)).sum()) / pairs if pairs > 0 else math.nan

    return area


def _mean(values: Floats, weight: Floats) -> float:
    total = float(weight.sum())
    return float((values * weight).sum()) / total if total > 0 else math.nan
