"""Calibration of a reward model: closed forms, what cannot change, and bounds on data that is calibrated by design."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strop.evaluate.calibration import (
    COLDEST,
    HOTTEST,
    Scored,
    brier,
    comparisons,
    ece,
    fit_temperature,
    length_slope,
    nll,
    reward_deltas,
    reward_measures,
    spearman,
)
from strop.evaluate.statistics import wilson
from strop.rewards.scale import residual


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def drawn(n: int, seed: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Differences and hard labels that follow sigmoid(delta) exactly."""
    random = np.random.default_rng(seed)
    delta = random.normal(0, spread, n)
    return delta, (random.random(n) < sigmoid(delta)).astype(float)


def pair(delta: float, lengths: tuple[int, int] = (5, 5), probability: float = 1.0) -> Scored:
    return Scored((delta, 0.0), lengths, probability)


# The formulas.


def test_nothing_known_is_log_2_and_no_calibration_error() -> None:
    """Delta = 0 everywhere: NLL log 2, ECE 0, Brier 1/4, and no temperature is better than 1."""
    delta, label = np.zeros(40), np.ones(40)
    assert nll(delta, label).tolist() == pytest.approx([math.log(2)] * 40)
    assert brier(delta, label).tolist() == [0.25] * 40
    assert ece(delta, label) == 0 and ece(delta, label, equal_mass=False) == 0
    assert fit_temperature(delta, label) == 1.0


def test_nll_and_brier_by_hand() -> None:
    p = 1 / (1 + math.exp(-1.5))
    assert nll([1.5, 1.5], [1.0, 0.0]).tolist() == pytest.approx([-math.log(p), -math.log(1 - p)])
    assert nll([3.0], [0.8], temperature=2.0).tolist() == pytest.approx([-0.8 * math.log(p) - 0.2 * math.log(1 - p)])
    assert brier([1.5], [0.25]).tolist() == pytest.approx([(p - 0.25) ** 2])
    assert np.isfinite(nll([1e4, -1e4], [0.5, 0.5])).all()


def test_ece_by_hand() -> None:
    """Forty pairs at confidence 0.75, thirty of them right; forty at 0.9, half of them right."""
    delta = np.array([math.log(3)] * 40 + [math.log(9)] * 40)
    label = np.array([1.0] * 30 + [0.0] * 10 + [1.0] * 20 + [0.0] * 20)
    assert ece(delta, label, equal_mass=False) == pytest.approx(0.5 * 0 + 0.5 * 0.4)
    assert ece(-delta, 1 - label, equal_mass=False) == pytest.approx(0.2), "the order within a pair says nothing"
    soft = np.array([0.75] * 40 + [0.5] * 40)  # the same labels as votes
    assert ece(delta, soft) == pytest.approx(0.2) and ece(delta, soft, equal_mass=False) == pytest.approx(0.2)


def test_ece_of_one_bin_each_is_the_mean_gap() -> None:
    """With as many pairs as bins every pair is its own bin."""
    delta, label = drawn(15, 0)
    confidence, right = sigmoid(abs(delta)), np.where(delta > 0, label, 1 - label)
    assert ece(delta, label) == pytest.approx(abs(right - confidence).mean())


def test_a_weight_is_a_number_of_copies() -> None:
    delta, label = drawn(50, 1)
    times = np.random.default_rng(2).integers(0, 4, 50)
    more = np.repeat(delta, times), np.repeat(label, times)
    assert fit_temperature(delta, label, times) == pytest.approx(fit_temperature(*more), rel=1e-9)
    assert ece(delta, label, times, equal_mass=False) == pytest.approx(ece(*more, equal_mass=False))


# The temperature.


@pytest.mark.parametrize("seed", range(5))
def test_the_temperature_is_the_best_one(seed: int) -> None:
    """NLL(T*) <= NLL at any other T; at T* the slope is zero."""
    delta, label = drawn(200, seed)
    best = fit_temperature(3 * delta, label)
    least = nll(3 * delta, label, best).mean()
    for other in (1.0, 0.5 * best, 0.99 * best, 1.01 * best, 2 * best):
        assert least <= nll(3 * delta, label, other).mean()
    d = 3 * delta / best
    assert (d * (sigmoid(d) - label)).mean() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    """It is 1 (to 5 %) on labels that follow the scores, and scale times that on scores scaled up."""
    delta, label = drawn(20_000, 7)
    assert fit_temperature(delta, label) == pytest.approx(1.0, abs=0.05)
    assert fit_temperature(scale * delta, label) == pytest.approx(scale * fit_temperature(delta, label), rel=1e-9)


def test_the_temperature_keeps_its_bounds() -> None:
    assert fit_temperature([1.0, 2.0], [1.0, 1.0]) == COLDEST  # all right: sharper is always better
    assert fit_temperature([1.0, 2.0], [0.0, 0.0]) == HOTTEST  # all wrong: nothing said is best
    assert fit_temperature([1.0, -3.0], [0.5, 0.5]) == HOTTEST


def test_accuracy_does_not_know_the_temperature() -> None:
    delta, label = drawn(60, 3)
    groups = [pair(d, probability=q) for d, q in zip(delta.tolist(), label.tolist(), strict=True)]
    cold = [pair(7 * d, probability=q) for d, q in zip(delta.tolist(), label.tolist(), strict=True)]
    ours, theirs = reward_measures(groups), reward_measures(cold)
    assert ours["accuracy"] == theirs["accuracy"]
    assert theirs["temperature"].value == pytest.approx(7 * ours["temperature"].value, rel=1e-6)
    for name in ("nll_calibrated", "ece_calibrated"):
        assert theirs[name].value == pytest.approx(ours[name].value, rel=1e-6)


# Calibrated and miscalibrated models.


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large_one() -> None:
    """1200 pairs whose labels follow the scores: ECE under 0.05 and T within its interval around 1; and scores
    three times as sure of themselves are found out by both."""
    delta, label = drawn(1_200, 5)
    honest = reward_measures([pair(d, probability=q) for d, q in zip(delta.tolist(), label.tolist(), strict=True)])
    sure = reward_measures([pair(3 * d, probability=q) for d, q in zip(delta.tolist(), label.tolist(), strict=True)])
    assert honest["ece"].value < 0.05 and sure["ece"].value > 0.08
    temperature = honest["temperature"]
    assert temperature.low is not None and temperature.high is not None
    assert temperature.low < 1.0 < temperature.high and temperature.high - temperature.low < 0.4
    assert sure["temperature"].value == pytest.approx(3 * temperature.value, rel=1e-6)
    assert sure["ece_calibrated"].value < 0.05
    assert sure["nll"].value > honest["nll"].value
    for name, figure in honest.items():
        if figure.low is not None and figure.high is not None:
            assert figure.low <= figure.value <= figure.high, name


def test_figures_are_a_function_of_the_seed() -> None:
    delta, label = drawn(30, 6)
    groups = [pair(d, (4, 7), q) for d, q in zip(delta.tolist(), label.tolist(), strict=True)]
    assert reward_measures(groups, seed=1) == reward_measures(groups, seed=1)
    assert reward_measures(groups, seed=1)["ece"] != reward_measures(groups, seed=2)["ece"]


def test_ties_are_not_wins() -> None:
    found = reward_measures([pair(1.0), pair(0.0), pair(-1.0), pair(2.0)])
    assert found["accuracy"].value == 0.5 and found["tie_rate"].value == 0.25 and found["accuracy"].n == 4


def test_a_label_for_the_second_turns_the_pair_round() -> None:
    found = reward_measures([pair(-1.0, (9, 4), 0.2), pair(-3.0, (4, 9), 0.0)])
    assert found["accuracy"].value == 1.0 and found["margin"].value == 2.0
    assert found["accuracy_chosen_shorter"].n == 1 and found["accuracy_chosen_longer"].n == 1


def test_a_ranking_weighs_as_much_as_a_pair() -> None:
    """Of three, all in order: three right pairs count as one prompt beside one that is wrong."""
    found = reward_measures([Scored((3.0, 2.0, 1.0), (4, 5, 6)), pair(-1.0)])
    assert found["accuracy"].value == 0.5
    pairs = comparisons([Scored((3.0, 2.0, 1.0), (4, 5, 6)), Scored((1.0,), (2,)), pair(-1.0)])
    assert pairs.delta.tolist() == [1, 2, 1, -1] and pairs.prompt.tolist() == [0, 0, 0, 1]
    assert pairs.weight.tolist() == pytest.approx([1 / 3] * 3 + [1.0]) and pairs.longer.tolist() == [-1, -2, -1, 0]


def test_nothing_to_compare() -> None:
    found = reward_measures([Scored((1.0,), (3,))])
    assert all(math.isnan(found[name].value) for name in ("accuracy", "nll", "ece")) and found["accuracy"].n == 0


# Length.


def test_spearman() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 400]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(0.9486832980505138)  # scipy.stats.spearmanr
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_the_residual_has_no_slope_left() -> None:
    """Scores 0.3 a token plus noise: the slope is found, and exactly 0 after it is taken out, as is the correlation."""
    random = np.random.default_rng(0)
    groups = []
    for _ in range(50):
        lengths = random.integers(5, 60, 4)
        scores = 0.3 * lengths + random.normal(0, 2, 4) + random.normal(0, 30)
        groups.append(Scored(tuple(scores.tolist()), tuple(lengths.tolist())))
    slope = length_slope(groups)
    assert slope == pytest.approx(0.3, abs=0.02)
    rest = [Scored(tuple(residual(g.scores, g.lengths, slope)), g.lengths) for g in groups]
    assert length_slope(rest) == pytest.approx(0.0, abs=1e-12)
    centred = (
        [np.array(g.scores) - np.mean(g.scores) for g in rest],
        [np.array(g.lengths) - np.mean(g.lengths) for g in rest],
    )
    assert np.corrcoef(*(np.concatenate(side) for side in centred))[0, 1] == pytest.approx(0.0, abs=1e-12)
    assert all(np.mean(a.scores) == pytest.approx(np.mean(b.scores)) for a, b in zip(groups, rest, strict=True))


def test_length_figures_of_a_model_that_counts_tokens() -> None:
    """Always for the longer one: right where the chosen is longer, wrong where it is shorter."""
    groups = [Scored((float(a), float(b)), (a, b)) for a, b in ((9, 4), (8, 3), (4, 9), (2, 7), (5, 5))]
    found = reward_measures(groups)
    assert found["len_corr"].value == pytest.approx(1.0) and found["len_slope"].value == pytest.approx(1.0)
    assert found["accuracy_chosen_longer"].value == 1.0 and found["accuracy_chosen_shorter"].value == 0.0
    assert found["accuracy_chosen_shorter"].n == 2


def test_the_calibration_error_of_equal_confidences_has_no_order() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(200) < 0.6).astype(float)
    gap = abs(label.mean() - 1 / (1 + math.exp(-1)))
    assert ece(np.ones(200), label) == pytest.approx(gap) == ece(np.ones(200), label, equal_mass=False)
    delta = rng.integers(-3, 4, 200).astype(float)
    order = rng.permutation(200)
    assert ece(delta, label) == pytest.approx(ece(delta[order], label[order]), abs=1e-12)


def test_a_pair_whose_label_is_even_is_neither_right_nor_wrong() -> None:
    pairs = [Scored((1.0, 0.0), (3, 4), 0.5), Scored((0.0, 1.0), (3, 4), 0.5), Scored((2.0, 1.0), (3, 4), 0.8)]
    figures = reward_measures(pairs)
    assert figures["accuracy"] == figures["accuracy_chosen_shorter"] == wilson(1, 1)
    assert (figures["margin"].value, figures["margin"].n, figures["brier"].n) == (1.0, 1, 3)
    assert reward_deltas(pairs, pairs)["delta/accuracy"].n == 1
