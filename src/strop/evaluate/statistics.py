"""Figures with n and a 95 % interval: means, win rates, pass@k, majority votes, paired differences.

The unit that is drawn at random is the prompt: samples of one prompt are alike, so intervals resample
prompts with all their samples (percentile bootstrap, seeded). Where every prompt gives one 0 or 1 the
draws are independent and binary, and Wilson's interval is used instead; so too where all agree, since
resampling a constant would claim certainty. A number that is no share (a margin) and is the same for all
prompts has no interval.

A value that is None or NaN is unscorable: left out, and not counted in n.

Length-controlled win rates stand in `wins`. Left out: BCa intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Value = float | bool | None
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000
NUM_VOTES = 1_000
BLOCK = 1 << 21
"""Numbers that a block of resamples holds at most: 16 MiB."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure, its interval, and how many scored values it rests on.

    Attributes:
        value: NaN if nothing was scored.
        low, high: the interval's ends; None where one prompt cannot tell how prompts differ.
        n: samples for a mean; prompts for pass@k, majority votes, win rates and paired differences.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes null."""
        return {
            "value": None if math.isnan(self.value) else self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Measure:
        """The inverse of `to_json`.

        Raises: ValueError if a key is missing or unknown.
        """
        if set(value) != {"value", "low", "high", "n"}:
            raise ValueError(f"a measure has value, low, high and n, not {sorted(value)}")
        number = math.nan if value["value"] is None else float(value["value"])
        return Measure(number, value["low"], value["high"], int(value["n"]))


def measure(values_by_prompt: Sequence[Sequence[Value]], *, share: bool | None = None, seed: int = 0) -> Measure:
    """The mean over prompts of each one's mean over its scored samples; n counts the samples.

    Prompts without a scored sample are left out.

    Args: share: whether a value says how often something is so (in [0, 1]) rather than how much of something
        there is; None takes values that are all 0 or 1 for a share, as a verifier's are.
    """
    scored = [_scored(values) for values in values_by_prompt]
    means = np.array([values.mean() for values in scored if len(values)])
    if share is None:
        share = all(np.isin(values, (0.0, 1.0)).all() for values in scored)
    return _summary(means, sum(map(len, scored)), seed, binary=share)


def wilson(num_successes: float, n: int, confidence: float = CONFIDENCE) -> Measure:
    """A share of n independent binary draws, with Wilson's score interval.

    With p = successes / n and z the normal quantile, the ends are
    (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n).
    Wilson 1927, J. Am. Stat. Assoc. 22.
    """
    assert 0 <= num_successes <= n, (num_successes, n)
    if n == 0:
        return Measure(math.nan, None, None, 0)
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    p = num_successes / n
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Measure(p, min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)), n)


def bootstrap(
    values: npt.ArrayLike, *, seed: int = 0, confidence: float = CONFIDENCE, num_resamples: int = NUM_RESAMPLES
) -> tuple[float, float] | None:
    """Percentile interval of the mean of independent values (one a prompt); None for fewer than two.

    Efron 1979; the ends are the (1 - confidence)/2 quantiles of the means of resamples with replacement.
    """
    data = np.asarray(values, np.float64)
    if len(data) < 2:
        return None
    generator = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    rows = max(1, BLOCK // len(data))
    for start in range(0, num_resamples, rows):
        block = means[start : start + rows]
        block[:] = data[generator.integers(0, len(data), (len(block), len(data)), dtype=np.int32)].mean(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def paired(ours: Sequence[Sequence[Value]], theirs: Sequence[Sequence[Value]], *, seed: int = 0) -> Measure:
    """The mean difference ours - theirs over prompts that both scored, with a paired bootstrap; n counts prompts.

    Args: values by prompt, the same prompts in the same order; numbers of samples may differ.
    """
    both = _both(ours, theirs)
    differences = np.array([a.mean() - b.mean() for a, b in both])
    return _summary(differences, len(both), seed, binary=False)


def outcomes(ours: Sequence[Sequence[Value]], theirs: Sequence[Sequence[Value]]) -> list[tuple[float, float] | None]:
    """How often each prompt's samples of ours score higher than theirs, and how often as high.

    Each of our samples meets each of theirs. None for prompts that a side has no scored sample of.
    """
    _check_same(ours, theirs)
    found: list[tuple[float, float] | None] = []
    for row in zip(ours, theirs, strict=True):
        a, b = (_scored(values) for values in row)
        met = len(a) and len(b)
        found.append((float((a[:, None] > b).mean()), float((a[:, None] == b).mean())) if met else None)
    return found


def pass_at_k(n: int, num_correct: int, k: int) -> float:
    """The chance that k of n samples, drawn without replacement, hold a correct one: 1 - C(n - c, k) / C(n, k).

    Computed as 1 - prod_{i = n-c+1..n} (1 - k/i). Unbiased for the chance with k fresh samples, which
    1 - (1 - c/n)^k is not. Chen et al. 2021, arXiv:2107.03374, eq. 1.
    """
    assert 0 <= num_correct <= n and 1 <= k <= n, (n, num_correct, k)
    if n - num_correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - num_correct + 1, n + 1))


def measure_pass_at_k(correct_by_prompt: Sequence[Sequence[Value]], k: int, *, seed: int = 0) -> Measure:
    """pass@k averaged over prompts; n counts prompts with at least k scored samples, the others are left out.

    Raises: ValueError if a value is neither 0 nor 1, or k is below 1.
    """
    return measure([[value] for value in pass_values(correct_by_prompt, k)], share=True, seed=seed)


def pass_values(correct_by_prompt: Sequence[Sequence[Value]], k: int) -> list[Value]:
    """Each prompt's pass@k; None with fewer than k scored samples. Raises: as `measure_pass_at_k`."""
    _check(k >= 1, f"k is {k}; pass@k needs at least 1")
    scored = [_correct(values) for values in correct_by_prompt]
    return [pass_at_k(len(values), int(values.sum()), k) if len(values) >= k else None for values in scored]


def majority(answers: Sequence[str | None], correct: Sequence[Value]) -> float:
    """The share of correct ones among the answers given most often; 0 if nobody answered.

    Ties split: two leading answers of which one is correct give a half. None (no answer found) never
    wins. Where samples with one answer were judged differently, their mean counts.
    """
    return weighted_vote(answers, [1.0] * len(answers), correct)


def weighted_vote(answers: Sequence[str | None], weights: Sequence[float], correct: Sequence[Value]) -> float:
    """`majority` with a weight for each voice: the answer with the largest sum of weights wins, if it is not 0.

    Raises: ValueError for a negative weight. Li et al. 2023, arXiv:2206.02336 (a verifier's scores as weights).
    """
    _check(
        all(weight >= 0 for weight in weights), f"a vote's weights must not be negative, got {min(weights, default=0)}"
    )
    return _mean_vote(answers, weights, correct, np.arange(len(answers))[None])


def measure_majority(
    answers_by_prompt: Sequence[Sequence[str | None]],
    correct_by_prompt: Sequence[Sequence[Value]],
    k: int,
    *,
    seed: int = 0,
) -> Measure:
    """maj@k: how often the most frequent of k samples' canonical answers is correct; n counts prompts.

    For each prompt the mean of `majority` over all choices of k of its n samples if they are at most
    1,000, else over 1,000 seeded ones. A sample with an answer nobody could judge is left out; prompts
    with fewer than k samples left are left out. maj@1 is the mean accuracy.

    Raises: ValueError if answers and judgements differ in number, a judgement is neither 0 nor 1, or k is below 1.
    Wang et al. 2022, arXiv:2203.11171 (self-consistency).
    """
    return measure_vote(
        answers_by_prompt, [[1.0] * len(row) for row in answers_by_prompt], correct_by_prompt, k, seed=seed
    )


def measure_vote(
    answers_by_prompt: Sequence[Sequence[str | None]],
    weights_by_prompt: Sequence[Sequence[Value]],
    correct_by_prompt: Sequence[Sequence[Value]],
    k: int,
    *,
    seed: int = 0,
) -> Measure:
    """`measure_majority` with a weight for each voice; a sample whose weight is unscorable is left out, too.

    Raises: as `measure_majority`; ValueError for a negative weight.
    """
    values = vote_values(answers_by_prompt, weights_by_prompt, correct_by_prompt, k, seed=seed)
    return measure([[value] for value in values], share=True, seed=seed)


def vote_values(
    answers_by_prompt: Sequence[Sequence[str | None]],
    weights_by_prompt: Sequence[Sequence[Value]],
    correct_by_prompt: Sequence[Sequence[Value]],
    k: int,
    *,
    seed: int = 0,
) -> list[Value]:
    """Each prompt's `measure_vote`; None with fewer than k voices. Raises: as that."""
    _check(k >= 1, f"k is {k}; maj@k needs at least 1")
    scores: list[Value] = []
    rows = zip(answers_by_prompt, weights_by_prompt, correct_by_prompt, strict=True)
    for index, (answers, weights, correct) in enumerate(rows):
        _check(len(answers) == len(correct), f"prompt {index} has {len(answers)} answers and {len(correct)} judgements")
        voices = [
            (a, float(w), c)
            for a, w, c in zip(answers, weights, correct, strict=True)
            if w is not None and (a is None or len(_correct([c])))
        ]
        _check(
            all(w >= 0 for _, w, _ in voices), f"prompt {index} has a negative weight; a vote needs weights from 0 on"
        )
        if len(voices) < k:
            scores.append(None)
            continue
        choices = _choices(len(voices), k, np.random.default_rng((seed, index)))
        named, weighed, judged = zip(*voices, strict=True)
        scores.append(_mean_vote(named, weighed, judged, choices))
    return scores


def _choices(n: int, k: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Choices of k of n places, [choices, k]: all of them, or 1,000 drawn at random if there are more."""
    if math.comb(n, k) <= NUM_VOTES:
        return np.array(list(combinations(range(n), k)), np.int64)
    return np.argsort(generator.random((NUM_VOTES, n)), axis=1)[:, :k]


def _mean_vote(
    answers: Sequence[str | None],
    weights: Sequence[float],
    correct: Sequence[Value],
    choices: npt.NDArray[np.int64],
) -> float:
    """`weighted_vote` of each choice of samples, [choices, k], averaged; every answer is judged.

    Where samples with one answer were judged differently, their mean counts, whatever their weights.
    """
    names = sorted({a for a in answers if a is not None})
    if not names:
        return 0.0
    given = np.array([[a == name for name in names] for a in answers], np.int64)  # [n, answers]
    assert all(c is not None for a, c in zip(answers, correct, strict=True) if a is not None)
    right = given * np.array([float(c or 0) for c in correct])[:, None]
    counts, rights = given[choices].sum(1), right[choices].sum(1)  # [choices, answers]
    votes = (given * np.asarray(weights, np.float64)[:, None])[choices].sum(1)
    leads = (votes == votes.max(1, keepdims=True)) & (votes > 0)
    shares = np.where(leads, rights / np.maximum(counts, 1), 0.0).sum(1) / np.maximum(leads.sum(1), 1)
    return float(shares.mean())


def _summary(values: Floats, n: int, seed: int, *, binary: bool) -> Measure:
    """The mean of one value a prompt, with Wilson's interval for binary draws, else the bootstrap's.

    `binary`: the samples behind the values are 0 or 1, so values that are all 0 or 1 are binary draws.
    """
    if not len(values):
        return Measure(math.nan, None, None, 0)
    if binary and np.isin(values, (0.0, 1.0)).all():
        share = wilson(float(values.sum()), len(values))
        return Measure(share.value, share.low, share.high, n)
    interval = None if (values == values[0]).all() else bootstrap(values, seed=seed)
    low, high = interval if interval else (None, None)
    return Measure(float(values.mean()), low, high, n)


def _both(ours: Sequence[Sequence[Value]], theirs: Sequence[Sequence[Value]]) -> list[tuple[Floats, Floats]]:
    _check_same(ours, theirs)
    both = [(_scored(a), _scored(b)) for a, b in zip(ours, theirs, strict=True)]
    return [(a, b) for a, b in both if len(a) and len(b)]


def _check_same(ours: Sequence[Sequence[Value]], theirs: Sequence[Sequence[Value]]) -> None:
    _check(len(ours) == len(theirs), f"{len(ours)} prompts against {len(theirs)}; a comparison needs the same prompts")


def _scored(values: Sequence[Value]) -> Floats:
    """The values that are neither None nor NaN."""
    numbers = np.array([math.nan if value is None else float(value) for value in values], np.float64)
    return numbers[~np.isnan(numbers)]


def _correct(values: Sequence[Value]) -> Floats:
    scored = _scored(values)
    _check(bool(np.isin(scored, (0.0, 1.0)).all()), f"expected right (1) or wrong (0), got {scored[:3].tolist()}")
    return scored


def _check(good: bool, text: str) -> None:
    if not good:
        raise ValueError(text)
