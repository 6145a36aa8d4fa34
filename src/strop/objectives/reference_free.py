"""Preference losses on pairs without a reference model: ORPO, SimPO, CPO, SLiC, reference-free DPO.

Notation as in `pairs`: S is the summed log-prob of a side's trained tokens, S_bar their mean. What
holds the policy without a reference is the chosen side's likelihood (ORPO, CPO, SLiC), a target
margin on averages (SimPO), or nothing at all (reference-free DPO without `nll_weight`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import Batch, Outputs, Reduction, Terms
from strop.lazy import lazy_module
from strop.objectives.checks import flip_rate, not_negative, positive
from strop.objectives.pairs import NOTHING, PAIR_AND_NLL, means, pair_terms, sums
from strop.objectives.preference import dpo_loss

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch = lazy_module("torch")
    F = lazy_module("torch.nn.functional")

LARGEST_MEAN_LOGPROB = -1e-6
"""A mean log-prob above this counts as this: the odds of probability 1 are infinite, their gradient NaN."""


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) of x < 0, without cancellation at either end.

    Maechler 2012, "Accurately computing log(1 - exp(-|a|))".
    """
    return torch.where(x < -math.log(2), torch.log1p(-x.exp()), torch.log(-torch.expm1(x)))


def log_odds(mean_logprobs: Tensor) -> Tensor:
    """log(p / (1 - p)) of a sequence's geometric-mean probability p = e^S_bar, any shape.

    S_bar is kept at or below -1e-6, with no gradient above it; TRL 1.16 gives NaN at 0.
    """
    kept = mean_logprobs.clamp(max=LARGEST_MEAN_LOGPROB)
    return kept - log1mexp(kept)


def odds_ratio_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """ORPO's odds ratio loss per pair: -log sigmoid(log odds(chosen) - log odds(rejected)).

    Args: chosen, rejected: log-probs of the policy averaged over tokens, [G], nats a token.
    Returns: [G], unreduced; log 2 where both sides are as likely.
    Hong et al. 2024, arXiv:2403.07691, eqs. 4 and 7.
    """
    return -F.logsigmoid(log_odds(chosen) - log_odds(rejected))


def simpo_loss(chosen: Tensor, rejected: Tensor, *, beta: float, gamma: float) -> Tensor:
    """SimPO loss per pair: -log sigmoid(beta (S_bar_chosen - S_bar_rejected) - gamma).

    Args: chosen, rejected: log-probs of the policy averaged over tokens, [G], nats a token.
        gamma: the margin aimed at, in the units of beta S_bar.
    Returns: [G], unreduced; softplus(gamma) where both sides are as likely.
    Meng et al. 2024, arXiv:2405.14734.
    """
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def slic_loss(chosen: Tensor, rejected: Tensor, *, delta: float, regularization: float) -> Tensor:
    """SLiC-HF loss per pair: max(0, delta - (S_chosen - S_rejected)) - lambda S_chosen.

    Args: chosen, rejected: log-probs of the policy, summed, [G], nats.
        delta: the margin aimed at, nats. regularization: lambda.
    Returns: [G], unreduced.
    Zhao et al. 2023, arXiv:2305.10425; its regularisation target is the chosen side here.
    """
    return F.relu(delta - (chosen - rejected)) - regularization * chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class ORPO:
    """Odds ratio preference optimisation: the chosen side's likelihood plus an odds ratio, in one stage.

    Attributes: weight: lambda, of the odds ratio loss (TRL calls it beta).

    The likelihood is a mean over all chosen tokens of the step; TRL counts the prompt's tokens too.
    As in TRL, rewards/* are lambda S_bar and logps/* averages.
    """

    needs: ClassVar[frozenset[str]] = NOTHING
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["orpo"] = "orpo"
    weight: float = 0.1

    def __post_init__(self) -> None:
        positive("weight", self.weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        chosen, rejected = means(outputs, batch)
        loss = odds_ratio_loss(chosen, rejected)
        rewards = self.weight * chosen, self.weight * rejected
        terms = pair_terms(self.weight * loss, rewards, (chosen, rejected), outputs, batch, nll_weight=1.0)
        odds = (log_odds(chosen) - log_odds(rejected)).detach()
        return Terms(terms.losses, {**terms.metrics, "log_odds_ratio": -loss.detach(), "log_odds_chosen": odds})


@dataclass(frozen=True, slots=True, kw_only=True)
class SimPO:
    """Simple preference optimisation: average log-probs, and a margin to win by.

    Attributes:
        beta: scale of the averages; 2 to 10, far above DPO's.
        gamma: the margin; a gamma / beta of 0.3 to 0.5 nats a token is usual.
        nll_weight: adds the chosen side's negative log-likelihood, as in `DPO`.

    As in TRL, rewards/* are beta S_bar and logps/* averages.
    """

    needs: ClassVar[frozenset[str]] = NOTHING
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["simpo"] = "simpo"
    beta: float = 2.0
    gamma: float = 1.0
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("gamma", self.gamma)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        chosen, rejected = means(outputs, batch)
        loss = simpo_loss(chosen, rejected, beta=self.beta, gamma=self.gamma)
        rewards = self.beta * chosen, self.beta * rejected
        return pair_terms(loss, rewards, (chosen, rejected), outputs, batch, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class CPO:
    """Contrastive preference optimisation: DPO with a uniform reference, plus the chosen side's likelihood.

    Xu et al. 2024, arXiv:2401.08417.
    Attributes: as in `DPO`.
    """

    needs: ClassVar[frozenset[str]] = NOTHING
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["cpo"] = "cpo"
    beta: float = 0.1
    nll_weight: float = 1.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        chosen, rejected = sums(outputs, batch)
        loss = dpo_loss(chosen, rejected, beta=self.beta)
        rewards = self.beta * chosen, self.beta * rejected
        return pair_terms(loss, rewards, (chosen, rejected), outputs, batch, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefFreeDPO:
    """DPO with the reference's log-probs taken as 0: nothing holds the policy but `nll_weight`.

    Attributes: as in `DPO`. Without smoothing this is `CPO` with its likelihood term off.
    """

    needs: ClassVar[frozenset[str]] = NOTHING
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["ref_free"] = "ref_free"
    beta: float = 0.1
    label_smoothing: float = 0.0
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        flip_rate("label_smoothing", self.label_smoothing)
        not_negative("nll_weight", self.nll_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        chosen, rejected = sums(outputs, batch)
        loss = dpo_loss(chosen, rejected, beta=self.beta, label_smoothing=self.label_smoothing)
        rewards = self.beta * chosen, self.beta * rejected
        return pair_terms(loss, rewards, (chosen, rejected), outputs, batch, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class SLiC:
    """Sequence likelihood calibration: a hinge on the sides' log-probs, plus the chosen side's likelihood.

    Attributes:
        delta: the margin aimed at, nats.
        regularization: lambda, weight of the chosen side's summed log-prob. Unlike an `nll_weight`
            it counts a pair, not a token, so it grows with length.

    rewards/* are the log-probs themselves.
    """

    needs: ClassVar[frozenset[str]] = NOTHING
    wants: ClassVar[frozenset[str]] = NOTHING
    reductions: ClassVar[tuple[Reduction, ...]] = PAIR_AND_NLL

    name: Literal["slic"] = "slic"
    delta: float = 1.0
    regularization: float = 0.1

    def __post_init__(self) -> None:
        positive("delta", self.delta)
        not_negative("regularization", self.regularization)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        sides = sums(outputs, batch)
        loss = slic_loss(*sides, delta=self.delta, regularization=self.regularization)
        return pair_terms(loss, sides, sides, outputs, batch, nll_weight=0.0)
