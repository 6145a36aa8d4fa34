"""How good and how honest a reward model is on held-out comparisons, and how much it likes length.

A reward model says P(first better) = sigmoid(Delta / T), with Delta the difference of its scores.
Accuracy, expected calibration error, Brier score and negative log-likelihood are means over
pairs, each with a percentile bootstrap over prompts; the temperature T is fitted on them.

The numbers of one prompt count together as one: a ranking of K weighs as much as a pair.

Left out: reliability diagrams, isotonic calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from strop.evaluate.ranks import spearman
from strop.evaluate.statistics import CONFIDENCE, Measure, measure, paired

Floats = npt.NDArray[np.float64]

COLDEST, HOTTEST = 0.05, 20.0
"""A fitted temperature is kept within these: where every pair is right, the likelihood wants 0."""
NUM_BINS = 15
NUM_RESAMPLES = 1_000
"""Resamples of figures that are no means (T, ECE, a slope)."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One prompt's completions as a reward model scored them, best first by the label.

    Attributes: lengths: their tokens. probability: of a pair, P(the first is better) by its label.
    """

    scores: tuple[float, ...]
    lengths: tuple[int, ...]
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class Comparisons:
    """The pairs of all prompts; arrays [n], one entry a pair.

    Attributes:
        delta: score of the first less that of the second.
        label: P(the first is better).
        longer: tokens of the first less those of the second.
        prompt: whose pair it is, ascending from 0.
        weight: each prompt's pairs sum to 1.
    """

    delta: Floats
    label: Floats
    longer: Floats
    prompt: npt.NDArray[np.int64]
    weight: Floats

    @property
    def num_prompts(self) -> int:
        return int(self.prompt[-1]) + 1 if len(self.prompt) else 0


def comparisons(scored: Sequence[Scored]) -> Comparisons:
    """Every pair (i < j) of every prompt with at least two completions."""
    rows = []
    for number, one in enumerate(s for s in scored if len(s.scores) > 1):
        pairs = list(combinations(range(len(one.scores)), 2))
        for i, j in pairs:
            apart, longer_by = one.scores[i] - one.scores[j], one.lengths[i] - one.lengths[j]
            rows.append((apart, one.probability, longer_by, number, 1 / len(pairs)))
    delta, label, longer, prompt, weight = np.array(rows, np.float64).reshape(-1, 5).T
    return Comparisons(delta, label, longer, prompt.astype(np.int64), weight)


def nll(delta: npt.ArrayLike, label: npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """-q log sigmoid(Delta / T) - (1 - q) log sigmoid(-Delta / T) of each pair, nats; log 2 at Delta = 0."""
    x, q = np.asarray(delta, np.float64) / temperature, np.asarray(label, np.float64)
    out: Floats = q * np.logaddexp(0, -x) + (1 - q) * np.logaddexp(0, x)
    return out


def brier(delta: npt.ArrayLike, label: npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """(sigmoid(Delta / T) - q)^2 of each pair; Brier 1950."""
    out: Floats = (_sigmoid(np.asarray(delta, np.float64) / temperature) - np.asarray(label, np.float64)) ** 2
    return out


def fit_temperature(delta: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """The T in [0.05, 20] at which the mean NLL is least; 1 where no T is better than another.

    The NLL is convex in a = 1/T with slope sum(Delta (sigmoid(a Delta) - q)), whose root Newton's steps
    find, halving the interval where they leave it. Guo et al. 2017, arXiv:1706.04599; on held-out data.
    """
    d, q = np.asarray(delta, np.float64), np.asarray(label, np.float64)
    wd = d if weight is None else d * np.asarray(weight, np.float64)
    low, high = 1 / HOTTEST, 1 / COLDEST
    if not np.abs(wd).sum() > 0:
        return 1.0
    if (wd * (_sigmoid(high * d) - q)).sum() <= 0:  # sharper would be better still
        return COLDEST
    if (wd * (_sigmoid(low * d) - q)).sum() >= 0:
        return HOTTEST
    a = 1.0
    for _ in range(60):
        p = _sigmoid(a * d)
        slope, bend = float((wd * (p - q)).sum()), float((wd * d * p * (1 - p)).sum())
        low, high = (low, a) if slope > 0 else (a, high)
        guess = a - slope / bend if bend > 0 else math.inf
        guess = guess if low < guess < high else (low + high) / 2
        if abs(guess - a) <= 1e-12 * a:
            break
        a = guess
    return 1 / a


def ece(
    delta: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike | None = None, *, equal_mass: bool = True
) -> float:
    """Expected calibration error of sigmoid(Delta), folded to the predicted side: sum_b n_b/n |acc_b - conf_b|.

    A pair's confidence is max(p, 1 - p), in [0.5, 1]; it is right with the label's probability of the
    predicted side, one half where Delta = 0. 15 bins of equal mass, or of equal width. Pairs of one confidence are
    right as often as they are on average, so that their order does not matter where a bin ends among them.
    Naeini et al. 2015; equal mass: Nixon et al. 2019, arXiv:1904.01685. Finite samples bias it upwards.
    """
    d, q = np.asarray(delta, np.float64), np.asarray(label, np.float64)
    w = np.ones_like(d) if weight is None else np.asarray(weight, np.float64)
    confidence = _sigmoid(np.abs(d))
    right = np.where(d > 0, q, np.where(d < 0, 1 - q, 0.5))
    order = np.argsort(confidence, kind="stable")
    confidence, right, w = confidence[order], right[order], w[order]
    if not w.sum() > 0:
        return math.nan
    tie = np.concatenate([[0], np.cumsum(np.diff(confidence) > 0)])
    mass = np.bincount(tie, w)
    right = (np.bincount(tie, w * right) / np.where(mass > 0, mass, 1))[tie]
    place = (w.cumsum() - w / 2) / w.sum() if equal_mass else 2 * confidence - 1
    bins = np.minimum((place * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    gap = np.bincount(bins, w * (right - confidence), NUM_BINS)
    return float(np.abs(gap).sum() / w.sum())


# Length.


def length_slope(scored: Sequence[Scored]) -> float:
    """Score a token: the least-squares slope of scores on lengths, both centred within each prompt.

    Subtracting slope * (length - prompt's mean length) from the scores makes it exactly 0
    (`rewards.scale.residual`). Nan where no prompt has completions of different lengths.
    """
    return _slope(_moments(scored), np.ones(len(scored)))


def _moments(scored: Sequence[Scored]) -> Floats:
    """Each prompt's sum of score times centred length, and of its square, [2, prompts]."""
    out = np.zeros((2, len(scored)))
    for place, one in enumerate(scored):
        n = np.asarray(one.lengths, np.float64)
        n = n - n.mean()
        out[:, place] = (n * np.asarray(one.scores, np.float64)).sum(), (n * n).sum()
    return out


def _slope(moments: Floats, times: Floats) -> float:
    across, along = moments @ times
    return float(across / along) if along > 0 else math.nan


def length_measures(scored: Sequence[Scored], *, seed: int = 0) -> dict[str, Measure]:
    """What a reward model makes of length, within prompts.

    Returns: `len_corr`, Spearman of score and tokens; `len_slope`, score a token; and the accuracy on
        pairs whose better side is the shorter one, and the longer one.
    """
    pairs, moments = comparisons(scored), _moments(scored)
    figures = {
        "len_corr": measure([[spearman(s.scores, s.lengths)] for s in scored], share=False, seed=seed),
        "len_slope": resampled(lambda times: _slope(moments, times), len(scored), seed),
    }
    right, better_longer = _agreed(pairs), _of_better(pairs.longer, pairs)
    for name, where in (("shorter", better_longer < 0), ("longer", better_longer > 0)):
        values = np.where(where, right, math.nan)
        figures[f"accuracy_chosen_{name}"] = measure(_by_prompt(values, pairs), seed=seed)
    return figures


# All figures.


def reward_measures(scored: Sequence[Scored], *, seed: int = 0) -> dict[str, Measure]:
    """The figures of a reward model on held-out comparisons, as trained (T = 1) and with the fitted T.

    Returns: accuracy (strict), tie_rate, margin, nll, brier, ece, ece_width (bins of equal width),
        temperature, nll_calibrated and ece_calibrated (at the fitted T, of the same pairs: one number
        was fitted on them), and those of `length_measures`.
    """
    pairs = comparisons(scored)
    delta, label, weight = pairs.delta, pairs.label, pairs.weight
    temperature = fit_temperature(delta, label, weight)

    def mean(values: Floats, share: bool | None = None) -> Measure:
        return measure(_by_prompt(values, pairs), share=share, seed=seed)

    def of(statistic: Callable[[Floats], float]) -> Measure:
        return resampled(lambda times: statistic(weight * times[pairs.prompt]), pairs.num_prompts, seed)

    return {
        "accuracy": mean(_agreed(pairs)),
        "tie_rate": mean((delta == 0).astype(np.float64)),
        "margin": mean(_of_better(delta, pairs), share=False),
        "nll": mean(nll(delta, label), share=False),
        "brier": mean(brier(delta, label), share=False),
        "ece": of(lambda w: ece(delta, label, w)),
        "ece_width": of(lambda w: ece(delta, label, w, equal_mass=False)),
        "temperature": of(lambda w: fit_temperature(delta, label, w)),
        "nll_calibrated": mean(nll(delta, label, temperature), share=False),
        "ece_calibrated": of(lambda w: ece(delta / temperature, label, w)),
        **length_measures(scored, seed=seed),
    }


def reward_deltas(ours: Sequence[Scored], theirs: Sequence[Scored], *, seed: int = 0) -> dict[str, Measure]:
    """Paired differences to another reward model on the same comparisons: accuracy, nll and brier; n counts prompts."""
    sides = [_values(side) for side in (ours, theirs)]
    return {f"delta/{name}": paired(sides[0][name], sides[1][name], seed=seed) for name in sides[0]}


def accuracies(scored: Sequence[Scored]) -> list[list[float]]:
    """Each prompt's comparisons: 1 where the better side scores higher; prompts with one completion have none."""
    return _values(scored)["accuracy"]


def _values(scored: Sequence[Scored]) -> dict[str, list[list[float]]]:
    """Every prompt's numbers of its pairs, in the order of the prompts."""
    pairs = comparisons(scored)
    by_name = {
        "accuracy": _agreed(pairs),
        "nll": nll(pairs.delta, pairs.label),
        "brier": brier(pairs.delta, pairs.label),
    }
    compared = [place for place, one in enumerate(scored) if len(one.scores) > 1]
    out: dict[str, list[list[float]]] = {}
    for name, values in by_name.items():
        rows: list[list[float]] = [[] for _ in scored]
        for place, row in zip(compared, _by_prompt(values, pairs), strict=True):
            rows[place] = row
        out[name] = rows
    return out


def _agreed(pairs: Comparisons) -> Floats:
    """1 where the side that the label says is better scores higher; NaN where it says neither is."""
    return np.where(pairs.label == 0.5, math.nan, (_of_better(pairs.delta, pairs) > 0).astype(np.float64))


def _of_better(difference: Floats, pairs: Comparisons) -> Floats:
    """What the better side has more than the other; NaN where the label is one half."""
    return np.where(pairs.label == 0.5, math.nan, np.where(pairs.label > 0.5, difference, -difference))


def _by_prompt(values: Floats, pairs: Comparisons) -> list[list[float]]:
    """Each prompt's numbers of its pairs."""
    ends = np.searchsorted(pairs.prompt, np.arange(1, pairs.num_prompts))
    return [part.tolist() for part in np.split(values, ends)] if len(values) else []


def resampled(statistic: Callable[[Floats], float], num_prompts: int, seed: int) -> Measure:
    """A figure that is no mean, with the percentile interval over resampled prompts, widened to hold it.

    Args: statistic: of how often each prompt counts, [num_prompts].
    """
    value = statistic(np.ones(num_prompts))
    if num_prompts < 2 or math.isnan(value):
        return Measure(value, None, None, num_prompts)
    generator = np.random.default_rng(seed)
    draws = (
        statistic(
            np.bincount(generator.integers(0, num_prompts, num_prompts), minlength=num_prompts).astype(np.float64)
        )
        for _ in range(NUM_RESAMPLES)
    )
    known = [draw for draw in draws if not math.isnan(draw)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, (tail, 1 - tail))
    return Measure(value, min(value, float(low)), max(value, float(high)), num_prompts)


def _sigmoid(x: Floats) -> Floats:
    """1 / (1 + e^-x) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))
