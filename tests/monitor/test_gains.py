"""Gains and where they went, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strop.monitor.gains import (
    effect,
    explained,
    explained_range,
    length_correlations,
    peak,
    relation,
    worth,
)
from strop.monitor.samples import Sample, Snapshot, held_out, length, proxy


def made(step: int, proxies: np.ndarray, golds: np.ndarray, lengths: np.ndarray | None = None) -> Snapshot:
    lengths = np.ones_like(proxies) if lengths is None else lengths
    rows = zip(proxies, golds, lengths, strict=True)
    samples = tuple(tuple(Sample("", p, g, n) for p, g, n in zip(*row, strict=True)) for row in rows)
    return Snapshot(step, tuple(map(str, range(len(proxies)))), samples)


RNG = np.random.default_rng(0)
P, L = RNG.normal(size=(20, 4)), RNG.integers(1, 50, (20, 4)).astype(float)


def test_a_unit_of_proxy_is_worth_its_slope_in_gold() -> None:
    assert worth(made(0, P, 2 * P + RNG.normal(size=(20, 1)))) == pytest.approx(2.0)
    assert worth(made(0, P, -P)) == 0.0, "no relation, no promise"
    assert worth(made(0, np.ones((20, 4)), P)) == 0.0


def test_gold_that_is_the_proxy_never_lags_and_gold_that_stays_does() -> None:
    start = made(0, P, P)
    same, stuck = made(1, P + 1, P + 1), made(1, P + 1, P)
    assert relation(same, start, 1.0, 0.01).lag.value == pytest.approx(-0.5)
    assert relation(stuck, start, 1.0, 0.01).lag.value == pytest.approx(0.5)
    assert relation(stuck, start, 1.0, 0.01).lag.up and not relation(same, start, 1.0, 0.01).lag.up


def test_the_peak_is_the_first_of_the_highest() -> None:
    history = [made(i, P, P + y) for i, y in enumerate((0.0, 2.0, 2.0, 1.0))]
    assert peak(history).step == 1


def test_length_explains_all_of_a_gain_that_is_made_of_it() -> None:
    start, now = made(0, 0.1 * L, P, L), made(1, 0.1 * (L + 30), P, L + 30)
    slope = effect([start, now], length, proxy)
    assert slope.slope == pytest.approx(0.1)
    assert explained(slope, now, start, length) == pytest.approx(1.0)
    assert explained_range([start, now], now, start, length, seed=0) == pytest.approx((1.0, 1.0))


def test_half_a_gain_is_explained_where_half_came_otherwise() -> None:
    start, now = made(0, 0.1 * L, P, L), made(1, 0.1 * (L + 10) + 1, P, L + 10)
    assert explained(effect([start, now], length, proxy), now, start, length) == pytest.approx(0.5)


def test_what_time_does_to_both_is_no_effect() -> None:
    """Length and proxy rise together between evaluations, and have nothing to do with each other within prompts."""
    start, now = made(0, P, P, L), made(1, RNG.normal(size=(20, 4)) + 5, P, RNG.permutation(L) + 100)
    slope = effect([start, now], length, proxy)
    assert abs(slope.slope) < 3 * slope.error
    assert not slope.above(3) and math.isfinite(slope.slope)


def test_no_gain_has_no_share() -> None:
    start, now = made(0, P, P, L), made(1, P - 1, P, L)
    assert math.isnan(explained(effect([start], length, proxy), now, start, length))


def test_rank_correlations_within_prompts() -> None:
    found = length_correlations(made(0, np.exp(0.1 * L), P, L), proxy)
    assert np.nanmin(found) == pytest.approx(1.0)
    assert np.isnan(length_correlations(made(0, P[:, :2], P[:, :2], L[:, :2]))).all(), "two answers have no rank worth"


def test_prompts_that_one_side_could_not_score_are_left_out() -> None:
    start, now = made(0, P, P), made(1, P + 1, P + 1)
    missing = Snapshot(1, now.prompts, ((Sample("", None, None),), *now.samples[1:]))
    assert relation(missing, start, 1.0, 0.01).held_out.n == 19
    assert np.isnan(missing.means(held_out)[0])
