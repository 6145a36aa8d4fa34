"""Offline preference optimisation on pairs: the maths, then its binding to a batch.

Notation: S is the summed log-prob of a completion's trained tokens, S_bar its mean;
Delta = S - S_ref the log-ratio of policy and reference, h = Delta_chosen - Delta_rejected.
All losses are one number a pair, unreduced; a step's loss is their mean over its pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import (
    CHOSEN_TOKEN_MEAN,
    PER_GROUP,
    Batch,
    Outputs,
    Reduction,
    Terms,
    mean_by_sequence,
    pairs,
    sum_by_sequence,
)
from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch.nn.functional as F
    from torch import Tensor
else:
    F = lazy_module("torch.nn.functional")


def dpo_loss(chosen: Tensor, rejected: Tensor, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """DPO loss per pair: -(1 - eps) log sigmoid(beta h) - eps log sigmoid(-beta h).

    Args:
        chosen, rejected: summed log-ratios policy/reference, [G], nats.
        label_smoothing: eps, the assumed rate of flipped labels ("conservative" DPO).
    Returns: [G], unreduced; log 2 where policy and reference agree.
    Rafailov et al. 2023, arXiv:2305.18290, eq. 7; smoothing: Mitchell 2023, "A note on DPO with
    noisy preferences". TRL 1.16 ignores label_smoothing here; the DPO authors' code does not.
    """
    logits = beta * (chosen - rejected)
    return -(1 - label_smoothing) * F.logsigmoid(logits) - label_smoothing * F.logsigmoid(-logits)


def ipo_loss(chosen: Tensor, rejected: Tensor, *, tau: float) -> Tensor:
    """IPO loss per pair: (h - 1/(2 tau))^2.

    Args: chosen, rejected: log-ratios policy/reference, [G], nats; summed, or averaged over
        each side's tokens (tau is then in nats a token).
    Returns: [G], unreduced; 1/(4 tau^2) where policy and reference agree.
    Azar et al. 2023, arXiv:2310.12036, eq. 17.
    """
    return (chosen - rejected - 1 / (2 * tau)).square()


def hinge_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Hinge loss per pair: max(0, 1 - beta h).

    Args: chosen, rejected: summed log-ratios policy/reference, [G], nats.
    Returns: [G], unreduced; 1 where policy and reference agree, 0 once beta h >= 1.
    Zhao et al. 2023 (SLiC-HF), arXiv:2305.10425; Liu et al. 2023 (RSO), arXiv:2309.06657, eq. 8.
    """
    return F.relu(1 - beta * (chosen - rejected))


@dataclass(frozen=True, slots=True, kw_only=True)
class DPO:
    """Direct preference optimisation.

    Attributes:
        beta: strength of the pull to the reference.
        label_smoothing: assumed share of flipped labels, in [0, 0.5).
        nll_weight: adds this much of the chosen side's negative log-likelihood, a mean over all
            chosen tokens of the step (Llama 3 uses 0.2; its normaliser is not published).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})
    wants: ClassVar[frozenset[str]] = frozenset()

    name: Literal["dpo"] = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        _check(beta=self.beta, nll_weight=self.nll_weight)
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, 0.5), got {self.label_smoothing}")

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        return _reductions(self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        chosen, rejected = log_ratios(outputs, batch)
        loss = dpo_loss(chosen, rejected, beta=self.beta, label_smoothing=self.label_smoothing)
        return preference_terms(loss, chosen, rejected, outputs, batch, self.beta, self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hinge:
    """Hinge (RSO) preference loss; attributes as in `DPO`."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})
    wants: ClassVar[frozenset[str]] = frozenset()

    name: Literal["hinge"] = "hinge"
    beta: float = 0.1
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        _check(beta=self.beta, nll_weight=self.nll_weight)

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        return _reductions(self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        chosen, rejected = log_ratios(outputs, batch)
        loss = hinge_loss(chosen, rejected, beta=self.beta)
        return preference_terms(loss, chosen, rejected, outputs, batch, self.beta, self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class IPO:
    """Identity preference optimisation on log-ratios averaged over tokens (the authors' usage, TRL's).

    Attributes: tau: regularisation; the target margin is 1/(2 tau) nats a token. nll_weight as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})
    wants: ClassVar[frozenset[str]] = frozenset()

    name: Literal["ipo"] = "ipo"
    tau: float = 0.1
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        _check(tau=self.tau, nll_weight=self.nll_weight)

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        return _reductions(self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        per_token = mean_by_sequence(outputs.logprobs - batch.columns["ref_logprobs"], batch)
        loss = ipo_loss(*pairs(per_token, batch), tau=self.tau)
        return preference_terms(loss, *log_ratios(outputs, batch), outputs, batch, self.tau, self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class IPOSum:
    """Identity preference optimisation on summed log-ratios (the paper's eq. 17 as it stands).

    Attributes: tau: regularisation; the target margin is 1/(2 tau) nats. nll_weight as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})
    wants: ClassVar[frozenset[str]] = frozenset()

    name: Literal["ipo_sum"] = "ipo_sum"
    tau: float = 0.1
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        _check(tau=self.tau, nll_weight=self.nll_weight)

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        return _reductions(self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        chosen, rejected = log_ratios(outputs, batch)
        loss = ipo_loss(chosen, rejected, tau=self.tau)
        return preference_terms(loss, chosen, rejected, outputs, batch, self.tau, self.nll_weight)


def log_ratios(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    """Summed log-ratios policy/reference of (chosen, rejected), each [G], nats."""
    return pairs(sum_by_sequence(outputs.logprobs - batch.columns["ref_logprobs"], batch), batch)


def preference_terms(
    loss: Tensor,
    chosen: Tensor,
    rejected: Tensor,
    outputs: Outputs,
    batch: Batch,
    beta: float,
    nll_weight: float,
) -> Terms:
    """The pair loss, the chosen side's NLL where it is asked for, and the family's metrics.

    rewards/* are beta times the log-ratio; rewards/accuracies counts strict wins, so it is 0 at
    the reference, where rewards/ties is 1.
    """
    logps_chosen, logps_rejected = pairs(sum_by_sequence(outputs.logprobs.detach(), batch), batch)
    win, lose = (beta * chosen).detach(), (beta * rejected).detach()
    metrics = {
        "rewards/chosen": win,
        "rewards/rejected": lose,
        "rewards/margins": win - lose,
        "rewards/accuracies": (win > lose).to(win.dtype),
        "rewards/ties": (win == lose).to(win.dtype),
        "logps/chosen": logps_chosen,
        "logps/rejected": logps_rejected,
    }
    if nll_weight == 0:
        return Terms((loss,), metrics)
    metrics["nll_loss"] = -outputs.logprobs.detach()[(batch.place == 0)[batch.seq]]
    return Terms((loss, -nll_weight * outputs.logprobs), metrics)


def _reductions(nll_weight: float) -> tuple[Reduction, ...]:
    return (PER_GROUP,) if nll_weight == 0 else (PER_GROUP, CHOSEN_TOKEN_MEAN)


def _check(*, nll_weight: float, beta: float = 1.0, tau: float = 1.0) -> None:
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    if tau <= 0:
        raise ValueError(f"tau must be positive, got {tau}")
    if nll_weight < 0:
        raise ValueError(f"nll_weight must not be negative, got {nll_weight}")
