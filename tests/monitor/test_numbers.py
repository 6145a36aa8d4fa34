"""The statistics against closed forms, and against what scipy 1.16 gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strop.evaluate.ranks import ranks, spearman
from strop.monitor import numbers

QUANTILES = {  # scipy.stats.t.ppf at 0.9, 0.975, 0.995, 0.999
    7: (1.4149239276505086, 2.364624251592784, 3.4994832973504924, 4.785289628638333),
    11: (1.3634303180205407, 2.200985160091639, 3.1058065155392804, 4.024701037630738),
    31: (1.3094635494946454, 2.039513446396408, 2.744041919294269, 3.3748992804233016),
    127: (1.2882531090393643, 1.9788195347028539, 2.615096008429867, 3.155645327802522),
}


@pytest.mark.parametrize("df", QUANTILES)
def test_quantiles_of_student_are_right_to_one_percent(df: int) -> None:
    found = [numbers.t_quantile(p, df) for p in (0.9, 0.975, 0.995, 0.999)]
    assert found == pytest.approx(QUANTILES[df], rel=0.01)


def test_a_change_is_the_mean_with_students_bounds() -> None:
    values = np.arange(16.0)
    found = numbers.change(values, 0.05)
    half = 1.753050355692572 * values.std(ddof=1) / 4
    assert (found.value, found.n) == (7.5, 16)
    assert found.low == pytest.approx(7.5 - half, rel=1e-3) and found.high == pytest.approx(7.5 + half, rel=1e-3)
    assert found.up and not found.down
    assert numbers.change([*values, math.nan], 0.05) == found


def test_few_prompts_show_nothing() -> None:
    found = numbers.change([1.0] * 7, 0.05)
    assert not found.up and (found.low, found.high) == (-math.inf, math.inf)


def test_ranks_and_their_correlation_with_ties() -> None:
    a, b = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8]
    assert ranks(a).tolist() == [4.5, 1.5, 6.0, 1.5, 7.5, 10.0, 3.0, 9.0, 7.5, 4.5]
    assert spearman(a, b) == pytest.approx(0.13471506281091267, abs=1e-12)  # scipy.stats.spearmanr
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_the_slope_within_cells_is_exact_whatever_the_cells_levels() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 4))
    slope, error = numbers.within_slope(x, 3.0 * x + 100 * rng.normal(size=(30, 1)))
    assert slope == pytest.approx(3.0) and error == pytest.approx(0.0, abs=1e-12)


def test_the_slope_is_that_of_least_squares_with_an_intercept_a_cell_and_missing_samples() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    x[3, 1] = y[5, 2] = math.nan
    known = ~np.isnan(x) & ~np.isnan(y)
    cell = np.repeat(np.arange(40), 3).reshape(40, 3)[known]
    design = np.column_stack([x[known], np.eye(40)[cell]])
    expected = np.linalg.lstsq(design, y[known], rcond=None)[0][0]
    assert numbers.within_slope(x, y)[0] == pytest.approx(expected)


def test_the_slopes_error_covers_as_it_should() -> None:
    """Of 400 draws without an effect about 5 % lie 1.96 errors away."""
    rng = np.random.default_rng(3)
    far = 0
    for _ in range(400):
        slope, error = numbers.within_slope(rng.normal(size=(60, 4)), rng.normal(size=(60, 4)))
        far += abs(slope) > 1.96 * error
    assert 8 <= far <= 36


def test_a_feature_that_never_varies_has_no_slope() -> None:
    slope, error = numbers.within_slope(np.ones((9, 4)), np.random.default_rng(0).normal(size=(9, 4)))
    assert math.isnan(slope) and error == math.inf


def test_false_discovery_by_the_step_up_rule() -> None:
    """The p-values of Benjamini and Hochberg's successors; expected: scipy.stats.false_discovery_control."""
    p = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216, 0.222, 0.251, 0.269, 0.275, 0.34]
    p += [0.341, 0.384, 0.569, 0.594, 0.696, 0.762, 0.94, 0.942, 0.975, 0.986]
    expected = [0.025, 0.1, *[0.21] * 3, 0.25, 0.2642857142857143, *[0.49107142857142866] * 7, *[0.5328125] * 2]
    expected += [0.5647058823529413, *[0.781578947368421] * 2, 0.87, 0.9071428571428571, *[0.986] * 4]
    assert numbers.false_discovery(p) == pytest.approx(expected)
    assert numbers.false_discovery(p[::-1]) == pytest.approx(expected[::-1])


def test_lift_by_hand() -> None:
    assert numbers.log_odds_lift(10, 10, 0, 10) == pytest.approx(math.log(21))
    assert numbers.log_odds_lift(5, 10, 5, 10) == 0.0


def test_the_tail_is_exact_far_out() -> None:
    assert numbers.upper_tail(10.0) == pytest.approx(7.61985302416047e-24)
    assert numbers.upper_tail(0.0) == 0.5


def test_looks_spend_the_level() -> None:
    assert [numbers.level_at(0.05, k) for k in (1, 4)] == [0.025, 0.01]
