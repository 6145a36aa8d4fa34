"""Reward models from comparisons: the maths, then its binding to a batch.

Notation: r is the score of a whole completion, [S]; a group's completions stand best first.
Delta = r_chosen - r_rejected. All losses are one number a group, unreduced; a step's loss is
their mean over its groups, so a ranking of K completions counts as much as a pair.

What keeps sigma(Delta) honest and the scale of r bounded, so that a KL weight, a clip or an
ensemble's spread means the same tomorrow: soft labels or smoothing, centring, a penalty on the
scale. The temperature that is left is fitted afterwards, `evaluate/calibration.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import PER_GROUP, Batch, Outputs, Reduction, Terms, pairs
from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch = lazy_module("torch")
    F = lazy_module("torch.nn.functional")


def bradley_terry_loss(
    delta: Tensor, *, probability: Tensor | float = 1.0, margin: Tensor | float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """Bradley-Terry loss: -q log sigmoid(Delta - m) - (1 - q) log sigmoid(m - Delta).

    Args:
        delta: r_chosen - r_rejected, any shape.
        probability: P(the first is the better one): 1 for a hard label, a share of votes, an AI
            labeller's probability.
        margin: how far apart annotators found the two; the scores must differ by as much.
        label_smoothing: eps, the assumed rate of flipped labels: q = (1 - eps) P + eps (1 - P).
    Returns: delta's shape, unreduced; log 2 at Delta = m. With a hard label and eps > 0 it is least
        at Delta - m = log((1 - eps) / eps), so the scale is bounded.
    Bradley and Terry 1952; Stiennon et al. 2020, arXiv:2009.01325, eq. 1; margin: Touvron et al.
    2023 (Llama 2), arXiv:2307.09288, eq. 2.
    """
    q = probability + label_smoothing * (1 - 2 * probability)
    return -q * F.logsigmoid(delta - margin) - (1 - q) * F.logsigmoid(margin - delta)


def entropy_of_sigmoid(delta: Tensor) -> Tensor:
    """H(p) of p = sigmoid(Delta), nats: p softplus(-Delta) + (1 - p) softplus(Delta); log 2 at 0."""
    p = torch.sigmoid(delta)
    return p * F.softplus(-delta) + (1 - p) * F.softplus(delta)


def all_pairs_loss(scores: Tensor, valid: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean Bradley-Terry loss over the C(K, 2) pairs of each ranking, [G].

    Args: scores, valid: [G, K], best first; rows of unlike length are filled up on the right,
        where `valid` is False.
    The pairs of one ranking share prompts and answers; spread over an epoch as rows of their own
    they overfit. Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, eq. 1.
    """
    return _pair_mean(bradley_terry_loss(differences(scores), label_smoothing=label_smoothing), valid)


def plackett_luce_loss(scores: Tensor, valid: Tensor) -> Tensor:
    """Negative log-likelihood of each ranking: sum_i [log sum_{j >= i} exp r_j - r_i], [G].

    Args: as in `all_pairs_loss`.
    The best of all is drawn first, then the best of the rest: log K! where all scores are equal,
    the Bradley-Terry loss for K = 2.
    Plackett 1975; for reward models Zhu et al. 2023, arXiv:2301.11270 (their K-wise MLE).
    """
    lowest = torch.finfo(scores.dtype).min / 2  # not -inf, whose gradient is nan
    filled = torch.where(valid, scores, lowest)
    rest = filled.flip(1).logcumsumexp(1).flip(1)
    return torch.where(valid, rest - filled, 0.0).sum(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BradleyTerry:
    """A reward model from pairs.

    Attributes:
        label_smoothing: assumed share of flipped labels, in [0, 0.5); 0.05 bounds Delta by 2.94.
            Use 0 with soft labels that are already honest.
        soft_labels: read each pair's `probability` that the first is better; otherwise it is 1.
        margin: read each pair's annotated `margin`, which the scores must differ by.
        center_rewards_coefficient: weight of (r_chosen + r_rejected)^2, which keeps scores around 0.
        scale_penalty: weight of Delta^2.
        confidence_penalty: weight of minus the entropy of sigmoid(Delta).
    """

    wants: ClassVar[frozenset[str]] = frozenset({"scores"})
    reductions: ClassVar[tuple[Reduction, ...]] = (PER_GROUP,)

    name: Literal["bradley_terry"] = "bradley_terry"
    label_smoothing: float = 0.05
    soft_labels: bool = False
    margin: bool = False
    center_rewards_coefficient: float = 0.01
    scale_penalty: float = 0.0
    confidence_penalty: float = 0.0

    def __post_init__(self) -> None:
        _check(self.label_smoothing, self.center_rewards_coefficient)
        if self.scale_penalty < 0 or self.confidence_penalty < 0:
            raise ValueError(
                f"scale_penalty and confidence_penalty must not be negative, "
                f"got {self.scale_penalty}, {self.confidence_penalty}"
            )

    @property
    def needs(self) -> frozenset[str]:
        read = {"margin": self.margin, "probability": self.soft_labels}
        return frozenset(name for name, wanted in read.items() if wanted)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        scores = _scores(outputs)
        chosen, rejected = pairs(scores, batch)
        delta = chosen - rejected
        loss = bradley_terry_loss(
            delta,
            probability=batch.columns["probability"] if self.soft_labels else 1.0,
            margin=batch.columns["margin"] if self.margin else 0.0,
            label_smoothing=self.label_smoothing,
        )
        loss = loss + self.center_rewards_coefficient * (chosen + rejected).square()
        loss = loss + self.scale_penalty * delta.square() - self.confidence_penalty * entropy_of_sigmoid(delta)
        return Terms((loss,), reward_metrics(scores, batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class AllPairs:
    """A reward model from rankings of K >= 2, all pairs of one ranking in one batch; `BradleyTerry` for K = 2.

    Attributes: label_smoothing as in `BradleyTerry`. center_rewards_coefficient: weight of the mean
        of (r_i + r_j)^2 over a ranking's pairs.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    wants: ClassVar[frozenset[str]] = frozenset({"scores"})
    reductions: ClassVar[tuple[Reduction, ...]] = (PER_GROUP,)

    name: Literal["all_pairs"] = "all_pairs"
    label_smoothing: float = 0.05
    center_rewards_coefficient: float = 0.01

    def __post_init__(self) -> None:
        _check(self.label_smoothing, self.center_rewards_coefficient)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        ranked, valid = rankings(_scores(outputs), batch)
        loss = all_pairs_loss(ranked, valid, label_smoothing=self.label_smoothing)
        sums = (ranked.unsqueeze(2) + ranked.unsqueeze(1)).square()
        loss = loss + self.center_rewards_coefficient * _pair_mean(sums, valid)
        return Terms((loss,), reward_metrics(_scores(outputs), batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlackettLuce:
    """A reward model from rankings of K >= 2, by the likelihood of the whole order.

    Attributes: center_rewards_coefficient: weight of (2 mean_k r_k)^2, which for a pair is
        `BradleyTerry`'s. Labels are taken as they are: there is no smoothing.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    wants: ClassVar[frozenset[str]] = frozenset({"scores"})
    reductions: ClassVar[tuple[Reduction, ...]] = (PER_GROUP,)

    name: Literal["plackett_luce"] = "plackett_luce"
    center_rewards_coefficient: float = 0.01

    def __post_init__(self) -> None:
        _check(0.0, self.center_rewards_coefficient)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        ranked, valid = rankings(_scores(outputs), batch)
        mean = ranked.sum(1) / valid.sum(1)
        loss = plackett_luce_loss(ranked, valid) + self.center_rewards_coefficient * (2 * mean).square()
        return Terms((loss,), reward_metrics(_scores(outputs), batch))


def rankings(scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Scores [S] as one row a group, best first and filled up with 0: [G, K], and where there is one."""
    shape = (batch.num_groups, int(batch.place.max()) + 1)
    where = (batch.group, batch.place)
    valid = torch.zeros(shape, dtype=torch.bool, device=scores.device).index_put(where, torch.ones_like(scores).bool())
    return scores.new_zeros(shape).index_put(where, scores), valid


def differences(scores: Tensor) -> Tensor:
    """r_i - r_j of each row's entries, [G, K, K]."""
    return scores.unsqueeze(2) - scores.unsqueeze(1)


def reward_metrics(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
    """TRL's metrics of a reward model, and the share of ties; means over a group's pairs, [G], then over groups.

    Accuracy counts strict wins, so a model that gives one score to everything has 0, and tie_rate 1.
    """
    scores = scores.detach()
    ranked, valid = rankings(scores, batch)
    delta = differences(ranked)
    return {
        "accuracy": _pair_mean((delta > 0).to(scores.dtype), valid),
        "tie_rate": _pair_mean((delta == 0).to(scores.dtype), valid),
        "margin": _pair_mean(delta, valid),
        "mean_reward": scores,
        "min_reward": scores,
        "max_reward": scores,
    }


def _pair_mean(values: Tensor, valid: Tensor) -> Tensor:
    """The mean of values [G, K, K] over each group's pairs i < j, [G]."""
    above = torch.ones_like(values[0], dtype=torch.bool).triu(1)
    inside = above & valid.unsqueeze(1)
    return torch.where(inside, values, 0.0).sum((1, 2)) / inside.sum((1, 2))


def _scores(outputs: Outputs) -> Tensor:
    assert outputs.scores is not None, "a reward model's forward gives scores"
    return outputs.scores


def _check(label_smoothing: float, center_rewards_coefficient: float) -> None:
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), got {label_smoothing}")
    if center_rewards_coefficient < 0:
        raise ValueError(f"center_rewards_coefficient must not be negative, got {center_rewards_coefficient}")
