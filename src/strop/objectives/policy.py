"""The clipped policy gradient that GRPO and its relatives are made of.

A loss is one number a trained token: -min(rho A, clip(rho, 1 - low, 1 + high) A) + beta KL,
with rho = pi / pi_old. Advantages come from `credit`, before packing; how tokens are averaged
is the objective's reduction. DAPO, Dr. GRPO and DeepSeek's GRPO are settings of the one class;
other forms of the ratio stand in `token_policy` and `sequence_policy`.

Left out: the mean over each micro-batch's own tokens (TRL's "bnpo"), whose gradient depends on how
the step was split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import (
    SEQUENCE_MEAN,
    TOKEN_MEAN,
    Batch,
    Outputs,
    Reduction,
    Terms,
    constant_mean,
    mean_by_sequence,
)
from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

KL = Literal["k1", "k2", "k3", "ratio_k1", "ratio_k3"]
"""Estimators of KL(policy || reference) from the sampled token; see `kl_penalty`."""

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to this before exp: e^20 is far outside any trust region, and finite."""


def ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """Importance ratio exp(logprobs - old_logprobs) of each token, [N]; log-ratio clamped to +-20."""
    return (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def clipped_loss(rho: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """PPO's clipped surrogate per entry: -min(rho A, clip(rho, 1 - low, 1 + high) A).

    Args: rho, advantages: [N] (a token each) or [S] (a sequence each).
    Returns: the same shape, unreduced. The gradient is 0 where A > 0 and rho > 1 + high, and
        where A < 0 and rho < 1 - low.
    Schulman et al. 2017, arXiv:1707.06347, eq. 7; asymmetric bounds: DAPO, arXiv:2503.14476, eq. 10.
    """
    return -torch.minimum(rho * advantages, rho.clamp(1 - clip_low, 1 + clip_high) * advantages)


def kl_penalty(logprobs: Tensor, ref_logprobs: Tensor, rho: Tensor, kind: KL) -> Tensor:
    """Estimate of KL(policy || reference) at each sampled token, [N], nats.

    With d = ref_logprobs - logprobs, clamped to +-20:
        k1 = -d            unbiased, but its expected gradient is 0: it does not regularise
        k2 = d^2 / 2       biased value, gradient of KL(policy || reference)
        k3 = e^d - d - 1   unbiased and >= 0; gradient of KL(reference || policy); GRPO's own
        ratio_k1, ratio_k3 = rho k1, rho k3   gradient of KL(policy || reference); TRL's default
    Schulman 2020, "Approximating KL divergence"; k3 in GRPO: arXiv:2402.03300, eq. 4.
    """
    d = (ref_logprobs - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if kind in ("k1", "ratio_k1"):
        value = -d
    elif kind == "k2":
        value = d.square() / 2
    else:
        value = torch.expm1(d) - d
    return rho * value if kind.startswith("ratio") else value


def off_policy_keep(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, batch: Batch, *, delta: float
) -> Tensor:
    """Which tokens stay when bad sequences that the policy has moved away from are left out, [N] of bool.

    Kept where A >= 0 or mean_t(log mu - log pi) <= delta over the sequence's tokens. A sampler
    log-prob that is nan says nothing and counts as no difference, as in TRL.

    Args: logprobs: of the policy; sampled_logprobs: of whatever sampled (mu); [N], nats.
    DeepSeek-V3.2, arXiv:2512.02556, eq. 9.
    """
    drift = sampled_logprobs - logprobs.detach()
    mean = mean_by_sequence(torch.where(drift.isnan(), 0.0, drift), batch)
    return (advantages >= 0) | (mean <= delta)[batch.seq]


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPO:
    """Group relative policy optimisation: the clipped policy gradient per token.

    Attributes:
        clip_low, clip_high: the ratio is clipped to [1 - low, 1 + high]; DAPO raises the upper one.
        delta: an upper bound on the ratio where the advantage is negative too (two-sided, or "dual",
            clip; TRL's delta), more than 1 + clip_high; null leaves it unbounded there.
        beta: weight of the KL to the reference; 0 needs no reference model.
        kl: its estimator.
        aggregate: mean over all tokens of the step ("token": DAPO, TRL's default), over each
            sequence's tokens first ("sequence": GRPO's eq. 3), or the sum over tokens divided by
            sequences times `constant_length` ("constant": Dr. GRPO).
        constant_length: that length; the sampling limit is the usual value.
        off_policy_delta: leave out sequences with a negative advantage once the policy gives them
            so many nats a token less than the sampler did (DeepSeek-V3.2); null keeps all.
        weighted: multiply the policy's term, never the KL, by the column `policy_weight`: what a
            correction for a sampler that differs from the trainer gives. A stage with one sets it.
    """

    wants: ClassVar[frozenset[str]] = frozenset({"entropy"})

    name: Literal["grpo"] = "grpo"
    clip_low: float = 0.2
    clip_high: float = 0.28
    delta: float | None = None
    beta: float = 0.0
    kl: KL = "ratio_k3"
    aggregate: Literal["token", "sequence", "constant"] = "token"
    constant_length: float | None = None
    off_policy_delta: float | None = None
    weighted: bool = False

    def __post_init__(self) -> None:
        check_policy(self.beta, self.off_policy_delta, self.clip_low, self.clip_high)
        if self.delta is not None and self.delta <= 1 + self.clip_high:
            raise ValueError(f"delta must be more than 1 + clip_high ({1 + self.clip_high:g}), got {self.delta}")
        if (self.aggregate == "constant") != (self.constant_length is not None):
            raise ValueError("constant_length belongs with aggregate: constant, and only there")
        if self.constant_length is not None and self.constant_length <= 0:
            raise ValueError(f"constant_length must be positive, got {self.constant_length}")

    @property
    def needs(self) -> frozenset[str]:
        return policy_needs(self.beta, self.off_policy_delta, self.weighted)

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        if self.constant_length is not None:
            return (constant_mean(self.constant_length),)
        return (TOKEN_MEAN if self.aggregate == "token" else SEQUENCE_MEAN,)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        advantages = batch.columns["advantages"]
        rho = ratio(outputs.logprobs, batch.columns["old_logprobs"])
        capped = rho if self.delta is None else rho.clamp(max=self.delta)
        loss = clipped_loss(capped, advantages, clip_low=self.clip_low, clip_high=self.clip_high)
        metrics = clip_metrics(rho.detach(), advantages, clip_low=self.clip_low, clip_high=self.clip_high)
        weights = policy_weights(outputs, batch, off_policy_delta=self.off_policy_delta, weighted=self.weighted)
        return policy_terms(loss, rho, outputs, batch, weights, metrics, beta=self.beta, kl=self.kl)


def dapo(*, clip_low: float = 0.2, clip_high: float = 0.28) -> GRPO:
    """DAPO's loss: a raised upper clip, the mean over all tokens, no KL.

    Its other parts are dynamic sampling and the treatment of overlong answers, which are the stage's.
    Yu et al. 2025, arXiv:2503.14476, eq. 8 and section 4.1.
    """
    return GRPO(clip_low=clip_low, clip_high=clip_high)


def dr_grpo(length: float, *, clip: float = 0.2) -> GRPO:
    """Dr. GRPO's loss: the sum over tokens divided by sequences times a constant length, no KL.

    Args: length: the sampling limit. Use it with advantages that no deviation divides
        (`GroupRelative(scale="none")`).
    Liu et al. 2025, arXiv:2503.20783, section 3.2.
    """
    return GRPO(clip_low=clip, clip_high=clip, aggregate="constant", constant_length=length)


def deepseek_grpo(*, clip: float = 0.2, beta: float = 0.04) -> GRPO:
    """GRPO as its paper has it: the mean over each sequence's tokens first, and a plain k3 KL in the loss.

    Shao et al. 2024, arXiv:2402.03300, eq. 3 and 4; beta from its section 4.2. The paper names no
    clip; 0.2 is PPO's.
    """
    return GRPO(clip_low=clip, clip_high=clip, beta=beta, kl="k3", aggregate="sequence")


# What the objectives of the family share.


def policy_needs(beta: float, off_policy_delta: float | None, weighted: bool) -> frozenset[str]:
    """The columns such settings read."""
    columns = {"advantages", "old_logprobs"}
    if beta > 0:
        columns.add("ref_logprobs")
    if weighted:
        columns.add("policy_weight")
    if weighted and off_policy_delta is not None:
        columns.add("sampler_logprobs")
    return frozenset(columns)


def policy_weights(outputs: Outputs, batch: Batch, *, off_policy_delta: float | None, weighted: bool) -> Tensor | None:
    """What the policy's term is multiplied by, [N]: `policy_weight`, and 0 where `off_policy_keep` says no.

    The sampler's log-probs are a column of their own where it differs from the trainer (`weighted`);
    else they are the old ones. None: by nothing.
    """
    weights = batch.columns["policy_weight"] if weighted else None
    if off_policy_delta is None:
        return weights
    sampled = batch.columns["sampler_logprobs" if weighted else "old_logprobs"]
    keep = off_policy_keep(outputs.logprobs, sampled, batch.columns["advantages"], batch, delta=off_policy_delta)
    return keep.to(outputs.logprobs.dtype) if weights is None else torch.where(keep, weights, 0.0)


def policy_terms(
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
    """The policy's loss of each token times its weight, the KL where it is asked for, and the family's metrics.

    Args: loss, rho, weights: [N]; metrics: the objective's own.
    """
    if weights is not None:
        loss = weights * loss
    metrics = {**metrics, **policy_metrics(outputs, batch, weights)}
    if beta == 0:
        return Terms((loss,), metrics)
    penalty, logged = reference_kl(outputs, batch, rho, kl)
    return Terms((loss + beta * penalty,), {**metrics, "kl": logged})


def reference_kl(outputs: Outputs, batch: Batch, rho: Tensor, kind: KL) -> tuple[Tensor, Tensor]:
    """The KL term of each token, and what is logged: k3 without the ratio, whatever the estimator; [N], nats."""
    ref = batch.columns["ref_logprobs"]
    return kl_penalty(outputs.logprobs, ref, rho, kind), kl_penalty(outputs.logprobs.detach(), ref, rho.detach(), "k3")


def policy_metrics(outputs: Outputs, batch: Batch, weights: Tensor | None) -> dict[str, Tensor]:
    """The entropy, how far the log-probs lie from the old ones, and which tokens' weights are 0; [N] each.

    Where a correction recomputed the old log-probs, that says nothing of the sampler: the correction
    logs the difference itself.
    """
    metrics = {}
    if "policy_weight" not in batch.columns:
        difference = (outputs.logprobs.detach() - batch.columns["old_logprobs"]).abs()
        metrics["sampling/sampling_logp_difference/mean"] = difference
        metrics["sampling/sampling_logp_difference/max"] = difference
    if outputs.entropy is not None:
        metrics["entropy"] = outputs.entropy.detach()
    if weights is not None:
        metrics["sampling/masked"] = (weights == 0).to(weights.dtype)
    return metrics


def clip_metrics(rho: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> dict[str, Tensor]:
    """Share of entries whose gradient the clip took away, under TRL's names; each [N] of 0 and 1."""
    low = (rho < 1 - clip_low) & (advantages < 0)
    high = (rho > 1 + clip_high) & (advantages > 0)
    return {
        "clip_ratio/low_mean": low.to(rho.dtype),
        "clip_ratio/high_mean": high.to(rho.dtype),
        "clip_ratio/region_mean": (low | high).to(rho.dtype),
    }


def check_policy(beta: float, off_policy_delta: float | None, clip_low: float = 0.0, clip_high: float = 0.0) -> None:
    """Raises: ValueError for settings out of range."""
    if clip_low < 0 or clip_high < 0:
        raise ValueError(f"clip_low and clip_high must not be negative, got {clip_low}, {clip_high}")
    if beta < 0:
        raise ValueError(f"beta must not be negative, got {beta}")
    if off_policy_delta is not None and off_policy_delta < 0:
        raise ValueError(f"off_policy_delta must not be negative, got {off_policy_delta}")
