"""Rollouts: prompts sampled from the current policy, scored, and given credit.

Groups whose rewards are all the same teach nothing without a KL term; they are dropped before the
forward and counted. Unscorable completions (and truncated ones where asked) take no part in the
baseline and are not trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np

from strop import dist
from strop.credit import GroupRelative, LeaveOneOut, all_equal, standard_deviation
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.source import Collected, rows
from strop.types import Completion, Group

if TYPE_CHECKING:
    from strop.rollout.sampler import Sampled

Score = Callable[[Sequence[Group]], Sequence[Group]]


class Sampler(Protocol):
    """Completions of prompts by the current policy; randomness is f(seed, step, index)."""

    def __call__(self, prompts: Sequence[tuple[int, ...]], step: int, first_index: int) -> list[list[Sampled]]: ...


@dataclass(frozen=True, slots=True)
class Rollouts:
    """The source of an RL stage.

    Attributes:
        prompts, prompt_ids: the prompts and their tokens, in the same order.
        decode: token ids to the text that rewards see.
        keep_equal: train on all-equal groups as well, for the KL term's sake.
        mask_truncated: leave completions cut by the length limit out of loss and baseline.
        rank_offset: completions before this rank's first one have other random numbers.
    """

    prompts: Sequence[Group]
    prompt_ids: Sequence[tuple[int, ...]]
    sample: Sampler
    decode: Callable[[Sequence[int]], str]
    score: Score
    advantage: GroupRelative | LeaveOneOut
    batch_size: int
    num_generations: int
    seed: int
    keep_equal: bool = False
    mask_truncated: bool = False

    def __call__(self, step: int) -> Collected:
        taken = rows(step, num_rows=len(self.prompts), batch_size=self.batch_size, seed=self.seed)
        mine = list(dist.share(taken))
        began = time.perf_counter()
        offset = dist.rank() * self.batch_size * self.num_generations
        sampled = self.sample([self.prompt_ids[i] for i in mine], step, offset)
        groups = [self._group(i, row) for i, row in zip(mine, sampled, strict=True)]
        after_sampling = time.perf_counter()
        scored = list(self.score(groups))
        advantages = self.advantage([self._creditable(group) for group in scored])
        done = time.perf_counter()
        credited = [_with_advantages(g, a) for g, a in zip(scored, advantages, strict=True)]
        kept = [g for g in credited if self.keep_equal or not all_equal(self._creditable(g))]
        encoded = tuple(e for e in map(encode, kept) if e.sequences)
        return Collected(
            encoded,
            metrics=rollout_metrics(credited, len(encoded)),
            seconds={"sampling": after_sampling - began, "scoring": done - after_sampling},
            samples=tuple(credited),
        )

    def _group(self, index: int, sampled: Sequence[Sampled]) -> Group:
        completions = tuple(
            Completion(self.decode(s.ids), token_ids=s.ids, logprobs=s.logprobs, finish=s.finish) for s in sampled
        )
        return replace(self.prompts[index], completions=completions, prompt_ids=self.prompt_ids[index])

    def _creditable(self, group: Group) -> list[float | None]:
        return [None if self.mask_truncated and c.finish == "length" else c.score for c in group.completions]


def encode(group: Group) -> EncodedGroup:
    """A credited group as tokens: exactly those sampled, with old_logprobs and advantages."""
    assert group.prompt_ids is not None
    sequences = tuple(_sequence(c) for c in group.completions if c.advantage is not None)
    return EncodedGroup(group.prompt_ids, sequences, origin=group.origin)


def _sequence(completion: Completion) -> EncodedSequence:
    assert completion.token_ids is not None and completion.logprobs is not None and completion.advantage is not None
    length = len(completion.token_ids)
    columns = {"old_logprobs": completion.logprobs, "advantages": (completion.advantage,) * length}
    return EncodedSequence(completion.token_ids, (True,) * length, columns, completion.finish == "length")


def _with_advantages(group: Group, advantages: Sequence[float | None]) -> Group:
    completions = [replace(c, advantage=a) for c, a in zip(group.completions, advantages, strict=True)]
    return replace(group, completions=tuple(completions))


def rollout_metrics(groups: Sequence[Group], num_kept: int) -> dict[str, float]:
    """TRL's names: reward, reward_std, frac_reward_zero_std, rewards/<name>/{mean,std}, completions/*.

    Means are over this rank's scorable completions; unscorable ones are counted in rewards/unscorable.
    """
    completions = list(chain.from_iterable(g.completions for g in groups))
    scores = [[c.score for c in g.completions] for g in groups]
    known = [c.score for c in completions if c.score is not None]
    lengths = [len(c.token_ids or ()) for c in completions]
    ended = [n for n, c in zip(lengths, completions, strict=True) if c.finish == "stop"]
    metrics = {
        "frac_reward_zero_std": float(np.mean([all_equal(row) for row in scores])),
        "groups/kept": float(num_kept),
        "rewards/unscorable": float(len(completions) - len(known)),
        "completions/mean_length": float(np.mean(lengths)),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": float(np.mean([c.finish == "length" for c in completions])),
    }
    if ended:
        metrics["completions/mean_terminated_length"] = float(np.mean(ended))
    if known:
        metrics["reward"] = float(np.mean(known))
        metrics["reward_std"] = float(np.mean([standard_deviation(row) for row in scores]))
    for name in dict.fromkeys(chain.from_iterable(c.rewards for c in completions)):
        values = [r for r in (c.rewards.get(name) for c in completions) if r is not None]
        if values:
            metrics[f"rewards/{name}/mean"] = float(np.mean(values))
            metrics[f"rewards/{name}/std"] = standard_deviation(values)
    return metrics
