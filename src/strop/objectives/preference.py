"""Offline preference optimisation on pairs against a reference: DPO and its logistic relatives.

Notation as in `pairs`: Delta = S - S_ref of a side, h = Delta_chosen - Delta_rejected. All losses
are one number a pair, unreduced; a step's loss is their mean over its pairs. Losses of another
shape than -log sigmoid stand in `preference_shapes`, those without a reference in `reference_free`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import Batch, Outputs, Reduction, Terms, pairs, sum_by_sequence
from strop.lazy import lazy_module
from strop.objectives.checks import flip_rate, not_negative, positive
from strop.objectives.pairs import (
    NOTHING,
    PAIR_AND_NLL,
    REFERENCE,
    Sides,
    log_ratios,
    mean_log_ratios,
    preference_terms,
    side_lengths,
)

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch = lazy_module("torch")
    F = lazy_module("torch.nn.functional")


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    probability: Tensor | float = 1.0,
    margin: Tensor | float = 0.0,
) -> Tensor:
    """DPO loss per pair: -q log sigmoid(beta h - m) - (1 - q) log sigmoid(m - beta h), q = (1 - eps) P + eps (1 - P).

    Args:
        chosen, rejected: summed log-ratios policy/reference, [G], nats.
        label_smoothing: eps, the assumed rate of flipped labels ("conservative" DPO).
        probability: P(the first is the better one), [G]: 1 for a hard label, a share of votes, an AI
            labeller's probability.
        margin: m, how far apart the two were found; the implicit rewards must differ by as much, [G].
    Returns: [G], unreduced; log 2 where policy and reference agree and m = 0.
    Rafailov et al. 2023, arXiv:2305.18290, eq. 7; smoothing: Mitchell 2023, "A note on DPO with
    noisy preferences"; margin: Amini et al. 2024 (DPO with an offset), arXiv:2402.10571. TRL 1.16
    ignores label_smoothing here; the DPO authors' code does not.
    """
    logits = beta * (chosen - rejected) - margin
    missed = (1 - probability) + label_smoothing * (2 * probability - 1)
    return -(1 - missed) * F.logsigmoid(logits) - missed * F.logsigmoid(-logits)


def robust_loss(chosen: Tensor, rejected: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO loss per pair: [-(1 - eps) log sigmoid(beta h) + eps log sigmoid(-beta h)] / (1 - 2 eps).

    Its mean over labels flipped at rate eps is the DPO loss of the true labels. It has no lower
    bound: far out it falls with slope eps / (1 - 2 eps).

    Args: chosen, rejected: summed log-ratios policy/reference, [G], nats.
    Returns: [G], unreduced; log 2 where policy and reference agree.
    Chowdhury et al. 2024, arXiv:2403.00409.
    """
    logits = beta * (chosen - rejected)
    clean, flipped = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def dpop_loss(chosen: Tensor, rejected: Tensor, *, beta: float, penalty: float) -> Tensor:
    """DPO-positive loss per pair: -log sigmoid(beta (h - lambda max(0, -Delta_chosen))).

    The second term holds the chosen side at least as likely as it is under the reference.

    Args: chosen, rejected: summed log-ratios policy/reference, [G], nats. penalty: lambda.
    Returns: [G], unreduced; log 2 where policy and reference agree.
    Pal et al. 2024 (Smaug), arXiv:2402.13228.
    """
    return -F.logsigmoid(beta * (chosen - rejected - penalty * F.relu(-chosen)))


def rdpo_loss(chosen: Tensor, rejected: Tensor, lengths: Sides, *, beta: float, alpha: float) -> Tensor:
    """Length-regularised DPO loss per pair: -log sigmoid(beta h + alpha (|y_chosen| - |y_rejected|)).

    Args: chosen, rejected: summed log-ratios policy/reference, [G], nats. lengths: tokens of the sides.
    Returns: [G], unreduced; log 2 where policy and reference agree and both sides are as long.
    Park et al. 2024, arXiv:2403.19159.
    """
    return -F.logsigmoid(beta * (chosen - rejected) + alpha * (lengths[0] - lengths[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class DPO:
    """Direct preference optimisation.

    Attributes:
        beta: strength of the pull to the reference.
        label_smoothing: assumed share of flipped labels, in [0, 0.5).
        nll_weight: adds this much of the chosen side's negative log-likelihood, a mean over all
            chosen tokens of the step (Llama 3 uses 0.2; its normaliser is not published).
        mask_formatting: leave the template's tokens (end of turn, EOS) out of the log-ratios, not
            out of the likelihood. Both sides have them, so the loss pushes and pulls them at once:
            answers that do not stop, or stop at once (Llama 3, arXiv:2407.21783, section 4.1.4).
        soft_labels: read each pair's `probability` that the first is better; otherwise it is 1.
        margin: read each pair's `margin`, which the implicit rewards must differ by.
    """

    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["dpo"] = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0
    nll_weight: float = 0.0
    mask_formatting: bool = False
    soft_labels: bool = False
    margin: bool = False

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        flip_rate("label_smoothing", self.label_smoothing)
        not_negative("nll_weight", self.nll_weight)

    @property
    def needs(self) -> frozenset[str]:
        read = {"content": self.mask_formatting, "probability": self.soft_labels, "margin": self.margin}
        return REFERENCE | {name for name, wanted in read.items() if wanted}

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        ratios = content_log_ratios(outputs, batch) if self.mask_formatting else log_ratios(outputs, batch)
        loss = dpo_loss(
            *ratios,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            probability=batch.columns["probability"] if self.soft_labels else 1.0,
            margin=batch.columns["margin"] if self.margin else 0.0,
        )
        return preference_terms(loss, ratios, outputs, batch, beta=self.beta, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustDPO:
    """DPO made unbiased under flipped labels.

    Attributes: label_smoothing: the rate at which labels are flipped, in [0, 0.5); unlike in `DPO`
        the loss is not bounded below, so too high a rate drifts. Others as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = REFERENCE
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["robust"] = "robust"
    beta: float = 0.1
    label_smoothing: float = 0.1
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        flip_rate("label_smoothing", self.label_smoothing)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        ratios = log_ratios(outputs, batch)
        loss = robust_loss(*ratios, beta=self.beta, label_smoothing=self.label_smoothing)
        return preference_terms(loss, ratios, outputs, batch, beta=self.beta, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class DPOP:
    """DPO-positive: DPO that may not make the chosen side less likely than the reference does.

    Attributes: penalty: lambda, how much a nat lost on the chosen side costs. Others as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = REFERENCE
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["dpop"] = "dpop"
    beta: float = 0.3
    penalty: float = 50.0
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("penalty", self.penalty)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        ratios = log_ratios(outputs, batch)
        loss = dpop_loss(*ratios, beta=self.beta, penalty=self.penalty)
        return preference_terms(loss, ratios, outputs, batch, beta=self.beta, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class DPONorm:
    """Length-normalised DPO (Tulu 3, arXiv:2411.15124): `dpo_loss` on log-ratios averaged over tokens.

    Attributes: beta: for averages, so far larger than for sums: with |y| tokens a side it acts as
        beta / |y| does in `DPO`. nll_weight as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = REFERENCE
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["dpo_norm"] = "dpo_norm"
    beta: float = 5.0
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        loss = dpo_loss(*mean_log_ratios(outputs, batch), beta=self.beta)
        ratios = log_ratios(outputs, batch)
        return preference_terms(loss, ratios, outputs, batch, beta=self.beta, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class RDPO:
    """Length-regularised DPO: a longer chosen side is worth less.

    Attributes: alpha: what a token more of the chosen side takes off, in logits. Others as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = REFERENCE
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["r_dpo"] = "r_dpo"
    beta: float = 0.1
    alpha: float = 0.01
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("alpha", self.alpha)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        ratios = log_ratios(outputs, batch)
        loss = rdpo_loss(*ratios, side_lengths(outputs, batch), beta=self.beta, alpha=self.alpha)
        return preference_terms(loss, ratios, outputs, batch, beta=self.beta, nll_weight=self.nll_weight)


def content_log_ratios(outputs: Outputs, batch: Batch) -> Sides:
    """Delta of each side over its words alone, nats: tokens whose `content` column is 0 are left out."""
    ratio = outputs.logprobs - batch.columns["ref_logprobs"]
    words = torch.where(batch.columns["content"] > 0, ratio, torch.zeros_like(ratio))
    return pairs(sum_by_sequence(words, batch), batch)
