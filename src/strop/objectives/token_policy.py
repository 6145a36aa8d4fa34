"""Token-level relatives of the clipped policy gradient, with another guard than the clip of the ratio.

CISPO truncates the ratio and lets every token's gradient through; DPPO leaves a token out once its
probability, not its ratio, has moved too far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import TOKEN_MEAN, Batch, Outputs, Reduction, Terms
from strop.lazy import lazy_module
from strop.objectives.policy import KL, check_policy, policy_needs, policy_terms, policy_weights, ratio

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def cispo_loss(logprobs: Tensor, rho: Tensor, advantages: Tensor, *, cap: float) -> Tensor:
    """CISPO's loss per token: -sg(min(rho, cap)) A log pi.

    Args: logprobs, rho, advantages: [N]; nothing flows back through rho.
    Returns: [N], unreduced; the gradient is never 0 where the advantage is not.
    MiniMax-M1, arXiv:2506.13585, eq. 4, without its lower bound, which the paper leaves off too.
    """
    return -rho.detach().clamp(max=cap) * advantages * logprobs


def inside_trust_region(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, low: float, high: float
) -> Tensor:
    """Where a token's probability has not moved too far the way its advantage pulls it, [N] of bool.

    pi - pi_old <= high where A > 0, and >= -low elsewhere: the total variation of taking this token
    or another. A rare token may so change its ratio a lot, a likely one only a little.

    Qi et al. 2026 (DPPO), arXiv:2602.04879, its binary total-variation mask; defaults as in prime-rl.
    """
    moved = logprobs.detach().exp() - old_logprobs.exp()
    return torch.where(advantages > 0, moved <= high, moved >= -low)


@dataclass(frozen=True, slots=True, kw_only=True)
class CISPO:
    """Clipped importance-sampling policy optimisation: a truncated weight on every token's log-prob.

    Attributes:
        cap: the ratio's upper bound. TRL's `epsilon_high` is this number; verl's and NeMo-RL's is
            cap - 1. 5 is ScaleRL's (arXiv:2510.13786).
        beta, kl, off_policy_delta, weighted: as in `GRPO`.
    """

    wants: ClassVar[frozenset[str]] = frozenset({"entropy"})
    reductions: ClassVar[tuple[Reduction, ...]] = (TOKEN_MEAN,)

    name: Literal["cispo"] = "cispo"
    cap: float = 5.0
    beta: float = 0.0
    kl: KL = "ratio_k3"
    off_policy_delta: float | None = None
    weighted: bool = False

    def __post_init__(self) -> None:
        check_policy(self.beta, self.off_policy_delta)
        if self.cap <= 0:
            raise ValueError(f"cap must be positive, got {self.cap}")

    @property
    def needs(self) -> frozenset[str]:
        return policy_needs(self.beta, self.off_policy_delta, self.weighted)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        advantages = batch.columns["advantages"]
        rho = ratio(outputs.logprobs, batch.columns["old_logprobs"])
        loss = cispo_loss(outputs.logprobs, rho, advantages, cap=self.cap)
        metrics = {"cispo_clip_ratio": ((rho.detach() > self.cap) & (advantages > 0)).to(rho.dtype)}
        weights = policy_weights(outputs, batch, off_policy_delta=self.off_policy_delta, weighted=self.weighted)
        return policy_terms(loss, rho, outputs, batch, weights, metrics, beta=self.beta, kl=self.kl)


@dataclass(frozen=True, slots=True, kw_only=True)
class DPPO:
    """Divergence proximal policy optimisation: a trust region of probabilities in place of the ratio's clip.

    -rho A inside the region and 0 outside, plus tau (log rho)^2 on every token, which pulls back
    what has left.

    Attributes:
        low, high: how far a token's probability may fall where its advantage is negative, and rise
            where it is positive.
        tau: weight of the squared log-ratio.
        off_policy_delta, weighted: as in `GRPO`.
    """

    wants: ClassVar[frozenset[str]] = frozenset({"entropy"})
    reductions: ClassVar[tuple[Reduction, ...]] = (TOKEN_MEAN,)

    name: Literal["dppo"] = "dppo"
    low: float = 0.2
    high: float = 0.2
    tau: float = 1e-3
    off_policy_delta: float | None = None
    weighted: bool = False

    def __post_init__(self) -> None:
        check_policy(0.0, self.off_policy_delta)
        if not (0 < self.low <= 1 and 0 < self.high <= 1):
            raise ValueError(f"low and high are differences of probabilities, in (0, 1], got {self.low}, {self.high}")
        if self.tau < 0:
            raise ValueError(f"tau must not be negative, got {self.tau}")

    @property
    def needs(self) -> frozenset[str]:
        return policy_needs(0.0, self.off_policy_delta, self.weighted)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        advantages, old = batch.columns["advantages"], batch.columns["old_logprobs"]
        rho = ratio(outputs.logprobs, old)
        inside = inside_trust_region(outputs.logprobs, old, advantages, low=self.low, high=self.high)
        loss = torch.where(inside, -rho * advantages, 0.0)
        metrics = {"clip_ratio/region_mean": (~inside).to(rho.dtype)}
        weights = policy_weights(outputs, batch, off_policy_delta=self.off_policy_delta, weighted=self.weighted)
        terms = policy_terms(loss, rho, outputs, batch, weights, metrics, beta=0.0, kl="k3")
        return Terms((terms.losses[0] + self.tau * (outputs.logprobs - old).square(),), terms.metrics)
