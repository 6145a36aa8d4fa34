"""What all losses on pairs share: the two sides' numbers, and the terms and metrics they become.

Notation: S is the summed log-prob of a completion's trained tokens, S_bar their mean;
Delta = S - S_ref the log-ratio of policy and reference, h = Delta_chosen - Delta_rejected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strop.batch import (
    CHOSEN_TOKEN_MEAN,
    PER_GROUP,
    Batch,
    Outputs,
    Terms,
    lengths,
    mean_by_sequence,
    pairs,
    sum_by_sequence,
)

if TYPE_CHECKING:
    from torch import Tensor

Sides = tuple["Tensor", "Tensor"]
"""A number of each (chosen, rejected), [G] each."""

REFERENCE = frozenset({"ref_logprobs"})
NOTHING: frozenset[str] = frozenset()
PAIR_AND_NLL = (PER_GROUP, CHOSEN_TOKEN_MEAN)
"""A mean over pairs, and a mean over all chosen tokens of the step."""


def log_ratios(outputs: Outputs, batch: Batch) -> Sides:
    """Delta of each side, nats."""
    return pairs(sum_by_sequence(outputs.logprobs - batch.columns["ref_logprobs"], batch), batch)


def mean_log_ratios(outputs: Outputs, batch: Batch) -> Sides:
    """Delta / |y| of each side, nats a token."""
    return pairs(mean_by_sequence(outputs.logprobs - batch.columns["ref_logprobs"], batch), batch)


def sums(outputs: Outputs, batch: Batch) -> Sides:
    """S of each side, nats."""
    return pairs(sum_by_sequence(outputs.logprobs, batch), batch)


def means(outputs: Outputs, batch: Batch) -> Sides:
    """S_bar of each side, nats a token."""
    return pairs(mean_by_sequence(outputs.logprobs, batch), batch)


def side_lengths(outputs: Outputs, batch: Batch) -> Sides:
    """|y| of each side: its trained tokens."""
    return pairs(lengths(batch).to(outputs.logprobs.dtype), batch)


def preference_terms(
    loss: Tensor, ratios: Sides, outputs: Outputs, batch: Batch, *, beta: float, nll_weight: float
) -> Terms:
    """The terms of a loss on log-ratios; the implicit reward of a side is beta Delta."""
    chosen, rejected = ratios
    return pair_terms(
        loss, (beta * chosen, beta * rejected), sums(outputs, batch), outputs, batch, nll_weight=nll_weight
    )


def pair_terms(
    loss: Tensor, rewards: Sides, logps: Sides, outputs: Outputs, batch: Batch, *, nll_weight: float
) -> Terms:
    """The pair loss, the weighted NLL of the chosen side, and the family's metrics under TRL's names.

    rewards/accuracies counts strict wins, so it is 0 at the reference, where rewards/ties is 1.
    Their `reductions` are PAIR_AND_NLL: the NLL is a mean over the step's chosen tokens.
    """
    win, lose = (side.detach() for side in rewards)
    metrics = {
        "rewards/chosen": win,
        "rewards/rejected": lose,
        "rewards/margins": win - lose,
        "rewards/accuracies": (win > lose).to(win.dtype),
        "rewards/ties": (win == lose).to(win.dtype),
        "logps/chosen": logps[0].detach(),
        "logps/rejected": logps[1].detach(),
        "nll_loss": -outputs.logprobs.detach()[(batch.place == 0)[batch.seq]],
    }
    return Terms((loss, -nll_weight * outputs.logprobs), metrics)
