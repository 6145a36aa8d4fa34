"""Supervised fine-tuning: maximum likelihood of the trained tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import SEQUENCE_MEAN, TOKEN_MEAN, Batch, Outputs, Reduction, Terms

if TYPE_CHECKING:
    from torch import Tensor


def nll_loss(logprobs: Tensor) -> Tensor:
    """Negative log-likelihood of each trained token, -log pi(token | prefix).

    Args: logprobs: [N], nats.
    Returns: [N], unreduced.
    """
    return -logprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class SFT:
    """Supervised fine-tuning.

    Attributes: average: over all trained tokens of the step (the field's default), or over each
        sequence's tokens first, so that short answers count as much as long ones.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    wants: ClassVar[frozenset[str]] = frozenset({"entropy", "correct"})

    name: Literal["sft"] = "sft"
    average: Literal["token", "sequence"] = "token"

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        return (TOKEN_MEAN if self.average == "token" else SEQUENCE_MEAN,)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        """Loss [N]; logs TRL's mean_token_accuracy and entropy."""
        metrics = {}
        if outputs.correct is not None:
            metrics["mean_token_accuracy"] = outputs.correct
        if outputs.entropy is not None:
            metrics["entropy"] = outputs.entropy.detach()
        return Terms((nll_loss(outputs.logprobs),), metrics)
