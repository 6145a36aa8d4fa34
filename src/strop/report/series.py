"""What a plot needs of numbers: fewer points without losing extremes, a running mean, round ticks and their words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from strop.report.text import short

Row = tuple[int, tuple[float | None, ...]]
"""A step and the value of each series there; `None` where a series has none."""


def join(series: Sequence[Sequence[tuple[int, float]]]) -> list[Row]:
    """Several series as one table by step, steps ascending."""
    columns = [dict(points) for points in series]
    steps = sorted({step for column in columns for step in column})
    return [(step, tuple(column.get(step) for column in columns)) for step in steps]


def thin(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most `limit` rows: the first, the last, and each series' lowest and highest in equal stretches.

    Whole rows are kept, so the table, the CSV and the curves show the same measured values. A
    series of few points (evaluations among the steps) keeps them all.
    """
    if len(rows) <= limit:
        return list(rows)
    num_series = len(rows[0][1])
    counts = [sum(values[i] is not None for _, values in rows) for i in range(num_series)]
    few = [i for i in range(num_series) if counts[i] <= limit // (2 * num_series)]
    kept = {0, len(rows) - 1} | {j for i in few for j, (_, values) in enumerate(rows) if values[i] is not None}
    broken = [j for j, (_, values) in enumerate(rows) if any(v is not None and not drawable(v) for v in values)]
    kept |= set(broken[: limit // 8])  # so that the gap they leave is seen
    dense = [i for i in range(num_series) if i not in few]
    num_stretches = max(1, (limit - len(kept)) // (2 * max(1, len(dense))))
    for stretch in range(num_stretches):
        span = range(stretch * len(rows) // num_stretches, (stretch + 1) * len(rows) // num_stretches)
        for column in dense:
            values = [(value, i) for i in span if (value := rows[i][1][column]) is not None and drawable(value)]
            if values:
                kept |= {min(values)[1], max(values)[1]}
    return [rows[i] for i in sorted(kept)]


def drawable(value: float) -> bool:
    """Whether a value can stand on an axis: not nan, not infinite, not beyond 1e150."""
    return abs(value) < 1e150


def window_of(values: Sequence[float]) -> int:
    """Width of the running mean that makes a curve readable: odd, and 1 for a curve that is smooth or short.

    Noise turns at two of three points, a schedule hardly ever: under one turn in ten is smooth.
    """
    changes = [b - a for a, b in pairwise(values) if b != a]
    num_turns = sum((a > 0) != (b > 0) for a, b in pairwise(changes))
    if len(values) < 48 or num_turns < 0.1 * len(values):
        return 1
    return max(5, len(values) // 24) | 1


def running_mean(points: Sequence[tuple[int, float]], window: int) -> list[tuple[int, float]]:
    """Centred mean of the drawable values.

    Towards the ends the window shrinks on both sides, so that it does not lean, but not below three
    values to a side where they exist.
    """
    found = [(step, value) for step, value in points if drawable(value)]
    sums = [0.0]
    for _, value in found:
        sums.append(sums[-1] + value)
    out = []
    for i, (step, _) in enumerate(found):
        half = min(window // 2, max(3, min(i, len(found) - 1 - i)))
        first, last = max(0, i - half), min(len(found), i + half + 1)
        out.append((step, (sums[last] - sums[first]) / (last - first)))
    return out


def domain(values: Sequence[float]) -> tuple[float, float]:
    """The range an axis shows: a little more than the values, and zero where it is near."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high == 0:
        return 0.0, 1.0
    if high - low <= max(1e-12 * max(abs(low), abs(high)), 1e-290):
        pad = abs(low) * 0.5 or 0.5
        return low - pad, high + pad
    pad = (high - low) * 0.05
    if 0 <= low <= 0.4 * high:
        return 0.0, high + pad
    if 0.4 * low <= high <= 0:
        return low - pad, 0.0
    return low - pad, high + pad


def ticks(low: float, high: float, num: int = 5) -> list[float]:
    """About `num` round numbers (1, 2, 2.5 or 5 times a power of ten) inside [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    stride = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / stride - 1e-9), math.floor(high / stride + 1e-9)
    return [round(i * stride, 12 - math.floor(math.log10(stride))) + 0.0 for i in range(first, last + 1)]


def tick_words(values: Sequence[float]) -> list[str]:
    """What stands beside the ticks of an axis: as many digits as keep neighbours apart, at most 8."""
    largest = max((abs(value) for value in values), default=0.0)
    if len(values) < 2 or largest == 0.0:
        return [short(value) for value in values]
    stride = values[1] - values[0]
    digits = 2 + math.floor(math.log10(largest) + 1e-9) - math.floor(math.log10(stride) + 1e-9)
    return [short(value, min(8, max(4, digits))) for value in values]
