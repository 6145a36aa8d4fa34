"""The clipped policy gradient with one ratio a sequence: GSPO, its token form, and RLOO.

GSPO's ratio is the geometric mean of its tokens' ratios, RLOO's their product. A completion is one
action: all of it is clipped, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import (
    PER_SEQUENCE,
    SEQUENCE_MEAN,
    Batch,
    Outputs,
    Reduction,
    Terms,
    mean_by_sequence,
    sum_by_sequence,
)
from strop.objectives.policy import (
    KL,
    MAX_LOG_RATIO,
    check_policy,
    clip_metrics,
    clipped_loss,
    policy_metrics,
    policy_needs,
    policy_terms,
    policy_weights,
    reference_kl,
)

if TYPE_CHECKING:
    from torch import Tensor


def mean_ratio(logprobs: Tensor, old_logprobs: Tensor, batch: Batch) -> Tensor:
    """GSPO's ratio of each sequence, exp(mean_t(logprobs - old_logprobs)), [S].

    Zheng et al. 2025, arXiv:2507.18071, eq. 7. The log is clamped to +-20.
    """
    return mean_by_sequence(logprobs - old_logprobs, batch).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def product_ratio(logprobs: Tensor, old_logprobs: Tensor, batch: Batch) -> Tensor:
    """The ratio of each sequence's probabilities, exp(sum_t(logprobs - old_logprobs)), [S]; log clamped to +-20."""
    return sum_by_sequence(logprobs - old_logprobs, batch).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


@dataclass(frozen=True, slots=True, kw_only=True)
class GSPO:
    """Group sequence policy optimisation: the geometric-mean ratio of each sequence, clipped.

    A mean over tokens moves little, so the clip is narrow. A sequence's advantage is the mean of its
    tokens', which group credit makes equal.

    Attributes:
        clip_low, clip_high: the ratio is clipped to [1 - low, 1 + high]; the paper's are 3e-4, 4e-4.
        beta, kl, off_policy_delta, weighted: as in `GRPO`; the KL and the weights are averaged over
            each sequence's tokens, and the KL's ratio is the sequence's.

    Zheng et al. 2025, arXiv:2507.18071, eq. 5.
    """

    wants: ClassVar[frozenset[str]] = frozenset({"entropy"})
    reductions: ClassVar[tuple[Reduction, ...]] = (PER_SEQUENCE,)

    name: Literal["gspo"] = "gspo"
    clip_low: float = 3e-4
    clip_high: float = 4e-4
    beta: float = 0.0
    kl: KL = "ratio_k3"
    off_policy_delta: float | None = None
    weighted: bool = False

    def __post_init__(self) -> None:
        check_policy(self.beta, self.off_policy_delta, self.clip_low, self.clip_high)

    @property
    def needs(self) -> frozenset[str]:
        return policy_needs(self.beta, self.off_policy_delta, self.weighted)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        rho = mean_ratio(outputs.logprobs, batch.columns["old_logprobs"], batch)
        advantages = mean_by_sequence(batch.columns["advantages"], batch)
        loss = clipped_loss(rho, advantages, clip_low=self.clip_low, clip_high=self.clip_high)
        metrics = clip_metrics(rho.detach(), advantages, clip_low=self.clip_low, clip_high=self.clip_high)
        weights = policy_weights(outputs, batch, off_policy_delta=self.off_policy_delta, weighted=self.weighted)
        return sequence_terms(loss, rho, outputs, batch, weights, metrics, beta=self.beta, kl=self.kl)


@dataclass(frozen=True, slots=True, kw_only=True)
class GSPOToken:
    """GSPO whose advantage may differ from token to token: sg(s) pi / sg(pi) in place of the ratio.

    The value of every token's ratio is its sequence's, and the gradient its own token's; with one
    advantage and one weight a sequence, value and gradient are GSPO's. Weights that differ from token to
    token stay with their tokens here. Attributes as in `GSPO`.

    Zheng et al. 2025, arXiv:2507.18071, eq. 13 and 14.
    """

    wants: ClassVar[frozenset[str]] = frozenset({"entropy"})
    reductions: ClassVar[tuple[Reduction, ...]] = (SEQUENCE_MEAN,)

    name: Literal["gspo_token"] = "gspo_token"
    clip_low: float = 3e-4
    clip_high: float = 4e-4
    beta: float = 0.0
    kl: KL = "ratio_k3"
    off_policy_delta: float | None = None
    weighted: bool = False

    def __post_init__(self) -> None:
        check_policy(self.beta, self.off_policy_delta, self.clip_low, self.clip_high)

    @property
    def needs(self) -> frozenset[str]:
        return policy_needs(self.beta, self.off_policy_delta, self.weighted)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        advantages, own = batch.columns["advantages"], outputs.logprobs.detach()
        whole = mean_ratio(own, batch.columns["old_logprobs"], batch)
        rho = whole[batch.seq] * (outputs.logprobs - own).exp()
        loss = clipped_loss(rho, advantages, clip_low=self.clip_low, clip_high=self.clip_high)
        metrics = clip_metrics(rho.detach(), advantages, clip_low=self.clip_low, clip_high=self.clip_high)
        weights = policy_weights(outputs, batch, off_policy_delta=self.off_policy_delta, weighted=self.weighted)
        return policy_terms(loss, rho, outputs, batch, weights, metrics, beta=self.beta, kl=self.kl)


@dataclass(frozen=True, slots=True, kw_only=True)
class RLOO:
    """REINFORCE on whole completions, with PPO's clip of the sequence's probability ratio.

    Used with leave-one-out advantages; the KL to the reference belongs in the reward (as k1, summed
    over the sequence), so there is none here.

    Attributes:
        clip_low, clip_high: the ratio is clipped to [1 - low, 1 + high]; the ratio is a product, so
            a long completion leaves the range soon.
        off_policy_delta, weighted: as in `GRPO`; the weights are averaged over each sequence's tokens.

    Ahmadian et al. 2024, arXiv:2402.14740, eq. 8; the clip is TRL's.
    """

    wants: ClassVar[frozenset[str]] = frozenset({"entropy"})
    reductions: ClassVar[tuple[Reduction, ...]] = (PER_SEQUENCE,)

    name: Literal["rloo"] = "rloo"
    clip_low: float = 0.2
    clip_high: float = 0.2
    off_policy_delta: float | None = None
    weighted: bool = False

    def __post_init__(self) -> None:
        check_policy(0.0, self.off_policy_delta, self.clip_low, self.clip_high)

    @property
    def needs(self) -> frozenset[str]:
        return policy_needs(0.0, self.off_policy_delta, self.weighted)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        rho = product_ratio(outputs.logprobs, batch.columns["old_logprobs"], batch)
        advantages = mean_by_sequence(batch.columns["advantages"], batch)
        loss = clipped_loss(rho, advantages, clip_low=self.clip_low, clip_high=self.clip_high)
        metrics = clip_metrics(rho.detach(), advantages, clip_low=self.clip_low, clip_high=self.clip_high)
        weights = policy_weights(outputs, batch, off_policy_delta=self.off_policy_delta, weighted=self.weighted)
        return sequence_terms(loss, rho, outputs, batch, weights, metrics, beta=0.0, kl="k3")


def sequence_terms(
    loss: Tensor,
    rho: Tensor,
    outputs: Outputs,
    batch: Batch,
    weights: Tensor | None,
    metrics: Mapping[str, Tensor],
    *,
    beta: float,
    kl: KL,
) -> Terms:
    """As `policy_terms`, of sequences: the tokens' weights and KL are averaged within each.

    Args: loss, rho: [S]; weights: [N].
    """
    if weights is not None:
        loss = mean_by_sequence(weights, batch) * loss
    metrics = {**metrics, **policy_metrics(outputs, batch, weights)}
    if beta == 0:
        return Terms((loss,), metrics)
    penalty, logged = reference_kl(outputs, batch, rho[batch.seq], kl)
    return Terms((loss + beta * mean_by_sequence(penalty, batch),), {**metrics, "kl": logged})
