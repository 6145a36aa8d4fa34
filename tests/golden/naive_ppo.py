"""PPO's numbers written out as sums over tokens: slow, plain, and sharing no line with the package.

Advantages are the explicit double sum over later TD errors, not a recursion; losses are Python floats.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

Row = Sequence[float]
Rows = Sequence[Row]


def shaped(logprobs: Row, ref_logprobs: Row, terminal: float, beta: float) -> list[float]:
    """-beta (log pi - log ref) at each token; the terminal reward on top of the last."""
    last = len(logprobs) - 1
    return [-beta * (p - r) + (terminal if t == last else 0.0) for t, (p, r) in enumerate(zip(logprobs, ref_logprobs))]  # noqa: B905


def td_errors(rewards: Row, values: Row, gamma: float) -> list[float]:
    """r_t + gamma V_{t+1} - V_t, V beyond the end 0."""
    after = [*values[1:], 0.0]
    return [rewards[t] + gamma * after[t] - values[t] for t in range(len(rewards))]


def advantages(rewards: Row, values: Row, gamma: float, lam: float) -> list[float]:
    """sum over k >= 0 of (gamma lam)^k delta_{t+k}."""
    errors = td_errors(rewards, values, gamma)
    return [sum((gamma * lam) ** k * error for k, error in enumerate(errors[t:])) for t in range(len(errors))]


def monte_carlo(rewards: Row, gamma: float) -> list[float]:
    """sum over k >= 0 of gamma^k r_{t+k}."""
    return [sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]


def whitened(rows: Rows) -> list[list[float]]:
    """Less the mean, by the sample deviation, of all rows' entries together."""
    entries = [x for row in rows for x in row]
    mean, variance = statistics.fmean(entries), statistics.variance(entries)
    return [[(x - mean) / math.sqrt(variance + 1e-8) for x in row] for row in rows]


def policy_loss(logprob: float, old: float, advantage: float, clip: float, dual_clip: float | None) -> float:
    """One token's clipped surrogate, by cases."""
    ratio = math.exp(logprob - old)
    if advantage >= 0:
        return -advantage * min(ratio, 1 + clip)
    loss = -advantage * max(ratio, 1 - clip)
    return loss if dual_clip is None else min(loss, -advantage * dual_clip)


def value_loss(value: float, old: float, returned: float, clip: float) -> float:
    """One token's clipped squared error."""
    moved = old + max(-clip, min(clip, value - old))
    return 0.5 * max((value - returned) ** 2, (moved - returned) ** 2)
