"""Losses on pairs that are not -log sigmoid(beta h): squared (IPO), hinged, anchored (APO).

Notation as in `pairs`: Delta = S - S_ref of a side, h = Delta_chosen - Delta_rejected. They stop
pushing once a pair is won by enough, where the logistic loss never quite does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import Batch, Outputs, Reduction, Terms
from strop.lazy import lazy_module
from strop.objectives.checks import not_negative, positive
from strop.objectives.pairs import (
    NOTHING,
    PAIR_AND_NLL,
    REFERENCE,
    log_ratios,
    mean_log_ratios,
    preference_terms,
)

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch = lazy_module("torch")
    F = lazy_module("torch.nn.functional")


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


def apo_zero_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """APO-zero loss per pair: sigmoid(-beta Delta_chosen) + sigmoid(beta Delta_rejected).

    Pushes the chosen side up and the rejected side down, each against the reference alone.

    Args: chosen, rejected: summed log-ratios policy/reference, [G], nats.
    Returns: [G], unreduced, in (0, 2); 1 where policy and reference agree.
    D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7.
    """
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


def apo_down_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """APO-down loss per pair: sigmoid(beta Delta_chosen) + sigmoid(-beta h).

    Pushes both sides down, the rejected one further.

    Args: chosen, rejected: summed log-ratios policy/reference, [G], nats.
    Returns: [G], unreduced, in (0, 2); 1 where policy and reference agree.
    D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 8.
    """
    return torch.sigmoid(beta * chosen) + torch.sigmoid(-beta * (chosen - rejected))


@dataclass(frozen=True, slots=True, kw_only=True)
class IPO:
    """Identity preference optimisation on log-ratios averaged over tokens (the authors' usage, TRL's).

    Attributes: tau: regularisation; the target margin is 1/(2 tau) nats a token. nll_weight as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = REFERENCE
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["ipo"] = "ipo"
    tau: float = 0.1
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("tau", self.tau)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        loss = ipo_loss(*mean_log_ratios(outputs, batch), tau=self.tau)
        ratios = log_ratios(outputs, batch)
        return preference_terms(loss, ratios, outputs, batch, beta=self.tau, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class IPOSum:
    """Identity preference optimisation on summed log-ratios (the paper's eq. 17 as it stands).

    Attributes: tau: regularisation; the target margin is 1/(2 tau) nats. nll_weight as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = REFERENCE
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["ipo_sum"] = "ipo_sum"
    tau: float = 0.1
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("tau", self.tau)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        ratios = log_ratios(outputs, batch)
        loss = ipo_loss(*ratios, tau=self.tau)
        return preference_terms(loss, ratios, outputs, batch, beta=self.tau, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hinge:
    """Hinge (RSO) preference loss; attributes as in `DPO`."""

    needs: ClassVar[frozenset[str]] = REFERENCE
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["hinge"] = "hinge"
    beta: float = 0.1
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        ratios = log_ratios(outputs, batch)
        loss = hinge_loss(*ratios, beta=self.beta)
        return preference_terms(loss, ratios, outputs, batch, beta=self.beta, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class APOZero:
    """Anchored preference optimisation for chosen sides better than what the model would say.

    Attributes as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = REFERENCE
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["apo_zero"] = "apo_zero"
    beta: float = 0.1
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        ratios = log_ratios(outputs, batch)
        loss = apo_zero_loss(*ratios, beta=self.beta)
        return preference_terms(loss, ratios, outputs, batch, beta=self.beta, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class APODown:
    """Anchored preference optimisation for chosen sides worse than what the model would say.

    Attributes as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = REFERENCE
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["apo_down"] = "apo_down"
    beta: float = 0.1
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        ratios = log_ratios(outputs, batch)
        loss = apo_down_loss(*ratios, beta=self.beta)
        return preference_terms(loss, ratios, outputs, batch, beta=self.beta, nll_weight=self.nll_weight)
