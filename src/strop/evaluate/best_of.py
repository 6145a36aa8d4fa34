"""Best of n: what the best of k samples is worth, estimated from n >= k of them, and what it costs in KL.

The best of the first k samples is a noisy figure; the mean over all choices of k of the n has the same
expectation and needs no choice to be made. `chosen_of_k` says what a choice by one score (a reward model's)
is worth by another (a verifier's), which with `best_of_k_kl` gives the over-optimisation curve of best-of-n.

A reward that is None or NaN is unscorable: such a sample cannot be chosen, so it is left out, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strop.evaluate.statistics import Measure, Value, measure

Floats = npt.NDArray[np.float64]


def best_of_k_weights(n: int, k: int) -> Floats:
    """The chance that each of n samples, from the worst to the best, is the best of k of them, [n].

    w_i = C(i - 1, k - 1) / C(n, k), i = 1 .. n, by w_n = k / n and w_{i-1} = w_i (i - k) / (i - 1), so no
    binomial is ever formed. They sum to 1: k = 1 weighs all alike, k = n takes the best.
    """
    assert 1 <= k <= n, (n, k)
    index = np.arange(n, 1, -1)
    falling = np.cumprod(np.concatenate([[k / n], np.maximum(index - k, 0) / (index - 1)]))
    return np.asarray(falling[::-1], np.float64)


def best_of_k(rewards: Sequence[Value], k: int) -> float:
    """The expected best reward of k samples, from n: sum_i r_(i) C(i - 1, k - 1) / C(n, k), r ascending.

    Unbiased for k fresh samples, the mean of the best over all C(n, k) choices. NaN where fewer than k
    are scored. Nakano et al. 2021 (WebGPT), arXiv:2112.09332, appendix I; with rewards of 0 and 1 it is pass@k.
    """
    return chosen_of_k(rewards, rewards, k)


def chosen_of_k(scores: Sequence[Value], values: Sequence[Value], k: int) -> float:
    """The expected value of the sample with the highest score among k, from n of them.

    Samples with equal scores share their chances, as the first of them in a random order would have it.

    Args: scores choose, values count; one each a sample, in the same order. A sample without either is left out.
    Returns: NaN where fewer than k are left.
    """
    _check(k)
    pairs = _both(scores, values)
    if len(pairs) < k:
        return math.nan
    score, value = np.array(pairs).T
    order = np.argsort(score, kind="stable")
    _, tie = np.unique(score, return_inverse=True)
    chance = np.bincount(tie[order], best_of_k_weights(len(pairs), k))
    return float(chance @ (np.bincount(tie, value) / np.bincount(tie)))


def best_of_n_kl(n: int) -> float:
    """An upper bound, in nats, of the KL of best-of-n from the policy it samples: log n - (n - 1) / n.

    Exact where no two answers score the same; with ties, as short answers and verifiers have them, the KL is less.
    Stiennon et al. 2020, arXiv:2009.01325, appendix G.3; a bound: Beirami et al. 2024, arXiv:2401.01879.
    """
    if n < 1:
        raise ValueError(f"n is {n}; best-of-n takes at least 1 sample")
    return math.log(n) - (n - 1) / n


@dataclass(frozen=True, slots=True)
class Curve:
    """Best-of-k for several k over the same prompts, so that its points can be compared.

    Attributes:
        points: by k; n counts prompts.
        num_unscorable: samples left out, those of prompts left out among them.
        num_left_out: prompts with fewer scored samples than the largest k.
    """

    points: Mapping[int, Measure]
    num_unscorable: int
    num_left_out: int


def best_of_curve(
    rewards_by_prompt: Sequence[Sequence[Value]], ks: Sequence[int] | None = None, *, seed: int = 0
) -> Curve:
    """Best-of-k averaged over prompts, with intervals by prompt; k in powers of two unless it is told.

    Where nothing is told, k goes up to what half of the prompts have; prompts with fewer are left out.
    Raises: ValueError for a k below 1.
    """
    return chosen_curve(rewards_by_prompt, rewards_by_prompt, ks, seed=seed)


def chosen_curve(
    scores_by_prompt: Sequence[Sequence[Value]],
    values_by_prompt: Sequence[Sequence[Value]],
    ks: Sequence[int] | None = None,
    *,
    seed: int = 0,
) -> Curve:
    """`best_of_curve` of values, chosen by scores: best-of-n as a reward model does it, as a verifier sees it."""
    both = [_both(scores, values) for scores, values in zip(scores_by_prompt, values_by_prompt, strict=True)]
    counts = [len(pairs) for pairs in both]
    ks = sorted(set(_powers(counts) if ks is None else ks))
    for k in ks:
        _check(k)
    kept = [pairs for pairs in both if ks and len(pairs) >= ks[-1]]
    binary = all(value in (0.0, 1.0) for pairs in kept for _, value in pairs)
    columns = [([s for s, _ in pairs], [v for _, v in pairs]) for pairs in kept]
    points = {k: measure([[chosen_of_k(s, v, k)] for s, v in columns], share=binary, seed=seed) for k in ks}
    return Curve(points, sum(map(len, scores_by_prompt)) - sum(counts), len(both) - len(kept))


def _powers(counts: Sequence[int]) -> list[int]:
    """1, 2, 4, ... up to the number of scored samples that half of the prompts have."""
    enough = sorted(counts)[len(counts) // 2] if counts else 0
    return [2**i for i in range(enough.bit_length())]


def _both(scores: Sequence[Value], values: Sequence[Value]) -> list[tuple[float, float]]:
    """The samples that have a score and a value."""
    pairs = [(s, v) for s, v in zip(scores, values, strict=True) if s is not None and v is not None]
    return [(float(s), float(v)) for s, v in pairs if not math.isnan(s) and not math.isnan(v)]


def _check(k: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}; the best of k needs at least 1")
