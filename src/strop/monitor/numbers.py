"""The statistics of the detectors: changes by prompt, ranks, slopes within prompts, many tests at once. Pure numpy.

The unit that is drawn at random is the prompt. A change is a mean of paired differences, one a
prompt; its bounds are Student's, since tests at small levels need more of a tail than ten thousand
resamples have. Figures that are shown (`evaluate.statistics`) have bootstrap intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_PROMPTS = 8
"""Fewer prompts than this show nothing."""
NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Change:
    """A mean over prompts with a lower and an upper bound, each of which errs with the chance `level`.

    Attributes: n: prompts. With too few of them the bounds are infinite.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def up(self) -> bool:
        return self.low > 0

    @property
    def down(self) -> bool:
        return self.high < 0


def change(values: npt.ArrayLike, level: float) -> Change:
    """The mean of one value a prompt (NaN: none), with Student's one-sided bounds mean -+ t sd / sqrt(n)."""
    data = np.asarray(values, np.float64)
    data = data[~np.isnan(data)]
    n = len(data)
    if n == 0:
        return Change(math.nan, -math.inf, math.inf, 0)
    mean = float(data.mean())
    if n < MIN_PROMPTS:
        return Change(mean, -math.inf, math.inf, n)
    half = t_quantile(1 - level, n - 1) * float(data.std(ddof=1)) / math.sqrt(n)
    return Change(mean, mean - half, mean + half, n)


def level_at(alpha: float, look: int) -> float:
    """The level of look number `look` (from 1): alpha / (look + 1).

    The sum over looks grows as alpha log(looks), and an alarm takes two looks in a row, so that the
    chance of a false one stays below alpha for some hundred looks (checked by simulation in the tests).
    """
    assert look >= 1, look
    return alpha / (look + 1)


def t_quantile(p: float, df: int) -> float:
    """The quantile of Student's t, by the expansion of Cornish and Fisher around the normal one, to df^-4.

    Abramowitz and Stegun 1964, 26.7.5; the error is below 1 % for df >= 7 and p <= 0.999.
    """
    z = NORMAL.inv_cdf(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / df**power for power, term in enumerate(terms)))


def within_slope(x: Floats, y: Floats) -> tuple[float, float]:
    """The slope of y on x within cells, and its standard error, robust to what a cell's samples have in common.

    b = sum x'y / sum x'x with x', y' centred in each cell; se^2 = C / (C - 1) sum (x'u)^2 / (sum x'x)^2 over
    the C cells in which x varies, u the residuals. (NaN, inf) where x varies in fewer than two cells.

    Args: x, y: [cells, samples], NaN where there is none; a cell is one prompt at one evaluation.
    """
    xc, yc = centred(x, y)
    sums = (xc * xc).sum(1)
    varying = sums > 0
    count, total = int(varying.sum()), float(sums.sum())
    if count < 2:
        return math.nan, math.inf
    slope = float((xc * yc).sum()) / total
    scores = (xc * (yc - slope * xc)).sum(1)[varying]
    return slope, math.sqrt(count / (count - 1) * float(scores @ scores)) / total


def centred(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """x and y less their means over the cell's samples that have both, [cells, samples]; 0 where one is missing."""
    known = ~np.isnan(x) & ~np.isnan(y)
    num = np.maximum(known.sum(1, keepdims=True), 1)
    first, second = (np.where(known, v, 0.0) for v in (x, y))
    return (
        np.where(known, first - first.sum(1, keepdims=True) / num, 0.0),
        np.where(known, second - second.sum(1, keepdims=True) / num, 0.0),
    )


def false_discovery(p_values: npt.ArrayLike) -> Floats:
    """Adjusted p-values: q_(i) = min over j >= i of p_(j) m / j, at most 1.

    Benjamini and Hochberg 1995, J. R. Stat. Soc. B 57.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)[::-1]
    scaled = p[order] * len(p) / np.arange(len(p), 0, -1)
    out = np.empty_like(p)
    out[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return out


def log_odds_lift(count: float, total: float, reference_count: float, reference_total: float) -> float:
    """How much likelier a document has it: log (c + 1/2)/(N + 1/2) - log (c_ref + 1/2)/(N_ref + 1/2), nats."""
    return math.log((count + 0.5) / (total + 0.5)) - math.log((reference_count + 0.5) / (reference_total + 0.5))


def upper_tail(z: float) -> float:
    """The chance that a standard normal number is above z; exact far out, where 1 - cdf is not."""
    return 0.5 * math.erfc(z / math.sqrt(2))
