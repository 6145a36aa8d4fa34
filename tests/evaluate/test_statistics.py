"""Figures and intervals: closed forms, identities, and coverage by simulation."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from strop.evaluate.statistics import (
    Measure,
    bootstrap,
    majority,
    measure,
    measure_majority,
    measure_pass_at_k,
    measure_vote,
    paired,
    pass_at_k,
    weighted_vote,
    wilson,
)


def interval(m: Measure) -> tuple[float, float]:
    assert m.low is not None and m.high is not None
    return m.low, m.high


def test_a_measure_is_json_both_ways() -> None:
    m = Measure(0.1 + 0.2, 0.25, None, 7)
    assert Measure.from_json(json.loads(json.dumps(m.to_json()))) == m
    nothing = Measure(math.nan, None, None, 0)
    assert nothing.to_json() == {"value": None, "low": None, "high": None, "n": 0}
    assert math.isnan(Measure.from_json(nothing.to_json()).value)
    with pytest.raises(ValueError, match="a measure has value, low, high and n"):
        Measure.from_json({"value": 1})


def test_wilson_closed_forms() -> None:
    z = 1.959963984540054
    low, high = interval(wilson(0, 10))
    assert low == 0 and high == pytest.approx(z * z / (10 + z * z))
    low, high = interval(wilson(10, 10))
    assert low == pytest.approx(10 / (10 + z * z)) and high == 1
    low, high = interval(wilson(50, 100))
    assert low == pytest.approx(0.5 - 0.5 * z / math.sqrt(100 + z * z)) and high == pytest.approx(1 - low)
    for successes, n in ((3, 17), (16, 17)):  # the ends solve |p - end| = z sqrt(end (1 - end) / n)
        for end in interval(wilson(successes, n)):
            assert abs(successes / n - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n))
    assert wilson(0, 0).n == 0 and wilson(0, 0).low is None


def test_wilson_covers() -> None:
    rng = np.random.default_rng(0)
    for p, n in ((0.5, 30), (0.1, 60), (0.97, 100)):
        hits = [(lambda e: e[0] <= p <= e[1])(interval(wilson(int(rng.binomial(n, p)), n))) for _ in range(2000)]
        assert 0.92 <= np.mean(hits) <= 0.99, (p, n)


def test_the_bootstrap_is_seeded_and_near_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    first = bootstrap(values, seed=1)
    assert first == bootstrap(values, seed=1) != bootstrap(values, seed=2)
    assert first is not None
    half = 1.96 * values.std() / 20
    assert first == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)
    wide = bootstrap(values, confidence=0.99)
    assert wide is not None and wide[0] < first[0] < first[1] < wide[1]
    assert bootstrap([1.0]) is None


def test_the_bootstrap_in_blocks_is_the_bootstrap_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(0, 1, 50)
    whole = bootstrap(values)
    monkeypatch.setattr("strop.evaluate.statistics.BLOCK", 50 * 1234)
    assert bootstrap(values) == pytest.approx(whole, abs=0.02)


def test_intervals_by_prompt_cover_where_intervals_by_sample_would_not() -> None:
    rng = np.random.default_rng(0)
    hits, naive = [], []
    for seed in range(300):
        means = rng.normal(0, 1, 40)
        values = means[:, None] + rng.normal(0, 0.5, (40, 8))
        low, high = bootstrap_of(values, seed)
        hits.append(low <= 0 <= high)
        se = values.std() / math.sqrt(values.size)
        naive.append(abs(values.mean()) <= 1.96 * se)
    assert np.mean(hits) >= 0.90 and np.mean(naive) < 0.75


def bootstrap_of(values: np.ndarray, seed: int) -> tuple[float, float]:
    ends = bootstrap(values.mean(1), seed=seed, num_resamples=1000)
    assert ends is not None
    return ends


def test_ten_thousand_resamples_of_a_thousand_prompts_are_quick() -> None:
    start = time.process_time()
    bootstrap(np.random.default_rng(0).random(1000))
    assert time.process_time() - start < 2


def test_measure_is_the_mean_of_prompt_means_and_counts_what_was_scored() -> None:
    m = measure([[1.0, 2.0, None], [4.0], [None, float("nan")], []])
    assert m.value == (1.5 + 4) / 2 and m.n == 3
    assert m.low is not None and 1.5 <= m.low <= m.value <= (m.high or 0) <= 4
    assert measure([[0.3, 0.4]]) == Measure(0.35, None, None, 2)
    assert measure([[None], []]).n == 0 and math.isnan(measure([]).value)


def test_one_binary_sample_a_prompt_has_wilsons_interval_and_several_a_wider_than_naive_one() -> None:
    assert measure([[True], [False], [True], [None]]) == wilson(2, 3)
    alike = measure([[1.0] * 8] * 5 + [[0.0] * 8] * 5)
    assert (alike.low, alike.high) == (wilson(5, 10).low, wilson(5, 10).high) and alike.n == 80
    perfect = measure([[1, 1, 1]] * 20)
    assert perfect.value == 1 and perfect.low == wilson(20, 20).low < 0.9


def test_a_number_that_is_no_share_never_has_wilsons_interval() -> None:
    assert measure([[0.0]] * 50, share=False) == Measure(0.0, None, None, 50)
    assert measure([[0.0]] * 50, share=True) == wilson(0, 50)
    some = measure([[1.0]] * 5 + [[0.0]] * 45, share=False)
    assert (some.low, some.high) == bootstrap([1.0] * 5 + [0.0] * 45)
    assert measure([[0.5]] * 50, share=True) == Measure(0.5, None, None, 50)


def test_shifting_and_scaling_values_moves_the_interval_with_them() -> None:
    values = [[x] for x in np.random.default_rng(0).random(30).tolist()]
    base = measure(values)
    moved = measure([[2 * x + 5] for [x] in values])
    assert (moved.value, *interval(moved)) == pytest.approx((2 * base.value + 5, *(2 * e + 5 for e in interval(base))))


def test_paired_differences_are_narrower_than_unpaired_and_antisymmetric() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 3, 60)
    ours = [[h + 0.5 + e] for h, e in zip(hard, rng.normal(0, 0.1, 60), strict=True)]
    theirs = [[h + e, None] for h, e in zip(hard, rng.normal(0, 0.1, 60), strict=True)]
    m = paired(ours, theirs)
    low, high = interval(m)
    assert low < 0.5 < high and high - low < 0.2 and m.n == 60
    assert np.ptp(interval(measure(ours))) > 1
    back = paired(theirs, ours)
    assert back.value == pytest.approx(-m.value) and interval(back) == pytest.approx((-high, -low), abs=0.01)
    assert paired(ours, ours) == Measure(0.0, None, None, 60)  # no prompt differs, which tells nothing of the spread
    some = paired([[1.0], [None], [2.0]], [[0.0], [5.0], [None]])
    assert some == Measure(1.0, None, None, 1)
    with pytest.raises(ValueError, match="2 prompts against 1"):
        paired([[1.0], [2.0]], [[1.0]])


def test_pass_at_k_closed_forms() -> None:
    for n in range(1, 9):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = [any(i < c for i in draw) for draw in combinations(range(n), k)]
                assert pass_at_k(n, c, k) == pytest.approx(np.mean(draws), abs=1e-12)
                assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-12)
    assert pass_at_k(10, 4, 1) == pytest.approx(0.4)
    assert pass_at_k(1000, 1, 100) == pytest.approx(0.1)


def test_pass_at_k_is_unbiased_rises_in_k_and_c_and_its_naive_form_is_biased() -> None:
    p, n, k = 0.15, 10, 4
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    truth = 1 - (1 - p) ** k
    assert sum(w * pass_at_k(n, c, k) for c, w in enumerate(weights)) == pytest.approx(truth, abs=1e-12)
    assert sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(weights)) < truth - 0.02
    table = [[pass_at_k(n, c, k) for k in range(1, n + 1)] for c in range(n + 1)]
    assert (np.diff(table, axis=0) >= -1e-12).all() and (np.diff(table, axis=1) >= -1e-12).all()


def test_measured_pass_at_k_averages_prompts_with_enough_samples() -> None:
    rows = [[1, 0, 0, 0], [0, 0, 0, 0], [True, None, False], [1.0]]
    m = measure_pass_at_k(rows, 2)
    assert m.value == pytest.approx((0.5 + 0 + 1) / 3) and m.n == 3
    assert measure_pass_at_k(rows, 1).value == pytest.approx(measure(rows).value)
    assert measure_pass_at_k([[1], [0], [1]], 1) == wilson(2, 3)
    assert measure_pass_at_k(rows, 9).n == 0
    with pytest.raises(ValueError, match="expected right"):
        measure_pass_at_k([[0.5]], 1)
    with pytest.raises(ValueError, match="k is 0"):
        measure_pass_at_k(rows, 0)


def by_hand(answers: list[str | None], correct: list[float]) -> float:
    votes = Counter(a for a in answers if a is not None)
    leading = [a for a in votes if votes[a] == max(votes.values())]
    right = dict(zip(answers, correct, strict=True))
    return sum(right[a] for a in leading) / len(leading) if leading else 0.0


def test_majority_by_cases() -> None:
    assert majority(["a", "a", "b"], [1, 1, 0]) == 1
    assert majority(["a", "b"], [1, 0]) == 0.5
    assert majority(["a", "b", "c", None], [1, 0, 0, None]) == pytest.approx(1 / 3)
    assert majority([None, None, "a"], [None, 0, 1]) == 1
    assert majority([None, None], [None, None]) == 0
    assert majority(["a", "a"], [1, 0]) == 0.5


def test_maj_at_k_is_exact_for_all_samples_and_few_choices_and_near_it_for_many() -> None:
    rng = np.random.default_rng(0)
    for n, k in ((6, 6), (6, 3), (8, 1), (16, 5), (40, 40)):
        answers = [[None, "a", "b", "c"][i] for i in rng.choice(4, n, p=[0.1, 0.4, 0.3, 0.2])]
        correct = [float(a == "a") for a in answers]
        exact = np.mean([by_hand([answers[i] for i in c], [correct[i] for i in c]) for c in combinations(range(n), k)])
        m = measure_majority([answers], [correct], k, seed=3)
        assert m.value == pytest.approx(exact, abs=1e-12 if math.comb(n, k) <= 1000 else 0.05), (n, k)
        assert m == measure_majority([answers], [correct], k, seed=3) and m.n == 1


def test_maj_at_k_identities() -> None:
    rng = np.random.default_rng(1)
    answers = [[f"{x}" for x in rng.choice(3, 9, p=[0.5, 0.3, 0.2])] for _ in range(50)]
    correct = [[float(a == "0") for a in row] for row in answers]
    accuracy = measure(correct)
    assert measure_majority(answers, correct, 1).value == pytest.approx(accuracy.value)
    assert measure_majority(answers, correct, 9).value > measure_majority(answers, correct, 3).value > accuracy.value
    for k in (2, 5):
        assert measure_majority(answers, correct, k).value <= measure_pass_at_k(correct, k).value
    once = measure_majority([["a"], ["b"], [None]], [[1], [0], [None]], 1)
    assert once == wilson(1, 3)


def test_maj_at_k_leaves_out_what_nobody_judged() -> None:
    m = measure_majority([["a", "b", "b"], ["a", None]], [[1, None, None], [None, None]], 1)
    assert m == wilson(1, 2)  # no answer is wrong; an answer without a judgement is no sample
    assert measure_majority([["a", "b"]], [[1, None]], 2).n == 0
    with pytest.raises(ValueError, match="prompt 0 has 2 answers and 1 judgements"):
        measure_majority([["a", "b"]], [[1]], 1)


def test_no_torch() -> None:
    code = "import sys, strop.evaluate.statistics as s; s.measure([[1.0], [0.5]]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_weighted_vote_with_equal_weights_is_the_majority() -> None:
    random = np.random.default_rng(5)
    for _ in range(20):
        answers = [None if a == 3 else "abc"[a] for a in random.integers(0, 4, 7)]
        correct = [float(a == "b") for a in answers]
        assert weighted_vote(answers, [0.5] * 7, correct) == majority(answers, correct)
    rows = [["a", "b", "a", None], ["b", "b", "a", "c"]]
    right = [[float(a == "a") for a in row] for row in rows]
    for k in (1, 2, 3, 4):
        assert measure_vote(rows, [[2.0] * 4] * 2, right, k) == measure_majority(rows, right, k)


def test_weights_decide_a_vote() -> None:
    answers, correct = ["a", "b", "b", "c"], [1.0, 0.0, 0.0, 0.0]
    assert weighted_vote(answers, [0.9, 0.3, 0.3, 0.0], correct) == 1.0
    assert weighted_vote(answers, [0.6, 0.3, 0.3, 0.0], correct) == 0.5  # a tie is split
    assert weighted_vote(answers, [0.5, 0.3, 0.3, 0.0], correct) == 0.0
    assert weighted_vote(answers, [0.0] * 4, correct) == 0.0  # nothing has weight, so nothing wins
    assert weighted_vote([None, "b"], [9.0, 0.1], [0.0, 1.0]) == 1.0
    # Of three, "a" wins where it is there: in 3 of 4 choices.
    assert measure_vote([answers], [[0.9, 0.3, 0.3, 0.0]], [correct], 3).value == pytest.approx(3 / 4)


def test_voices_without_a_weight_are_left_out_and_negative_ones_refused() -> None:
    assert measure_vote([["a", "b", "b"]], [[1.0, None, 0.5]], [[1.0, 0.0, 0.0]], 2).value == 1.0
    assert measure_vote([["a", "b"]], [[1.0, None]], [[1.0, 0.0]], 2).n == 0
    with pytest.raises(ValueError, match="negative weight"):
        measure_vote([["a"]], [[-0.5]], [[1.0]], 1)
    with pytest.raises(ValueError, match="must not be negative, got -0.5"):
        weighted_vote(["a"], [-0.5], [1.0])
