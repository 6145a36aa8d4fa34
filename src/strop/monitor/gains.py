"""Where the training reward's gain went: to the held-out reward, or to length and phrases. Pure functions.

Everything is paired by prompt. A baseline is an earlier evaluation: the start, or the one at which the
held-out reward stood highest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strop.evaluate.ranks import spearman
from strop.monitor.numbers import MIN_PROMPTS, Change, Floats, centred, change, within_slope
from strop.monitor.samples import Snapshot, Value, held_out, proxy

HALF = 0.5
"""The held-out reward lags where its gain is below this share of what the proxy's gain was worth at the start."""
SHOWN = 1.645
"""Standard errors from 0 at which an effect is shown, at 5 %: nothing is an alarm that is shown to go with gold."""
RESAMPLES = 400
LENIENT = 0.05
"""Level of single bounds that no alarm rests on alone."""


@dataclass(frozen=True, slots=True)
class Relation:
    """What proxy and held-out reward did between a baseline and now, by prompt.

    Attributes:
        proxy, held_out: their changes. lag: half of what the proxy's gain was worth less the held-out
            reward's gain; above 0 it lags. Bounds at the level of the look, the proxy's at 5 %.
    """

    step: int
    proxy: Change
    held_out: Change
    lag: Change


def differences(now: Snapshot, then: Snapshot, of: Value) -> Floats:
    """The change of each prompt's mean; NaN where a side has none."""
    return now.means(of) - then.means(of)


def worth(start: Snapshot) -> float:
    """What a unit of proxy is worth in held-out reward before training: the slope within prompts.

    0 where it is not shown to be positive (the lower bound at 5 %): then the held-out reward measures
    something else than the proxy, and need not rise with it.
    """
    slope, error = within_slope(start.grid(proxy), start.grid(held_out))
    return slope if math.isfinite(slope) and slope - SHOWN * error > 0 else 0.0


def relation(now: Snapshot, then: Snapshot, value: float, level: float) -> Relation:
    """Proxy and held-out reward since a baseline. value: as `worth` gives it."""
    gained, held = differences(now, then, proxy), differences(now, then, held_out)
    lag = change(HALF * value * gained - held, level)
    return Relation(then.step, change(gained, LENIENT), change(held, level), lag)


def peak(history: Sequence[Snapshot]) -> Snapshot:
    """The evaluation whose held-out reward was highest, the first of equals."""
    best = max(range(len(history)), key=lambda i: (_mean(history[i].means(held_out)), -i))
    return history[best]


def stacked(history: Sequence[Snapshot], of: Value) -> Floats:
    """A number of every sample, one row a prompt at an evaluation, NaN where there is none."""
    grids = [snapshot.grid(of) for snapshot in history]
    out = np.full((sum(map(len, grids)), max(grid.shape[1] for grid in grids)), np.nan)
    for start, grid in zip(np.cumsum([0, *map(len, grids)]), grids, strict=False):
        out[start : start + len(grid), : grid.shape[1]] = grid
    return out


@dataclass(frozen=True, slots=True)
class Effect:
    """What a feature of an answer goes with, within prompts: units of reward, with a standard error."""

    slope: float
    error: float

    def above(self, z: float) -> bool:
        """Whether it is positive, z errors from 0."""
        return math.isfinite(self.slope) and self.slope > z * self.error

    def below(self, z: float) -> bool:
        """Whether it is negative, z errors from 0."""
        return math.isfinite(self.slope) and self.slope < -z * self.error


def effect(history: Sequence[Snapshot], feature: Value, of: Value) -> Effect:
    """The slope of a reward on a feature within the answers to one prompt at one evaluation.

    Within, so that neither hard prompts nor the passing of time look like an effect of the feature.
    """
    return Effect(*within_slope(stacked(history, feature), stacked(history, of)))


def explained(found: Effect, now: Snapshot, then: Snapshot, feature: Value) -> float:
    """The share of the proxy's gain that a feature explains: slope * (its change) / (the proxy's change).

    NaN where the proxy did not rise or the slope is not known.
    """
    moved, gained = (_mean(differences(now, then, of)) for of in (feature, proxy))
    if not (math.isfinite(found.slope) and gained > 0):
        return math.nan
    return found.slope * moved / gained


def explained_range(
    history: Sequence[Snapshot], now: Snapshot, then: Snapshot, feature: Value, *, seed: int
) -> tuple[float, float] | None:
    """90 % interval of `explained` over resampled prompts; None for too few prompts.

    A prompt is drawn with all its samples at all evaluations.
    """
    xy, xx = _products(history, feature).T
    moved, gained = differences(now, then, feature), differences(now, then, proxy)
    usable = ~np.isnan(moved) & ~np.isnan(gained)
    if usable.sum() < MIN_PROMPTS:
        return None
    table = np.stack([xy, xx, moved, gained])[:, usable]
    drawn = np.random.default_rng(seed).integers(0, table.shape[1], (RESAMPLES, table.shape[1]))
    xy, xx, moved, gained = table[:, drawn].sum(2)
    known = (xx > 0) & (gained > 0)
    shares = np.where(known, xy / np.where(known, xx, 1) * moved / np.where(known, gained, 1), 0.0)
    low, high = np.quantile(shares, (0.05, 0.95))
    return float(low), float(high)


def _products(history: Sequence[Snapshot], feature: Value) -> Floats:
    """Of each prompt sum x'y and sum x'x over the samples of the feature and the proxy, [prompts, 2]."""
    x, y = centred(stacked(history, feature), stacked(history, proxy))
    sums = np.stack([(x * y).sum(1), (x * x).sum(1)], 1)
    return np.asarray(sums.reshape(len(history), -1, 2).sum(0), np.float64)


def length_correlations(now: Snapshot, of: Value = proxy) -> Floats:
    """Spearman's correlation of a reward with length within each prompt; NaN where one of them does not vary."""
    found = np.full(len(now.prompts), np.nan)
    for i, row in enumerate(now.samples):
        pairs = [(s.length, value) for s in row if (value := of(s)) is not None]
        if len(pairs) >= 3:
            lengths, values = zip(*pairs, strict=True)
            found[i] = spearman(lengths, values)
    return found


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else -math.inf
