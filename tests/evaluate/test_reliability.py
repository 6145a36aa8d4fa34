"""Reliability diagrams: which bin says what, and that honest scorers stand on the diagonal."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from strop.evaluate.reliability import reliability, write_reliability


def test_a_bin_says_how_sure_and_how_right():
    (point,) = reliability([math.log(3), -math.log(3), math.log(3), 0.0], [1.0, 1.0, 1.0, 1.0])
    assert point.confidence == pytest.approx((3 * 0.75 + 0.5) / 4)
    assert point.right == pytest.approx((1 + 0 + 1 + 0.5) / 4) and point.n == 4
    assert point.low is not None and point.high is not None and point.low < point.right < point.high


def test_what_always_says_what_it_knows_stands_on_the_diagonal():
    rng = np.random.default_rng(0)
    delta = rng.normal(0, 2, 20_000)
    label = (rng.random(20_000) < 1 / (1 + np.exp(-delta))).astype(float)
    points = reliability(delta, label)
    assert len(points) == 10 and {p.n for p in points} == {2000}
    assert all(abs(p.right - p.confidence) < 0.04 for p in points)
    assert [p.confidence for p in points] == sorted(p.confidence for p in points)


def test_the_temperature_makes_less_sure_and_changes_no_bin():
    rng = np.random.default_rng(1)
    delta, label = rng.normal(0, 3, 400), rng.integers(0, 2, 400).astype(float)
    sharp, soft = reliability(delta, label), reliability(delta, label, 4.0)
    assert [p.right for p in sharp] == [p.right for p in soft]
    assert all(s.confidence < t.confidence for s, t in zip(soft, sharp, strict=True))


def test_few_comparisons_make_few_bins_and_none_makes_none():
    assert reliability([], []) == ()
    assert [p.n for p in reliability([1.0] * 17, [1.0] * 17)] == [9, 8]


def test_sides_may_change_places():
    delta, label = np.array([2.0, -1.0, 0.5, 0.0]), np.array([1.0, 0.2, 0.0, 0.7])
    assert reliability(delta, label) == reliability(-delta, 1 - label)


def test_the_file_holds_the_curves_by_name(tmp_path):
    write_reliability(tmp_path, {"as trained": reliability([1.0] * 8, [1.0] * 8)})
    told = json.loads((tmp_path / "calibration.json").read_text())["curves"]["as trained"]
    assert told[0]["n"] == 8 and told[0]["right"] == 1.0 and told[0]["high"] == 1.0
