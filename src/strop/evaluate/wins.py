"""How often one model's answers are preferred to another's: wins, ties, losses, and the rate at equal length.

A win counts 1, a tie 1/2, a loss 0; a prompt counts once, with the mean over its comparisons. What is compared
is told by a judge, by rules or by scores; who could not tell (None) is left out.

Judges like long answers. The length-controlled rate asks what it would be at equal lengths, by a logistic
regression on the difference of lengths. Dubois et al. 2024, arXiv:2404.04475, eq. 2; there a third term for how
hard a prompt is for each model is fitted over the many models of a leaderboard. Two models cannot tell it from
noise, so it is left out here, and the slope of length has a normal prior in its place of their cross-validated
penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strop.evaluate.calibration import NUM_RESAMPLES
from strop.evaluate.statistics import BLOCK, CONFIDENCE, Measure, Value, measure, outcomes

Floats = npt.NDArray[np.float64]

PRIOR_SD = 3.0
"""Of the slope of length, in logits a unit of tanh: 3 is from never to almost always by length alone."""
MOST_SHARE = 0.95
"""Of comparisons in which ours is the longer, or the shorter; with more, equal length was seen from one side only."""

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One comparison of an answer of ours with one of theirs to the same prompt.

    Attributes:
        prompt: whose it is, from 0.
        probability: that ours is better; None where nobody could tell.
        tie: that neither is, whatever the probability.
        forward, backward: the same probability with ours shown first, and shown second, of a judge.
        longer_by: characters of ours less those of theirs.
    """

    prompt: int
    probability: float | None
    tie: bool = False
    forward: float | None = None
    backward: float | None = None
    longer_by: float = 0.0

    @property
    def outcome(self) -> float | None:
        """1 a win of ours, 1/2 a tie, 0 a loss."""
        if self.probability is None:
            return None
        return 0.5 if self.tie or self.probability == 0.5 else float(self.probability > 0.5)


def score_wins(
    ours: Sequence[Sequence[Value]], theirs: Sequence[Sequence[Value]], *, seed: int = 0
) -> dict[str, Measure]:
    """`win_rate`, `wins`, `ties` and `losses` by scores: each of our samples of a prompt meets each of theirs.

    Swapping the sides swaps wins and losses. n counts prompts that both sides scored.
    """
    return _shares([None if both is None else _thirds(*both) for both in outcomes(ours, theirs)], seed)


def match_wins(matches: Sequence[Match], *, seed: int = 0) -> dict[str, Measure]:
    """The figures of comparisons; n counts prompts.

    Returns:
        win_rate, wins, ties, losses; abstained, of all comparisons;
        longer: how often ours is the longer answer, of those that differ in length;
        length_controlled: the win rate at equal length, where both lengths occur;
        of a judge, over what was judged in both orders: position_bias = mean |forward - backward|, and flip_rate, the
        share in which the two point to different answers.
    """
    by_prompt = _by_prompt(matches)
    figures = _shares([_mean_thirds(row) for row in by_prompt], seed)

    def mean(of: Callable[[Match], float | None]) -> Measure:
        return measure([[_mean([of(m) for m in row])] for row in by_prompt], share=True, seed=seed)

    figures["abstained"] = mean(lambda m: float(m.probability is None))
    figures["longer"] = mean(lambda m: None if m.longer_by == 0 else float(m.longer_by > 0))
    figures["position_bias"] = mean(_position_bias)
    figures["flip_rate"] = mean(_flipped)
    figures["length_controlled"] = length_controlled(matches, seed=seed)
    return {name: figure for name, figure in figures.items() if not math.isnan(figure.value)}


def length_controlled(matches: Sequence[Match], *, seed: int = 0) -> Measure:
    """The win rate at equal length, sigmoid(a) of P(win) = sigmoid(a + b tanh(d / s)).

    d is by how much ours is longer, s the deviation of d over all comparisons; ties are half a win; b ~ N(0, 3^2);
    each prompt weighs one. A model against itself has 1/2, swapping the sides gives one minus the rate, and where
    lengths never differ it is the win rate. The interval resamples prompts.

    Returns: NaN where ours is the longer, or the shorter, in more than 19 comparisons of twenty: what would happen
        at equal length could then only be guessed. Where all comparisons end alike, `measure`'s interval.
    """
    known = [m for m in matches if m.outcome is not None]
    prompts = sorted({m.prompt for m in known})
    nothing = Measure(math.nan, None, None, len(prompts))
    if not known:
        return nothing
    place = {prompt: i for i, prompt in enumerate(prompts)}
    owner = np.array([place[m.prompt] for m in known])
    won = np.array([m.outcome for m in known], np.float64)
    apart = np.array([m.longer_by for m in known], np.float64)
    if max((apart > 0).mean(), (apart < 0).mean()) > MOST_SHARE:
        return nothing
    if (won == won[0]).all():  # resampling a constant would claim certainty
        return measure([[float(won[0])]] * len(prompts), share=True, seed=seed)
    weight = 1 / np.bincount(owner)[owner]
    x = np.tanh(apart / (apart.std() or 1.0))
    value = float(rates_at_zero(won, x, weight[None])[0])
    if len(prompts) < 2:
        return Measure(value, None, None, len(prompts))
    drawn = [rates_at_zero(won, x, weight * times[:, owner]) for times in _resamples(len(prompts), len(won), seed)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(drawn), (tail, 1 - tail))
    return Measure(value, min(value, float(low)), max(value, float(high)), len(prompts))


def _resamples(num_prompts: int, num: int, seed: int) -> Iterator[Floats]:
    """How often each prompt counts in a resample, in blocks of [resamples, prompts]."""
    generator = np.random.default_rng(seed)
    for start in range(0, NUM_RESAMPLES, rows := max(1, BLOCK // max(1, 8 * num))):
        drawn = generator.integers(0, num_prompts, (min(rows, NUM_RESAMPLES - start), num_prompts))
        yield np.stack([np.bincount(row, minlength=num_prompts) for row in drawn]).astype(np.float64)


def rates_at_zero(won: Floats, x: Floats, weights: Floats) -> Floats:
    """sigmoid(a) of weighted logistic regressions of `won` in [0, 1] on a + b x, with b ~ N(0, PRIOR_SD^2).

    Each minimises sum w [log(1 + e^z) - y z] + b^2 / (2 PRIOR_SD^2), z = a + b x, which is convex, by Newton's steps,
    halved where they do not descend.

    Args: won, x: [n]. weights: a row a regression, [R, n].
    Returns: [R]; the mean where all are won, or all lost; NaN without weight.
    """
    total = weights.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weights @ won) / total
    out = np.asarray(mean, np.float64)
    inside = (total > 0) & (mean > ROUNDING) & (mean < 1 - ROUNDING)
    w = weights[inside]
    a = np.log(mean[inside] / (1 - mean[inside]))
    b = np.zeros_like(a)
    height = _heights(a, b, won, x, w)
    for _ in range(100):
        if not len(a):
            break
        step = _newton(a, b, won, x, w)
        size = np.ones_like(a)
        for _ in range(30):
            lower = _heights(a - size * step[0], b - size * step[1], won, x, w)
            bad = lower > height + 1e-12 * np.abs(height)
            if not bad.any():
                break
            size = np.where(bad, size / 2, size)
        a, b, height = a - size * step[0], b - size * step[1], lower
        if np.abs(size * step).max() < 1e-9:
            break
    out[inside] = _sigmoid(a)
    return out


def _newton(a: Floats, b: Floats, won: Floats, x: Floats, w: Floats) -> Floats:
    """Newton's step of each regression, [2, R]."""
    p = _sigmoid(a[:, None] + b[:, None] * x)
    miss, bend = w * (p - won), w * p * (1 - p)
    slope_a, slope_b = miss.sum(1), miss @ x + b / PRIOR_SD**2
    aa, ab, bb = bend.sum(1), bend @ x, bend @ (x * x) + 1 / PRIOR_SD**2
    det = aa * bb - ab * ab
    out: Floats = np.stack([bb * slope_a - ab * slope_b, aa * slope_b - ab * slope_a]) / det
    return out


def _heights(a: Floats, b: Floats, won: Floats, x: Floats, w: Floats) -> Floats:
    z = a[:, None] + b[:, None] * x
    return np.asarray((w * (np.logaddexp(0, z) - won * z)).sum(1) + b * b / (2 * PRIOR_SD**2), np.float64)


def _sigmoid(z: Floats) -> Floats:
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1 / (1 + e), e / (1 + e)), np.float64)


Thirds = tuple[float, float, float]
"""Shares of comparisons won, tied and lost."""


def _thirds(won: float, tied: float) -> Thirds:
    return won, tied, max(0.0, 1 - won - tied)


def _shares(by_prompt: Sequence[Thirds | None], seed: int) -> dict[str, Measure]:
    known = [row for row in by_prompt if row is not None]
    rate = measure([[won + tied / 2] for won, tied, _ in known], share=True, seed=seed)
    names = ("wins", "ties", "losses")
    parts = {name: measure([[row[i]] for row in known], share=True, seed=seed) for i, name in enumerate(names)}
    return {"win_rate": rate, **parts}


def _by_prompt(matches: Sequence[Match]) -> list[list[Match]]:
    rows: dict[int, list[Match]] = {}
    for match in matches:
        rows.setdefault(match.prompt, []).append(match)
    return list(rows.values())


def _mean_thirds(row: Sequence[Match]) -> Thirds | None:
    known = [m.outcome for m in row if m.outcome is not None]
    return _thirds(known.count(1.0) / len(known), known.count(0.5) / len(known)) if known else None


def _position_bias(match: Match) -> float | None:
    both = match.forward, match.backward
    return None if both[0] is None or both[1] is None else abs(both[0] - both[1])


def _flipped(match: Match) -> float | None:
    both = match.forward, match.backward
    return None if both[0] is None or both[1] is None else float((both[0] - 0.5) * (both[1] - 0.5) < 0)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
