import math
import random

import pytest

from strop.report.series import domain, join, running_mean, thin, tick_words, ticks, window_of


def test_join_lines_series_up_by_step():
    assert join([[(0, 1.0), (2, 3.0)], [(2, 5.0), (4, 6.0)]]) == [(0, (1.0, None)), (2, (3.0, 5.0)), (4, (None, 6.0))]


@pytest.mark.parametrize("num_series", [1, 2, 7])
def test_thinning_keeps_ends_and_extremes_of_every_series(num_series):
    rng = random.Random(num_series)
    rows = [(t, tuple(rng.gauss(0, 1) for _ in range(num_series))) for t in range(5000)]
    kept = thin(rows, 400)
    assert len(kept) <= 400
    assert kept[0] == rows[0] and kept[-1] == rows[-1]
    assert [t for t, _ in kept] == sorted({t for t, _ in kept})
    for column in range(num_series):
        values = [v[column] for _, v in rows]
        assert min(values) in [v[column] for _, v in kept] and max(values) in [v[column] for _, v in kept]


def test_thinning_leaves_short_series_and_every_evaluation_alone():
    rows = [(t, (float(t), 1.0 if t % 100 == 0 else None)) for t in range(2000)]
    kept = thin(rows, 400)
    assert len(kept) <= 400 and sum(v[1] is not None for _, v in kept) == 20
    assert thin(rows[:400], 400) == rows[:400]


def test_thinning_keeps_the_steps_that_were_not_finite():
    rows = [(t, (math.nan if t == 777 else math.sin(t),)) for t in range(3000)]
    assert 777 in [t for t, _ in thin(rows, 100)]


def test_a_constant_series_and_a_huge_one_are_thinned_too():
    assert 2 <= len(thin([(t, (1.0,)) for t in range(9999)], 50)) <= 50
    assert len(thin([(t, (math.inf,)) for t in range(9999)], 50)) <= 50


def test_running_mean_of_a_line_is_the_line_but_for_its_last_points():
    line = [(t, 2.0 * t) for t in range(100)]
    assert running_mean(line, 9)[4:-4] == line[4:-4]
    assert running_mean(line, 9)[0] == (0, 3.0)  # of the first four values
    assert [v for _, v in running_mean([(0, 1.0), (1, math.nan), (2, 3.0)], 3)] == [2.0, 2.0]


def test_only_noise_is_smoothed():
    rng = random.Random(0)
    assert window_of([t / 500 for t in range(500)]) == 1
    assert window_of([1.0] * 500) == 1
    assert window_of([rng.random() for _ in range(30)]) == 1
    window = window_of([rng.random() for _ in range(500)])
    assert window > 1 and window % 2 == 1


@pytest.mark.parametrize("low, high", [(0, 1), (-3.2, 8.8), (1e-7, 9e-7), (0, 12345), (-1e-3, -1e-4), (5, 5.0001)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 9
    assert all(low - 1e-9 * (high - low) <= t <= high + 1e-9 * (high - low) for t in found)
    strides = {round((b - a) / (high - low), 6) for a, b in zip(found, found[1:], strict=False)}
    assert len(strides) == 1
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]


@pytest.mark.parametrize("values", [[], [0.0], [3.0, 3.0], [5e-324, 0.0], [-1e149, 1e149], [0.5, 0.5 + 1e-16]])
def test_any_range_can_be_an_axis(values):
    low, high = domain(values)
    assert low < high and all(low <= v <= high for v in values) and ticks(low, high)


@pytest.mark.parametrize("low, high", [(6.194, 6.204), (0.50061, 0.50069), (-1234.7, -1233.9), (100.12, 100.121)])
def test_no_two_ticks_of_a_narrow_range_read_alike_and_each_says_its_value(low, high):
    values = ticks(low, high, 4)
    words = tick_words(values)
    assert [float(w.replace(",", "").replace("−", "-")) for w in words] == pytest.approx(values, rel=1e-12)


def test_ticks_of_a_wide_range_are_short():
    assert tick_words(ticks(0, 1, 4)) == ["0", "0.25", "0.5", "0.75", "1"] and tick_words([0.0]) == ["0"]
    assert tick_words([0.0, 5e-06, 1e-05]) == ["0", "5e-6", "1e-5"] and tick_words([]) == []
