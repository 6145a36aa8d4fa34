"""Figures of step judgements: by hand, and what the labels do not tell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strop.evaluate.steps import Judged, auroc, f1, first_error, step_measures


@pytest.mark.parametrize(
    ("logits", "labels", "found"),
    [
        ((1.0, -1.0, 1.0), (1, 0, 0), True),  # what comes behind the first error does not matter
        ((1.0, -1.0, -1.0), (1, 0, 1), True),
        ((-1.0, -1.0), (1, 0), False),  # called too early
        ((1.0, 1.0, -1.0), (1, 0, 0), False),  # too late
        ((1.0, 2.0), (1, 1), True),
        ((1.0, -2.0), (1, 1), False),
        ((1.0, 2.0), (1, 0), False),
        ((1.0, -1.0), (True, False, None), True),  # unlabelled behind the first error
        ((1.0, -1.0, 1.0), (None, 0, 1), None),
        ((1.0, -1.0, 1.0), (1, None, 1), None),  # an error may stand there
        ((1.0, -1.0, 1.0), (0.75, 0.25, 1), True),  # soft labels
        ((1.0,), (1, 0), None),  # the wrong step was not read
        ((-1.0, 0.0), (1, 0, 1), False),
        ((1.0, 1.0), (1, 1, 1), None),  # nor was the last one here
    ],
)
def test_first_error(logits, labels, found) -> None:
    assert first_error(Judged(logits, labels)) is found


def test_f1_by_hand() -> None:
    called, true = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 1], bool)
    assert f1(called, true, np.ones(5)) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert f1(called, true, np.array([1.0, 0, 0, 5, 0])) == 1.0
    assert math.isnan(f1(np.zeros(2, bool), np.zeros(2, bool), np.ones(2)))


def test_auroc_counts_pairs() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        scores, right = random.integers(0, 8, 60) / 7, random.random(60) < 0.6
        wins = [(a > b) + (a == b) / 2 for a in scores[right] for b in scores[~right]]
        assert auroc(scores, right) == pytest.approx(float(np.mean(wins)), rel=1e-12)
    assert auroc([1, 2, 3], [False, True, True]) == 1.0 and auroc([3.0, 3.0], [True, False]) == 0.5
    assert math.isnan(auroc([1.0, 2.0], [True, True])) and math.isnan(auroc([], []))


def test_a_weight_of_two_is_two_entries() -> None:
    scores, right = [0.1, 0.5, 0.5, 0.9], [False, True, False, True]
    twice = auroc([*scores, 0.5, 0.9], [*right, False, True])
    assert auroc(scores, right, [1, 1, 2, 2]) == pytest.approx(twice, rel=1e-12)


def test_figures_by_hand_count_labelled_steps() -> None:
    prompts = [
        [Judged((2.0, -1.0, 0.5), (1, 0, None)), Judged((1.0,), (0,))],
        [Judged((0.5, -3.0), (True, 0.9))],
    ]
    got = step_measures(prompts)
    z, y = np.array([2.0, -1.0, 1.0, 0.5, -3.0]), np.array([1, 0, 0, 1, 0.9])
    loss = np.mean(np.log1p(np.exp(-z)) * y + np.log1p(np.exp(z)) * (1 - y))
    assert got["loss"].value == pytest.approx(loss, rel=1e-12)
    assert got["accuracy"].value == pytest.approx(3 / 5) and got["share_right"].value == pytest.approx(3 / 5)
    assert got["f1/right"].value == pytest.approx(4 / 6) and got["f1/wrong"].value == pytest.approx(2 / 4)
    assert got["auroc"].value == pytest.approx(3 / 6)
    assert {name: m.n for name, m in got.items()} == {**dict.fromkeys(got, 5), "first_error_accuracy": 3}
    # A mean over prompts: one of two solutions right in the first, none in the second.
    assert got["first_error_accuracy"].value == pytest.approx(0.25)
    for name in ("loss", "accuracy", "auroc"):
        if got[name].low is not None:
            assert got[name].low <= got[name].value <= got[name].high


def test_a_perfect_and_calibrated_judge() -> None:
    random = np.random.default_rng(1)
    sure = [[Judged((9.0, -9.0), (1, 0))] for _ in range(8)]
    got = step_measures(sure)
    assert [got[name].value for name in ("accuracy", "f1/right", "f1/wrong", "auroc", "first_error_accuracy")] == [
        1
    ] * 5
    assert got["ece"].value < 2e-4
    logits = random.normal(0, 1.5, (400, 5))
    labels = random.random((400, 5)) < 1 / (1 + np.exp(-logits))
    honest = [[Judged(tuple(z), tuple(map(float, y)))] for z, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert step_measures(honest)["ece"].value < 0.05
    boastful = [[Judged(tuple(4 * z for z in j.logits), j.labels) for j in row] for row in honest]
    assert step_measures(boastful)["ece"].value > 0.1


def test_one_class_or_nothing_labelled_gives_no_number_and_no_error() -> None:
    got = step_measures([[Judged((1.0,), (1,))], [Judged((2.0,), (1,))]])
    assert math.isnan(got["auroc"].value) and math.isnan(got["f1/wrong"].value) and got["accuracy"].value == 1.0
    nothing = step_measures([[Judged((1.0,), (None,))]])
    assert math.isnan(nothing["loss"].value) and "first_error_accuracy" not in nothing
