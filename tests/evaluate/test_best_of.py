"""Best-of-k against every choice of k samples, its KL against exact policies, and the curve's accounts."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from strop.evaluate.best_of import (
    best_of_curve,
    best_of_k,
    best_of_k_weights,
    best_of_n_kl,
    chosen_curve,
    chosen_of_k,
)
from strop.evaluate.statistics import bootstrap, measure, pass_at_k, wilson


def test_the_weights_are_the_binomials_and_sum_to_one_for_thousands_too() -> None:
    for n in range(1, 12):
        for k in range(1, n + 1):
            exact = [math.comb(i - 1, k - 1) / math.comb(n, k) for i in range(1, n + 1)]
            assert best_of_k_weights(n, k) == pytest.approx(exact, abs=1e-15)
    for n, k in ((5000, 1), (5000, 17), (5000, 2500), (5000, 5000)):
        weights = best_of_k_weights(n, k)
        assert weights.sum() == pytest.approx(1, abs=1e-12) and np.isfinite(weights).all() and (weights >= 0).all()
        assert weights[-1] == k / n
    exact = math.comb(2999, 99) / math.comb(4000, 100)  # Python's whole numbers do not overflow
    assert best_of_k_weights(4000, 100)[2999] == pytest.approx(exact, rel=1e-10)


def test_best_of_k_is_the_mean_over_all_choices() -> None:
    random = np.random.default_rng(0)
    for n in range(1, 9):
        for rewards in (random.normal(size=n).tolist(), random.integers(0, 3, n).astype(float).tolist()):
            for k in range(1, n + 1):
                exact = np.mean([max(chosen) for chosen in combinations(rewards, k)])
                assert best_of_k(rewards, k) == pytest.approx(exact, abs=1e-12)
            assert best_of_k(rewards, 1) == pytest.approx(np.mean(rewards)) and best_of_k(rewards, n) == max(rewards)


def test_with_rewards_of_0_and_1_it_is_pass_at_k() -> None:
    for n, correct, k in ((10, 0, 3), (10, 10, 4), (10, 3, 4), (200, 7, 50)):
        rewards = [1.0] * correct + [0.0] * (n - correct)
        assert best_of_k(rewards, k) == pytest.approx(pass_at_k(n, correct, k), abs=1e-12)


def test_unscorable_samples_are_left_out_and_too_few_give_no_figure() -> None:
    assert best_of_k([None, 1.0, float("nan"), 3.0], 2) == 3.0
    assert best_of_k([None, 1.0, 3.0], 1) == 2.0
    assert math.isnan(best_of_k([None, 1.0], 2)) and math.isnan(best_of_k([], 1))
    with pytest.raises(ValueError, match="k is 0"):
        best_of_k([1.0], 0)


def test_what_a_score_chooses_is_the_mean_over_all_choices_in_all_orders() -> None:
    random = np.random.default_rng(1)
    for scores in (random.normal(size=6).tolist(), [1.0, 0.0, 1.0, 2.0, 0.0, 1.0]):
        values = random.normal(size=6).tolist()
        for k in range(1, 7):
            picks = []
            for chosen in combinations(range(6), k):
                best = [i for i in chosen if scores[i] == max(scores[j] for j in chosen)]
                picks.append(np.mean([values[i] for i in best]))  # each is the first in as many orders
            assert chosen_of_k(scores, values, k) == pytest.approx(np.mean(picks), abs=1e-12)
    assert chosen_of_k([1.0, 1.0, 1.0], [0.0, 1.0, 5.0], 2) == 2.0  # a score that says nothing chooses the mean
    assert chosen_of_k([0.0, None, 2.0], [7.0, 8.0, None], 1) == 7.0


def test_best_of_k_is_unbiased_where_the_best_of_the_first_k_is_noisier() -> None:
    random = np.random.default_rng(2)
    samples = random.random((4000, 16))
    estimates = np.array([best_of_k(row.tolist(), 4) for row in samples])
    first = samples[:, :4].max(1)
    truth = 4 / 5  # the mean of the largest of four uniform draws
    assert abs(estimates.mean() - truth) < 4 * estimates.std() / math.sqrt(4000)
    assert estimates.var() < 0.5 * first.var()


def test_the_kl_of_best_of_n() -> None:
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)
    with pytest.raises(ValueError, match="n is 0"):
        best_of_n_kl(0)
    for n in (2, 4, 16):  # atoms of equal weight with unlike rewards: exact from below as they grow many
        gaps = []
        for atoms in (2, 50, 5000):
            upper = np.arange(1, atoms + 1) / atoms
            best = upper**n - (upper - 1 / atoms) ** n
            kl = float(np.sum(best * np.log(np.maximum(best, 1e-300) * atoms)))
            gaps.append(best_of_n_kl(n) - kl)
        assert gaps[0] > gaps[1] > gaps[2] > -1e-9 and gaps[2] < 1e-3


def test_a_curve_is_over_the_same_prompts_and_counts_what_it_leaves_out() -> None:
    rows = [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 5.0, None], [9.0, None, None, None]]
    curve = best_of_curve(rows, (1, 4))
    assert curve.num_left_out == 1 and curve.num_unscorable == 4
    assert curve.points[1].value == pytest.approx((2.5 + 1.5) / 2) and curve.points[4].value == 4.5
    assert curve.points[4].n == 2
    assert (curve.points[1].low, curve.points[1].high) == bootstrap([2.5, 1.5], seed=0)
    assert list(best_of_curve(rows).points) == [1, 2, 4]  # as many as half of the prompts have
    assert best_of_curve([]).points == {} and best_of_curve([[None]], ()).num_unscorable == 1
    with pytest.raises(ValueError, match="k is 0"):
        best_of_curve(rows, (0, 2))


def test_a_curve_rises_and_its_first_point_is_the_mean() -> None:
    random = np.random.default_rng(3)
    rows = [(random.normal() + random.normal(size=16)).tolist() for _ in range(60)]
    values = [point.value for point in best_of_curve(rows, (1, 2, 4, 8, 16)).points.values()]
    assert values == sorted(values) and values[0] == pytest.approx(measure(rows).value)
    right = [[float(v > 0) for v in row] for row in rows]
    full = best_of_curve(right, (16,)).points[16]
    assert full == wilson(sum(max(row) for row in right), 60)  # one 0 or 1 a prompt


def test_a_proxy_that_is_hacked_rises_while_the_truth_falls() -> None:
    random = np.random.default_rng(4)
    length = [random.exponential(size=32).tolist() for _ in range(200)]
    gold = [[x - x * x for x in row] for row in length]
    proxy, truth = best_of_curve(length, (1, 4, 32)), chosen_curve(length, gold, (1, 4, 32))
    rising, falling = [p.value for p in proxy.points.values()], [p.value for p in truth.points.values()]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
    low, high = truth.points[4].low, truth.points[4].high
    assert low is not None and high is not None and high < truth.points[1].value
