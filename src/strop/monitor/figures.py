"""The figures of one evaluation, each with n and a 95 % bootstrap interval over prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from strop.evaluate.statistics import Measure, measure, paired
from strop.monitor.gains import length_correlations
from strop.monitor.health import cut, entropy, equal_groups, fact, flips, repeats, visible_gap
from strop.monitor.samples import Sample, Snapshot, Value, held_out, kl, length, proxy
from strop.monitor.text import compression, distinct

MEASURED: Mapping[str, tuple[Value, bool]] = {
    "proxy": (proxy, False),
    "held_out": (held_out, False),
    "kl": (kl, False),
    "length": (length, False),
    "repetition": (repeats, True),
    "compression": (lambda sample: compression(sample.text), False),
    "entropy": (entropy, False),
    "clipped_ratio": (cut, True),
    "test_gap": (visible_gap, False),
    "judge_flips": (flips, False),
    "disagreement": (fact("std"), False),
}
"""What is averaged over prompts, and whether it is a share."""

COMPARED = ("proxy", "held_out", "length")
"""Figures whose paired difference to the start is told."""


def figures(now: Snapshot, start: Snapshot, *, seed: int) -> dict[str, Measure]:
    """Every figure that can be had of these samples; differences to the start where the prompts are the same.

    sqrt_kl is sqrt(max(0, KL)) of the mean log-ratio of the samples, an unbiased estimate of the KL, and of
    its interval's ends.
    """
    found: dict[str, Measure] = {}
    for name, (of, share) in MEASURED.items():
        if now.has(of):
            found[name] = measure(now.values(of), share=share, seed=seed)
    for name in _rewards(now):
        found[f"rewards/{name}"] = measure(now.values(_reward(name)), seed=seed)
    if "kl" in found:
        found["sqrt_kl"] = _root(found["kl"])
    found |= _spread(now, seed)
    texts = [[sample.text for sample in row] for row in now.samples]
    for n in (1, 2):
        found[f"distinct_{n}"] = Measure(distinct(texts, n), None, None, len(texts))
    if now is not start and now.prompts == start.prompts:
        for name in COMPARED:
            of = MEASURED[name][0]
            if now.has(of) and start.has(of):
                found[f"delta/{name}"] = paired(now.values(of), start.values(of), seed=seed)
    return {name: m for name, m in found.items() if not math.isnan(m.value)}


def _spread(now: Snapshot, seed: int) -> dict[str, Measure]:
    """How the proxy differs within prompts, and how it goes with length there."""
    rows = [[v for v in row if v is not None] for row in now.values(proxy)]
    several = [float(np.std(row)) for row in rows if len(row) > 1]
    if not several:
        return {}
    found = {
        "reward_std": measure([[value] for value in several], share=False, seed=seed),
        "frac_reward_zero_std": Measure(equal_groups(now), None, None, len(several)),
    }
    ranked = length_correlations(now)
    known = ranked[~np.isnan(ranked)]
    if len(known):
        found["spearman/proxy_length"] = measure([[float(value)] for value in known], share=False, seed=seed)
    return found


def _rewards(now: Snapshot) -> list[str]:
    return list(dict.fromkeys(name for row in now.samples for sample in row for name in sample.rewards))


def _reward(name: str) -> Value:
    def value(sample: Sample) -> float | None:
        return sample.rewards.get(name)

    return value


def _root(found: Measure) -> Measure:
    ends = [None if end is None else math.sqrt(max(0.0, end)) for end in (found.low, found.high)]
    return Measure(math.sqrt(max(0.0, found.value)), ends[0], ends[1], found.n)
