"""How often a scorer is right where it is so and so sure: the points of a reliability diagram.

A comparison's confidence is that of the side the scorer takes, max(p, 1 - p) with p = sigmoid(Delta / T);
it is right where the label says that side, one half where Delta = 0. A point above the diagonal is a
scorer that is right more often than it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from strop.evaluate.statistics import wilson
from strop.train.metrics import write_json

NUM_POINTS = 10
FEWEST = 8
"""Comparisons in a bin; fewer bins are made where there are too few for ten."""
FILE = "calibration.json"
"""Beside the model of a stage, for the report."""


@dataclass(frozen=True, slots=True)
class Point:
    """Comparisons of like confidence; the interval is Wilson's, which takes them as independent."""

    confidence: float
    right: float
    low: float | None
    high: float | None
    n: int


def reliability(delta: npt.ArrayLike, label: npt.ArrayLike, temperature: float = 1.0) -> tuple[Point, ...]:
    """Confidence against the share that is right, in at most ten bins of equal mass; DeGroot & Fienberg 1983.

    Args: delta: scores of the first less those of the second, [n]; of steps, their logits. label: P(the first is
        better), [n]; of steps, P(right).
    """
    d, q = np.asarray(delta, np.float64) / temperature, np.asarray(label, np.float64)
    num_bins = min(NUM_POINTS, len(d) // FEWEST) or min(1, len(d))
    confidence = 1 / (1 + np.exp(-np.abs(d)))
    right = np.where(d > 0, q, np.where(d < 0, 1 - q, 0.5))
    order = np.argsort(confidence, kind="stable")
    return tuple(_point(confidence[part], right[part]) for part in np.array_split(order, num_bins)) if num_bins else ()


def _point(confidence: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> Point:
    share = wilson(float(right.sum()), len(right))
    return Point(float(confidence.mean()), share.value, share.low, share.high, len(right))


def write_reliability(folder: Path, curves: Mapping[str, Sequence[Point]]) -> None:
    """Leave the curves in a stage's folder, by name."""
    write_json(folder / FILE, {"curves": {name: [asdict(p) for p in points] for name, points in curves.items()}})
