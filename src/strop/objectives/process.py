"""Process rewards: a judgement of every step of a solution, learned from step labels or from outcomes.

A process reward model reads one logit z at the last token of each step; sigmoid(z) is the chance
that the step is right. An implicit one is a language model trained on outcomes alone, whose
log-ratio to a reference is a reward token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import PER_SEQUENCE, TOKEN_MEAN, Batch, Outputs, Reduction, Terms, sum_by_sequence
from strop.lazy import lazy_module
from strop.objectives.checks import positive

if TYPE_CHECKING:
    import torch.nn.functional as F
    from torch import Tensor
else:
    F = lazy_module("torch.nn.functional")


def step_loss(logits: Tensor, labels: Tensor, *, right_weight: float = 1.0, wrong_weight: float = 1.0) -> Tensor:
    """Cross-entropy per step: -w_right y log sigmoid(z) - w_wrong (1 - y) log sigmoid(-z).

    Args:
        logits: z at each step's last token, [N].
        labels: y in [0, 1], [N]; 0 and 1 are hard labels, anything between how likely the step is right.
        right_weight, wrong_weight: of the two classes, where one of them is rare.
    Returns: [N], unreduced; log 2 at z = 0 with weights of 1. Its minimum is at z = logit(y).
    Lightman et al. 2023, arXiv:2305.20050, section 2.6 (two classes here, neutral counted by the data);
    soft labels: Wang et al. 2024 (Math-Shepherd), arXiv:2312.08935, eq. 4. A head of two logits with
    softmax cross-entropy is the same thing with z their difference.
    """
    return -right_weight * labels * F.logsigmoid(logits) - wrong_weight * (1 - labels) * F.logsigmoid(-logits)


def implicit_rewards(logprobs: Tensor, ref_logprobs: Tensor, *, beta: float) -> Tensor:
    """Implicit reward of each token, beta log(pi / pi_ref), [N]; its sum over a solution is the outcome logit r.

    Yuan et al. 2024, arXiv:2412.01981, proposition 3.1: the sum q_t over the first t tokens is the
    soft expectation of r over how the reference goes on, beta log E_ref exp(r / beta), so what a step
    adds to q is its reward.
    """
    return beta * (logprobs - ref_logprobs)


def implicit_step_rewards(token_rewards: Sequence[float], ends: Sequence[int]) -> list[float]:
    """Each step's reward q_end - q_end_before, with q_t the sum of the token rewards up to and with t.

    Args: token_rewards: of one solution's tokens; ends: the index of each step's last token, ascending.
    Returns: one number a step; they add up to q at the last end, so to r where the last step ends the solution.
    Yuan et al. 2024, arXiv:2412.01981, section 3.
    """
    q = [0.0, *accumulate(token_rewards)]
    return [q[end + 1] - q[start] for start, end in zip((0, *(e + 1 for e in ends)), ends, strict=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLoss:
    """A process reward model's loss: cross-entropy of every labelled step, averaged over the step's labels.

    Attributes: right_weight, wrong_weight: weights of right and wrong steps. The normaliser stays the number
        of labels, so weights other than 1 also change the size of the gradient.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"step_labels"})
    wants: ClassVar[frozenset[str]] = frozenset()
    reductions: ClassVar[tuple[Reduction, ...]] = (TOKEN_MEAN,)

    name: Literal["process"] = "process"
    right_weight: float = 1.0
    wrong_weight: float = 1.0

    def __post_init__(self) -> None:
        positive("right_weight", self.right_weight)
        positive("wrong_weight", self.wrong_weight)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        """Loss [N], one entry a labelled step: these are the batch's trained tokens."""
        assert outputs.values is not None, "a process reward model reads a value at each step's end"
        labels = batch.columns["step_labels"].to(outputs.values.dtype)
        loss = step_loss(outputs.values, labels, right_weight=self.right_weight, wrong_weight=self.wrong_weight)
        return Terms((loss,), step_metrics(outputs.values.detach(), labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitPRM:
    """An implicit process reward model: cross-entropy of the outcome with r = beta sum log(pi / pi_ref).

    Attributes: beta: scale of the log-ratio; the smaller, the farther the model moves from the reference.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs", "labels"})
    wants: ClassVar[frozenset[str]] = frozenset()
    reductions: ClassVar[tuple[Reduction, ...]] = (PER_SEQUENCE,)

    name: Literal["implicit_prm"] = "implicit_prm"
    beta: float = 0.05

    def __post_init__(self) -> None:
        positive("beta", self.beta)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        """Loss [S]; Yuan et al. 2024, arXiv:2412.01981, section 3 (their L_CE).

        rewards/chosen and rewards/rejected are r of right and of wrong solutions, as TRL names them.
        """
        ref, labels = batch.columns["ref_logprobs"], batch.columns["labels"].to(outputs.logprobs.dtype)
        r = sum_by_sequence(implicit_rewards(outputs.logprobs, ref, beta=self.beta), batch)
        known, right = r.detach(), labels > 0.5
        metrics = {
            "accuracy": ((known > 0) == right).to(known.dtype),
            "rewards/chosen": known[right],
            "rewards/rejected": known[~right],
        }
        return Terms((step_loss(r, labels),), metrics)


def step_metrics(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Accuracy, and each class's recall and precision, over labelled steps.

    A step counts as right where its label exceeds 1/2, and is called right where its logit exceeds 0.
    Each entry is 0 or 1, and a class that does not occur gives none: the mean over an optimizer step is
    the share itself. F1 = 2 p r / (p + r) of the logged shares. Most steps of a data set are right, so
    accuracy alone says little; recall/wrong is the share of errors that are found.
    """
    right, called = labels > 0.5, logits > 0
    hit = (right == called).to(logits.dtype)
    return {
        "accuracy": hit,
        "recall/right": hit[right],
        "recall/wrong": hit[~right],
        "precision/right": hit[called],
        "precision/wrong": hit[~called],
    }
