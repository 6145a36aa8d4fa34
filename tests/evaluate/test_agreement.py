"""Agreement: closed forms, textbook examples, other libraries where they are there, and what the report counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strop.evaluate.agreement import (
    Judged,
    agreement_measures,
    category,
    ceiling,
    cohen_kappa,
    coincidences,
    krippendorff_alpha,
    verdict_of,
)


def alpha(ratings: list[list[int]]) -> float:
    """Of ratings by comparison and rater."""
    return krippendorff_alpha(coincidences(ratings).sum(0))


def judged(prompt: int, p: float | None, *people: float | None, lengths: tuple[int, int] = (5, 5), **more) -> Judged:
    return Judged(prompt=prompt, probability=p, people=people, lengths=lengths, **more)


def test_kappa_of_the_textbook() -> None:
    """Both yes 20, both no 15 of 50, by hand: p_o = 0.7, p_e = 0.5, kappa = 0.4."""
    assert cohen_kappa([[20, 5], [10, 15]]) == pytest.approx(0.4, rel=1e-12)
    assert cohen_kappa(np.array([[20, 5], [10, 15]]) * 0.37) == pytest.approx(0.4, rel=1e-12)
    assert cohen_kappa(np.eye(3)) == pytest.approx(1.0) and cohen_kappa([[0, 1], [1, 0]]) == pytest.approx(-1.0)
    assert cohen_kappa(np.ones((3, 3))) == pytest.approx(0.0, abs=1e-15)
    assert math.isnan(cohen_kappa([[7, 0], [0, 0]])) and math.isnan(cohen_kappa(np.zeros((3, 3))))


def test_alpha_of_krippendorffs_own_example() -> None:
    """Section A of his paper: two coders, ten binary ratings, four of them different; alpha = 0.095."""
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert alpha([[2 * a, 2 * b] for a, b in zip(first, second, strict=True)]) == pytest.approx(0.095, abs=5e-4)


def test_alpha_with_missing_ratings_by_hand() -> None:
    """Units (2, 2), (2, 0, 0), (1), (0, 0): o = [[3, 0, 1], [0, 0, 0], [1, 0, 2]], n = 7, alpha = 1 - 6 * 2 / 24."""
    ratings = [[2, 2, -1], [2, 0, 0], [1, -1, -1], [-1, 0, 0]]
    table = coincidences(ratings).sum(0)
    assert table.tolist() == [[3, 0, 1], [0, 0, 0], [1, 0, 2]]
    assert krippendorff_alpha(table) == pytest.approx(0.5, rel=1e-12)
    assert alpha([[1, 1], [0, 0], [2, 2]]) == 1.0
    assert math.isnan(alpha([[2, 2], [2, 2]])), "no two categories, so nothing can be said"


def test_kappa_and_alpha_of_other_libraries() -> None:
    random = np.random.default_rng(0)
    ratings = random.integers(-1, 3, (40, 4))
    krippendorff = pytest.importorskip("krippendorff")
    data = np.where(ratings < 0, np.nan, ratings).T
    want = krippendorff.alpha(reliability_data=data, level_of_measurement="nominal")
    assert alpha(ratings.tolist()) == pytest.approx(want, rel=1e-10)
    metrics = pytest.importorskip("sklearn.metrics")
    a, b = random.integers(0, 3, 60), random.integers(0, 3, 60)
    assert cohen_kappa(metrics.confusion_matrix(a, b)) == pytest.approx(metrics.cohen_kappa_score(a, b), rel=1e-12)


def test_verdicts_and_the_ceiling() -> None:
    assert [category(p) for p in (0.0, 0.3, 0.5, 0.7, 1.0, None, math.nan)] == [0, 0, 1, 2, 2, None, None]
    assert category(0.7, tie=True) == 1
    assert [verdict_of(p) for p in ((), (None,), (1.0, None), (1.0, 0.0), (0.5, 0.0), (1.0, 1.0, 0.0))] == [
        None, None, 1.0, 0.5, 0.0, 1.0,
    ]  # fmt: skip
    assert ceiling((1.0, None)) is None
    assert ceiling((1.0, 1.0, 0.0)) == pytest.approx(1 / 3) and ceiling((0.5, 0.5)) == 1.0


def test_a_perfect_labeller() -> None:
    rows = [judged(i, float(i % 2), float(i % 2)) for i in range(40)]
    found = agreement_measures(rows)
    assert {found[name].value for name in ("accuracy", "kappa", "alpha")} == {1.0}
    assert found["ece"].value == found["brier"].value == 0.0
    low, high, n = found["accuracy"].low, found["accuracy"].high, found["accuracy"].n
    assert (n, high) == (40, 1.0) and low == pytest.approx(40 / (40 + 1.959964**2), rel=1e-6), "Wilson's"


def test_ties_abstentions_and_undecided_people() -> None:
    """A tie of the labeller is half right; an abstention counts nowhere; undecided people count for kappa alone."""
    rows = [
        judged(0, 0.9, 1.0),
        judged(1, 0.5, 0.0),
        judged(2, None, 1.0),
        judged(3, 0.2, 0.5),
        judged(4, 0.6, 1.0, tie=True),
        judged(5, 0.4, None),
    ]
    found = agreement_measures(rows)
    assert found["accuracy"].value == pytest.approx(2 / 3) and found["accuracy"].n == 3
    assert found["brier"].value == pytest.approx((0.1**2 + 0.5**2 + 0.4**2) / 3)
    confusion = np.zeros((3, 3))
    for ours, theirs in ((2, 2), (1, 0), (0, 1), (1, 2)):
        confusion[ours, theirs] += 1
    assert found["kappa"].value == pytest.approx(cohen_kappa(confusion)) and found["kappa"].n == 4
    assert agreement_measures([judged(0, None, 1.0), judged(1, 0.5, None)]) == {}


def test_a_labeller_of_length_is_seen_by_what_people_prefer() -> None:
    """It prefers the longer answer: always right where people do, always wrong where they do not."""
    rows = [
        judged(i, float(a > b), float((a > b) == (i % 4 > 0)), lengths=(a, b))
        for i, (a, b) in enumerate([(10 + i, 5) if i % 2 else (5, 10 + i) for i in range(80)])
    ]
    found = agreement_measures(rows)
    assert (found["accuracy/longer"].value, found["accuracy/shorter"].value) == (1.0, 0.0)
    assert found["accuracy/longer"].n == 60 and found["accuracy"].value == 0.75
    buckets = {name: m.n for name, m in found.items() if name.startswith("accuracy/words_")}
    assert list(buckets.values()) == [20, 20, 20, 20] and "accuracy/words_8-17" in buckets


def test_expected_calibration_error_of_probabilities() -> None:
    """It says 0.9 and is right in 7 of 10: an error of 0.2, whichever answer is called the first."""
    rows = [judged(i, 0.9 if i % 2 else 0.1, float((i % 2 == 1) == (i >= 3))) for i in range(10)]
    found = agreement_measures(rows)
    assert found["ece"].value == pytest.approx(0.2, rel=1e-9)
    assert found["accuracy"].value == 0.7


def test_people_with_each_other_are_the_ceiling() -> None:
    rows = [judged(i, 1.0, 1.0, float(i % 4 > 0), None) for i in range(8)]
    found = agreement_measures(rows)
    assert found["people/agree"].value == 0.75 and found["people/agree"].n == 8
    assert found["people/alpha"].value == pytest.approx(alpha([[2, 2 * int(i % 4 > 0)] for i in range(8)]))
    assert "people/agree" not in agreement_measures([judged(0, 1.0, 1.0), judged(1, 0.0, 0.0)])


def test_comparisons_of_one_prompt_count_together() -> None:
    """Nine agreements on one prompt and one disagreement on another: a half, not nine tenths."""
    rows = [*(judged(0, 1.0, 1.0) for _ in range(9)), judged(1, 1.0, 0.0)]
    found = agreement_measures(rows)
    assert found["accuracy"].value == 0.5 and found["accuracy"].n == 10
