"""Feedback on single answers, desirable or not: KTO, the maths, then its binding to a batch.

Notation: r = S - S_ref is a completion's summed log-ratio of policy and reference. The baseline z0
estimates KL(policy || reference) over the whole optimizer step from completions under prompts that
are not theirs; it crosses sequences, so it is annotated beforehand and only read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import PER_SEQUENCE, Batch, Outputs, Reduction, Terms, sum_by_sequence
from strop.lazy import lazy_module
from strop.objectives.checks import positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def kto_loss(
    ratio: Tensor, labels: Tensor, baseline: Tensor, *, beta: float, desirable: float, undesirable: float
) -> Tensor:
    """KTO loss per completion: lambda_D sigmoid(beta (z0 - r)) if desirable, lambda_U sigmoid(beta (r - z0)) if not.

    sigmoid(-x) stands for 1 - sigmoid(x), which loses all digits where x is large.

    Args:
        ratio: r, summed log-ratios policy/reference, [S], nats.
        labels: 1 desirable, 0 undesirable, [S].
        baseline: z0 >= 0, without gradient, [S], nats.
    Returns: [S], unreduced; half its weight where r = z0.
    Ethayarajh et al. 2024, arXiv:2402.01306, without its constant term lambda_y (as TRL).
    """
    sign, weight = 2 * labels - 1, desirable * labels + undesirable * (1 - labels)
    return weight * torch.sigmoid(beta * sign * (baseline - ratio))


@dataclass(frozen=True, slots=True, kw_only=True)
class KTO:
    """Kahneman-Tversky optimisation.

    Attributes:
        beta: strength of the pull to the reference.
        desirable_weight, undesirable_weight: lambda_D, lambda_U. With n_D desirable and n_U
            undesirable rows, choose lambda_D n_D / (lambda_U n_U) in [1, 4/3], moving one of them.

    rewards/chosen and rewards/rejected are means of beta r over desirable and undesirable rows; a
    step without one of the classes lacks its name.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs", "labels", "kl_baseline"})
    wants: ClassVar[frozenset[str]] = frozenset()
    reductions: ClassVar[tuple[Reduction, ...]] = (PER_SEQUENCE,)

    name: Literal["kto"] = "kto"
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        positive("desirable_weight", self.desirable_weight)
        positive("undesirable_weight", self.undesirable_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        labels, baseline = batch.columns["labels"], batch.columns["kl_baseline"]
        ratio = sum_by_sequence(outputs.logprobs - batch.columns["ref_logprobs"], batch)
        loss = kto_loss(
            ratio, labels, baseline,
            beta=self.beta, desirable=self.desirable_weight, undesirable=self.undesirable_weight,
        )  # fmt: skip
        rewards = (self.beta * ratio).detach()
        logps = sum_by_sequence(outputs.logprobs.detach(), batch)
        good = labels > 0
        metrics = {
            "rewards/chosen": rewards[good],
            "rewards/rejected": rewards[~good],
            "logps/chosen": logps[good],
            "logps/rejected": logps[~good],
            "kl": baseline,
        }
        return Terms((loss,), metrics)
