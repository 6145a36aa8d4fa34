"""Token-level credit: from rewards and values at the tokens of a rollout to each token's advantage.

Pure functions in float64. A row holds the numbers of one sequence's trained tokens in order, [T];
tokens that are not trained (a user's turn, a tool's answer) are no acts of the policy and are left
out, so that values and advantages carry on across them. Values and advantages beyond a row's last
token are 0: a completion that was cut off counts as ended.

Whitening is over all rows of a step and all ranks, so a step's rows are given at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strop import dist
from strop.credit import Advantages, Rewards, centred

Numbers = NDArray[np.float64]


def terminal_reward(score: float, *, ended: bool, clip: float | None, missing_eos_penalty: float) -> float:
    """The reward at a sequence's last token: clip(score, +-clip), less the penalty unless it ended by itself.

    Args: clip: bound of a normalised score; None leaves it.
    The penalty is subtracted as TRL 1.10 does; OpenAI's 2019 code overwrites the score with -1.
    """
    bounded = score if clip is None else min(max(score, -clip), clip)
    return bounded if ended else bounded - missing_eos_penalty


def kl_shaped_rewards(logprobs: Numbers, ref_logprobs: Numbers, terminal: float, *, beta: float) -> Numbers:
    """Reward of each token, [T]: r_t = -beta (logprob_t - ref_logprob_t), plus `terminal` at the last one.

    Args: logprobs, ref_logprobs: of the sampled tokens under the policy that drew them and the
        reference, [T], nats; terminal: the score of the whole sequence.
    Their sum is terminal - beta k1, with k1 the sequence's estimate of KL(policy || reference).
    Ziegler et al. 2019, arXiv:1909.08593, eq. 2; Ouyang et al. 2022, arXiv:2203.02155, eq. 2.
    """
    rewards = -beta * (logprobs - ref_logprobs)
    rewards[-1] += terminal
    return rewards


def rewards_to_go(rewards: Numbers, *, gamma: float = 1.0) -> Numbers:
    """Discounted sum of the rewards from each token on, [T]: G_t = r_t + gamma G_{t+1}."""
    out = np.empty_like(rewards)
    ahead = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        ahead = rewards[t] + gamma * ahead
        out[t] = ahead
    return out


def gae(rewards: Numbers, values: Numbers, *, gamma: float, lam: float) -> Numbers:
    """Generalised advantage estimate of each token, [T]: A_t = delta_t + gamma lam A_{t+1}.

    With delta_t = r_t + gamma V_{t+1} - V_t, and A and V beyond the last token 0. lam = 1: the
    discounted rewards to go less V; lam = 0: delta.
    Args: rewards, values: [T]; V_t is the value of the state before token t.
    Schulman et al. 2015, arXiv:1506.02438, eq. 16.
    """
    deltas = rewards + gamma * np.append(values[1:], 0.0) - values
    return rewards_to_go(deltas, gamma=gamma * lam)


def whiten(rows: Sequence[Numbers], *, eps: float = 1e-8) -> list[Numbers]:
    """(x - mean) / sqrt(variance + eps) over the tokens of all rows and all ranks, row by row.

    Variance with ddof 1, as TRL and verl have it (OpenRLHF: 0). A token alone becomes 0. Every rank must call this.
    """
    mean, variance = moments(rows)
    scale = 1 / math.sqrt(variance + eps)
    return [(row - mean) * scale for row in rows]


def explained_variance(values: Sequence[Numbers], returns: Sequence[Numbers]) -> float:
    """1 - Var(returns - values) / Var(returns), over all rows and ranks; nan where returns do not vary.

    1: the critic knows the returns; 0: no better than their mean; below: worse than that. With a
    lambda below 1 returns are partly made of the values, which flatters a critic.
    """
    _, total = moments(returns)
    _, left = moments([r - v for r, v in zip(returns, values, strict=True)])
    return 1 - left / total if total > 0 else math.nan


def moments(rows: Sequence[Numbers]) -> tuple[float, float]:
    """Mean and variance (ddof 1; 0 for fewer than two) of the entries of all rows on all ranks."""
    total, count = dist.sum_numbers([math.fsum(chain.from_iterable(rows)), sum(map(len, rows))])
    mean = total / max(count, 1)
    (squares,) = dist.sum_numbers([math.fsum(chain.from_iterable((row - mean) ** 2 for row in rows))])
    return mean, squares / max(count - 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GAE:
    """Generalised advantage estimation against a critic's values, whitened over the rollout.

    Attributes:
        gamma: discount a token; 1 is the field's choice for completions.
        lam: lambda of the advantages.
        lam_value: lambda of the critic's targets; None: `lam`. 1 (Monte-Carlo targets) keeps the
            terminal reward from fading on its way to the start of a long chain (VC-PPO, Yuan et al. 2025,
            arXiv:2503.01491).
        whiten: scale advantages to mean 0 and variance 1 over all tokens of the rollout.
    """

    name: Literal["gae"] = "gae"
    gamma: float = 1.0
    lam: float = 0.95
    lam_value: float | None = None
    whiten: bool = True

    def __post_init__(self) -> None:
        for field, value in (("gamma", self.gamma), ("lam", self.lam), ("lam_value", self.lam_value)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{field} must be in [0, 1], got {value}")

    def __call__(self, rewards: Sequence[Numbers], values: Sequence[Numbers]) -> tuple[list[Numbers], list[Numbers]]:
        """Advantages and returns, a row a sequence; returns are advantages + values before whitening."""
        pairs = list(zip(rewards, values, strict=True))
        advantages = [gae(r, v, gamma=self.gamma, lam=self.lam) for r, v in pairs]
        lam = self.lam if self.lam_value is None else self.lam_value
        returns = [gae(r, v, gamma=self.gamma, lam=lam) + v for r, v in pairs]
        return whiten(advantages) if self.whiten else advantages, returns


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforcePP:
    """REINFORCE++: the reward to go with the KL in the reward, whitened over the step; no critic, no group.

    A_t = sum over u >= t of (-beta k1_u), plus the score, then whitened over all tokens of the step.
    Hu et al. 2025, arXiv:2501.03262.

    Attributes: beta: weight of the KL to the reference in the reward; 0 needs no reference.
    """

    name: Literal["reinforce_pp"] = "reinforce_pp"
    beta: float = 0.01

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta must not be negative, got {self.beta}")

    def __call__(self, groups: Sequence[Rewards]) -> list[Advantages]:
        """The scores as they are: a group's completions are not compared."""
        return [list(rewards) for rewards in groups]

    def tokens(self, rewards: Sequence[Numbers]) -> list[Numbers]:
        """Advantages of each token from its sequence's rewards, a row a sequence."""
        return whiten([rewards_to_go(row) for row in rewards])


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforcePPBaseline:
    """REINFORCE++-baseline: the score less the group's mean, whitened over the step's tokens.

    The KL to the reference belongs in the loss here, as k2. Hu et al. 2025, arXiv:2501.03262.
    """

    name: Literal["reinforce_pp_baseline"] = "reinforce_pp_baseline"

    def __call__(self, groups: Sequence[Rewards]) -> list[Advantages]:
        """One list of centred scores for each group of rewards."""
        return [centred(rewards) for rewards in groups]

    def tokens(self, advantages: Sequence[Numbers]) -> list[Numbers]:
        """The centred scores at each token, whitened, a row a sequence."""
        return whiten(advantages)
