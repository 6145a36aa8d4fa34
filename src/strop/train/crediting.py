"""Credit at the tokens of a rollout: annotations that turn scores, log-probs and values into advantages.

Each takes all groups of a rollout at once, since whitening and the KL's control are over the whole
of it, and writes columns that hold one number a trained token. What they measure is logged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strop import dist
from strop.batch import Batch
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.model.sequences import sequence_numbers
from strop.token_credit import (
    GAE,
    Numbers,
    ReinforcePP,
    ReinforcePPBaseline,
    explained_variance,
    kl_shaped_rewards,
    terminal_reward,
)
from strop.train.annotate import spread, trained_ids
from strop.train.control import KLControl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Values:
    """What the critic says before each token of a rollout, asked once, before anything is trained on it.

    Attributes: critic: values [N] of a batch.
    """

    critic: Callable[[Batch], Tensor]
    max_tokens: int
    device: str

    def __call__(self, groups: Sequence[EncodedGroup]) -> tuple[EncodedGroup, ...]:
        """The same groups with the column `old_values`."""
        if not groups:
            return ()
        found = sequence_numbers(self.critic, groups, max_tokens=self.max_tokens, device=self.device)
        return with_numbers(groups, "old_values", [numbers for row in found for numbers in row])


@dataclass(slots=True)
class PPOCredit:
    """Advantages and returns from the columns rewards, old_logprobs, old_values and, where the KL counts, ref_logprobs.

    A column step_rewards, where there is one, is added to each token's reward.

    Attributes:
        control: the weight of the KL in the reward; takes in each rollout's KL for the next one.
        reward_clip: bound of a sequence's score; None leaves it.
        missing_eos_penalty: subtracted from the score of a completion that was cut off.
        metrics: of the last call: TRL's objective/* and val/num_eos_tokens, val/explained_variance, kl_coef.
    """

    gae: GAE
    control: KLControl
    reward_clip: float | None
    missing_eos_penalty: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, groups: Sequence[EncodedGroup]) -> tuple[EncodedGroup, ...]:
        """The same groups with the columns `advantages` and `returns`."""
        sequences = [sequence for group in groups for sequence in group.sequences]
        terminals = [
            terminal_reward(
                score, ended=not s.truncated, clip=self.reward_clip, missing_eos_penalty=self.missing_eos_penalty
            )
            for s, score in zip(sequences, scores_of(groups), strict=True)
        ]
        old, values = trained_numbers(groups, "old_logprobs"), trained_numbers(groups, "old_values")
        ref = trained_numbers(groups, "ref_logprobs") if self.control.wants_reference else old
        beta = self.control.coefficient
        rewards = [kl_shaped_rewards(o, r, end, beta=beta) for o, r, end in zip(old, ref, terminals, strict=True)]
        if any("step_rewards" in s.columns for s in sequences):
            rewards = [r + dense for r, dense in zip(rewards, trained_numbers(groups, "step_rewards"), strict=True)]
        advantages, returns = self.gae(rewards, values)
        self.metrics = {
            **self._measure(old, ref, rewards, terminals, sum(not s.truncated for s in sequences)),
            "val/explained_variance": explained_variance(values, returns),
        }
        groups = with_numbers(groups, "advantages", advantages)
        return with_numbers(groups, "returns", returns)

    def _measure(
        self,
        old: Sequence[Numbers],
        ref: Sequence[Numbers],
        rewards: Sequence[Numbers],
        terminals: Sequence[float],
        num_ended: int,
    ) -> dict[str, float]:
        """Means over the rollout's sequences on all ranks; the KL steers the weight of the next rollout."""
        k1 = math.fsum(float((o - r).sum()) for o, r in zip(old, ref, strict=True))
        surprise = -math.fsum(float(o.sum()) for o in old)
        whole = math.fsum(float(row.sum()) for row in rewards)
        local = [float(len(old)), float(num_ended), k1, surprise, math.fsum(terminals), whole]
        count, num_ended_all, *totals = dist.sum_numbers(local)
        kl, entropy, scores, reward = (total / max(count, 1.0) for total in totals)
        beta = self.control.coefficient
        metrics = {
            "objective/entropy": entropy,
            "objective/scores": scores,
            "objective/rlhf_reward": reward,
            "val/num_eos_tokens": num_ended_all,
            "kl_coef": beta,
        }
        if not self.control.wants_reference:
            return metrics
        if count:
            self.control.update(kl=kl, num_sequences=int(count))
        return {**metrics, "objective/kl": kl, "objective/non_score_reward": -beta * kl}


@dataclass(slots=True)
class ReinforcePPCredit:
    """REINFORCE++: advantages from the columns rewards, old_logprobs and, where beta is not 0, ref_logprobs.

    Attributes: metrics: of the last call; see `shaped_means`. None where beta is 0.
    """

    settings: ReinforcePP
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, groups: Sequence[EncodedGroup]) -> tuple[EncodedGroup, ...]:
        """The same groups with the column `advantages`."""
        old = trained_numbers(groups, "old_logprobs")
        beta, scores = self.settings.beta, scores_of(groups)
        ref = trained_numbers(groups, "ref_logprobs") if beta > 0 else old
        rewards = [kl_shaped_rewards(o, r, score, beta=beta) for o, r, score in zip(old, ref, scores, strict=True)]
        if beta > 0:
            kl = [float((o - r).sum()) for o, r in zip(old, ref, strict=True)]
            self.metrics = shaped_means(scores, kl, beta=beta)
        return with_numbers(groups, "advantages", self.settings.tokens(rewards))


@dataclass(slots=True)
class BaselineCredit:
    """REINFORCE++-baseline: the column `advantages`, which the group gave, whitened over the rollout's tokens."""

    settings: ReinforcePPBaseline

    def __call__(self, groups: Sequence[EncodedGroup]) -> tuple[EncodedGroup, ...]:
        """The same groups with the column `advantages` replaced."""
        return with_numbers(groups, "advantages", self.settings.tokens(trained_numbers(groups, "advantages")))


def shaped_means(scores: Sequence[float], kl: Sequence[float], *, beta: float) -> dict[str, float]:
    """What the KL takes off the scores, means over the sequences of all ranks; empty where there are none.

    Args: kl: k1 of each sequence, nats.
    Returns: objective/kl, objective/non_score_reward (-beta kl), objective/rlhf_reward (their sum with the score).
    """
    count, total_score, total_kl = dist.sum_numbers([float(len(kl)), math.fsum(scores), math.fsum(kl)])
    if count == 0:
        return {}
    penalty = beta * total_kl / count
    return {
        "objective/kl": total_kl / count,
        "objective/non_score_reward": -penalty,
        "objective/rlhf_reward": total_score / count - penalty,
    }


def trained_numbers(groups: Sequence[EncodedGroup], name: str) -> list[Numbers]:
    """A token column at the trained tokens of each sequence, in order, a row a sequence."""
    return [
        np.asarray(sequence.columns[name], dtype=np.float64)[trained_ids(sequence, group)]
        for group in groups
        for sequence in group.sequences
    ]


def scores_of(groups: Sequence[EncodedGroup]) -> list[float]:
    """The column `rewards`: each sequence's score."""
    scores = [sequence.columns["rewards"] for group in groups for sequence in group.sequences]
    return [float(score) for score in scores if not isinstance(score, tuple)]


def with_numbers(
    groups: Sequence[EncodedGroup], name: str, rows: Sequence[NDArray[np.floating[Any]]]
) -> tuple[EncodedGroup, ...]:
    """The groups with a token column: a row of `rows` at each sequence's trained tokens, nan elsewhere."""
    left = iter(rows)
    return tuple(
        replace(group, sequences=tuple(_with_column(group, s, name, next(left)) for s in group.sequences))
        for group in groups
    )


def _with_column(
    group: EncodedGroup, sequence: EncodedSequence, name: str, numbers: NDArray[np.floating[Any]]
) -> EncodedSequence:
    return replace(sequence, columns={**sequence.columns, name: spread(sequence, group, numbers)})
