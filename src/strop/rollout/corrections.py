"""Weights for tokens that another policy sampled than the one whose ratio is clipped.

pi_theta / mu = (pi_theta / pi_old) (pi_old / mu): the clip sees the first factor, and the second,
w = pi_old / mu, multiplies the policy's term as a constant. mu is what really sampled: an engine of
other kernels or precision, or older weights. Each setting maps one sequence's log-probs to its
weights; they differ in how they tame a w that is far from 1.

Where pi_old is not recomputed mu itself is the clip's denominator, and nothing is corrected twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strop import dist

Numbers = NDArray[np.float32]

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to this before exp."""


def log_ratios(old: Numbers, sampled: Numbers) -> NDArray[np.float64]:
    """log w = log pi_old - log mu of each token, clamped to +-20; 0 where the sampler gave nan, so w is 1 there."""
    difference = np.asarray(old, np.float64) - np.asarray(sampled, np.float64)
    return np.clip(np.where(np.isnan(difference), 0.0, difference), -MAX_LOG_RATIO, MAX_LOG_RATIO)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTIS:
    """Truncated importance sampling: min(w, cap) for each token.

    Attributes: cap: no token counts for more; 2 is the usual value.
    Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training".
    """

    name: Literal["token_tis"] = "token_tis"
    cap: float = 2.0

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise ValueError(f"cap must be at least 1, which is w where nothing differs; got {self.cap}")

    def __call__(self, old: Numbers, sampled: Numbers) -> Numbers:
        """Weights of a sequence's tokens from their log-probs, each [tokens], nats."""
        return np.minimum(np.exp(log_ratios(old, sampled)), self.cap).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class IcePop:
    """w for each token inside [low, high], and 0 outside: a token the two disagree on is left out.

    Ling Team 2025, "Every step evolves" (Ring-1T), arXiv:2510.18855.
    """

    name: Literal["icepop"] = "icepop"
    low: float = 0.5
    high: float = 5.0

    def __post_init__(self) -> None:
        _check_band(self.low, self.high)

    def __call__(self, old: Numbers, sampled: Numbers) -> Numbers:
        """Weights of a sequence's tokens from their log-probs, each [tokens], nats."""
        weights = np.exp(log_ratios(old, sampled))
        return np.where((weights >= self.low) & (weights <= self.high), weights, 0.0).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceMask:
    """w for each token of a sequence whose geometric mean of w lies in [low, high]; 0 for all others.

    The mean does not depend on length, so long sequences are not masked wholesale. It also moves
    little: a band near 1, as 0.99 to 1.01, does most of the work. The defaults are OpenRLHF's, whose
    "seq-mask-tis" this is.
    """

    name: Literal["sequence_mask"] = "sequence_mask"
    low: float = 0.5
    high: float = 5.0

    def __post_init__(self) -> None:
        _check_band(self.low, self.high)

    def __call__(self, old: Numbers, sampled: Numbers) -> Numbers:
        """Weights of a sequence's tokens from their log-probs, each [tokens], nats."""
        logs = log_ratios(old, sampled)
        keep = len(logs) > 0 and self.low <= math.exp(float(logs.mean())) <= self.high
        return np.where(keep, np.exp(logs), 0.0).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceProduct:
    """The product of a sequence's w on all of its tokens where it is at most `cap`; 0 where it is more.

    TRL's default ("sequence_mask"). A product over many tokens is soon far from 1, so long sequences
    are masked wholesale or hardly count.
    """

    name: Literal["sequence_product"] = "sequence_product"
    cap: float = 3.0

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise ValueError(f"cap must be at least 1, which is w where nothing differs; got {self.cap}")

    def __call__(self, old: Numbers, sampled: Numbers) -> Numbers:
        """Weights of a sequence's tokens from their log-probs, each [tokens], nats."""
        logs = log_ratios(old, sampled)
        product = math.exp(min(float(logs.sum()), MAX_LOG_RATIO))
        return np.full(len(logs), product if product <= self.cap else 0.0, np.float32)


Correction = TokenTIS | IcePop | SequenceMask | SequenceProduct


def mismatch_metrics(
    old: Sequence[Numbers], sampled: Sequence[Numbers], weights: Sequence[Numbers]
) -> dict[str, float]:
    """How far sampler and trainer are apart, over all tokens of a step and all ranks; empty without tokens.

    Under sampling/: sampling_logp_difference/{mean,max}, nats; importance_sampling_ratio/{min,mean,max}
    of the weights as applied (TRL's names); ess = (sum w)^2 / (n sum w^2), the share of tokens that
    still count; kl, the k3 estimate of KL(mu || pi_old), nats a token. Minima and maxima are this
    rank's. Tokens the sampler gave no number for are left out of differences and kl.
    """
    w = np.concatenate([np.zeros(0), *weights])
    pairs = [np.asarray(o, np.float64) - np.asarray(s, np.float64) for o, s in zip(old, sampled, strict=True)]
    d = np.concatenate([np.zeros(0), *pairs])
    d = np.clip(d[~np.isnan(d)], -MAX_LOG_RATIO, MAX_LOG_RATIO)
    local = [len(w), w.sum(), np.square(w).sum(), len(d), np.abs(d).sum(), (np.expm1(d) - d).sum()]
    count, total, squares, known, difference, kl = dist.sum_numbers([float(x) for x in local])
    if count == 0:
        return {}
    metrics = {
        "sampling/importance_sampling_ratio/mean": total / count,
        "sampling/ess": total**2 / (count * squares) if squares > 0 else 0.0,
    }
    if len(w):
        metrics["sampling/importance_sampling_ratio/min"] = float(w.min())
        metrics["sampling/importance_sampling_ratio/max"] = float(w.max())
    if known:
        metrics["sampling/sampling_logp_difference/mean"] = difference / known
        metrics["sampling/kl"] = kl / known
    if len(d):
        metrics["sampling/sampling_logp_difference/max"] = float(np.abs(d).max())
    return metrics


def _check_band(low: float, high: float) -> None:
    if not 0 <= low <= 1 <= high:
        raise ValueError(f"low and high must enclose 1, which is w where nothing differs; got {low}, {high}")
