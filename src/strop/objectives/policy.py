"""The clipped policy gradient that GRPO and its relatives are made of.

A loss is one number a trained token: -min(rho A, clip(rho, 1 - low, 1 + high) A) + beta KL,
with rho = pi / pi_old. Advantages come from `credit`, before packing; how tokens are averaged
is the objective's reduction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import SEQUENCE_MEAN, TOKEN_MEAN, Batch, Outputs, Reduction, Terms, constant_mean
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPO:
    """Group relative policy optimisation: the clipped policy gradient per token.

    Attributes:
        clip_low, clip_high: the ratio is clipped to [1 - low, 1 + high]; DAPO raises the upper one.
        beta: weight of the KL to the reference; 0 needs no reference model.
        kl: its estimator.
        aggregate: mean over all tokens of the step ("token": DAPO, TRL's default), over each
            sequence's tokens first ("sequence": GRPO's eq. 3), or the sum over tokens divided by
            sequences times `constant_length` ("constant": Dr. GRPO).
        constant_length: that length; the sampling limit is the usual value.
    """

    wants: ClassVar[frozenset[str]] = frozenset({"entropy"})

    name: Literal["grpo"] = "grpo"
    clip_low: float = 0.2
    clip_high: float = 0.28
    beta: float = 0.0
    kl: KL = "ratio_k3"
    aggregate: Literal["token", "sequence", "constant"] = "token"
    constant_length: float | None = None

    def __post_init__(self) -> None:
        if self.clip_low < 0 or self.clip_high < 0:
            raise ValueError(f"clip_low and clip_high must not be negative, got {self.clip_low}, {self.clip_high}")
        if self.beta < 0:
            raise ValueError(f"beta must not be negative, got {self.beta}")
        if (self.aggregate == "constant") != (self.constant_length is not None):
            raise ValueError("constant_length belongs with aggregate: constant, and only there")
        if self.constant_length is not None and self.constant_length <= 0:
            raise ValueError(f"constant_length must be positive, got {self.constant_length}")

    @property
    def needs(self) -> frozenset[str]:
        columns = {"advantages", "old_logprobs"}
        return frozenset(columns | {"ref_logprobs"} if self.beta > 0 else columns)

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        if self.constant_length is not None:
            return (constant_mean(self.constant_length),)
        return (TOKEN_MEAN if self.aggregate == "token" else SEQUENCE_MEAN,)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        advantages = batch.columns["advantages"]
        rho = ratio(outputs.logprobs, batch.columns["old_logprobs"])
        loss = clipped_loss(rho, advantages, clip_low=self.clip_low, clip_high=self.clip_high)
        metrics = clip_metrics(rho.detach(), advantages, clip_low=self.clip_low, clip_high=self.clip_high)
        difference = (outputs.logprobs.detach() - batch.columns["old_logprobs"]).abs()
        metrics["sampling/sampling_logp_difference/mean"] = difference
        metrics["sampling/sampling_logp_difference/max"] = difference
        if outputs.entropy is not None:
            metrics["entropy"] = outputs.entropy.detach()
        if self.beta > 0:
            ref = batch.columns["ref_logprobs"]
            loss = loss + self.beta * kl_penalty(outputs.logprobs, ref, rho, self.kl)
            metrics["kl"] = kl_penalty(outputs.logprobs.detach(), ref, rho.detach(), "k3")
        return Terms((loss,), metrics)


def clip_metrics(rho: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> dict[str, Tensor]:
    """Share of entries whose gradient the clip took away, under TRL's names; each [N] of 0 and 1."""
    low = (rho < 1 - clip_low) & (advantages < 0)
    high = (rho > 1 + clip_high) & (advantages > 0)
    return {
        "clip_ratio/low_mean": low.to(rho.dtype),
        "clip_ratio/high_mean": high.to(rho.dtype),
        "clip_ratio/region_mean": (low | high).to(rho.dtype),
    }
