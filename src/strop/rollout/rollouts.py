"""Rollouts: prompts sampled from the current policy, scored, and made into what is trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np

from strop import dist
from strop.credit import all_equal, standard_deviation
from strop.data.source import Collected, rows
from strop.rewards.protocol import fact_metrics
from strop.rollout.dynamic import Counted, Drawn, DynamicSampling
from strop.rollout.select import Select, scores_of
from strop.types import Completion, Group

if TYPE_CHECKING:
    from strop.rollout.sampler import Sampled

Score = Callable[[Sequence[Group]], Sequence[Group]]


class Sampler(Protocol):
    """Completions of prompts by the current policy; randomness is f(seed, step, index)."""

    def __call__(self, prompts: Sequence[tuple[int, ...]], step: int, first_index: int) -> list[list[Sampled]]: ...


class Versions(Protocol):
    """Which weights sample: a policy and a copy of it that is refreshed now and then."""

    @property
    def version(self) -> int: ...
    @property
    def updates(self) -> Callable[[], int]: ...
    def refresh(self, step: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Rollouts:
    """The source of an RL stage.

    Attributes:
        prompts, prompt_ids: the prompts and their tokens, in the same order.
        decode: token ids to the text that rewards see.
        select: what becomes of the scored groups.
        dynamic: replace groups whose rewards do not differ; None takes a step's prompts as they come.
        counted: a group's scores as `select` will credit them, by which `dynamic` accepts it.
        stale: the copy of the policy that samples; None where the policy itself does.
        max_staleness: leave out groups whose sampler was more updates behind; None leaves out none.
    """

    prompts: Sequence[Group]
    prompt_ids: Sequence[tuple[int, ...]]
    sample: Sampler
    decode: Callable[[Sequence[int]], str]
    score: Score
    select: Select
    batch_size: int
    num_generations: int
    seed: int
    dynamic: DynamicSampling | None = None
    counted: Counted = scores_of
    stale: Versions | None = None
    max_staleness: int | None = None

    def __call__(self, step: int) -> Collected:
        seconds = {"sampling": 0.0, "scoring": 0.0}
        taken = rows(step, num_rows=len(self.prompts), batch_size=self.batch_size, seed=self.seed)
        if self.stale is not None:
            self.stale.refresh(step)
        drawn = self._drawn(step, taken, seconds)
        kept, lag = self._fresh(drawn.kept)
        selected = self.select(kept)
        metrics = rollout_metrics(drawn.everything, sum(not g.idle for g in selected.groups))
        return Collected(
            selected.groups,
            metrics={**metrics, **drawn.metrics, **lag, **selected.metrics},
            seconds=seconds,
            samples=selected.samples,
        )

    def _drawn(self, step: int, taken: Sequence[int], seconds: dict[str, float]) -> Drawn:
        draw = partial(self._attempt, step, seconds)
        if self.dynamic is None:
            groups = tuple(draw(taken, 0))
            return Drawn(groups, groups, {})
        return self.dynamic(draw, taken, num_rows=len(self.prompts), seed=self.seed, step=step, counted=self.counted)

    def _attempt(self, step: int, seconds: dict[str, float], taken: Sequence[int], attempt: int) -> Sequence[Group]:
        """This rank's share of the rows, sampled and scored."""
        mine = list(dist.share(taken))
        # Other random numbers on every rank and at every attempt.
        offset = (attempt * dist.world_size() + dist.rank()) * self.batch_size * self.num_generations
        began = time.perf_counter()
        sampled = self.sample([self.prompt_ids[i] for i in mine], step, offset)
        groups = [self._group(i, row) for i, row in zip(mine, sampled, strict=True)]
        after_sampling = time.perf_counter()
        scored = self.score(groups)
        seconds["sampling"] += after_sampling - began
        seconds["scoring"] += time.perf_counter() - after_sampling
        return scored

    def _group(self, index: int, sampled: Sequence[Sampled]) -> Group:
        version = None if self.stale is None else self.stale.version
        completions = tuple(
            Completion(self.decode(s.ids), token_ids=s.ids, logprobs=s.logprobs, finish=s.finish, version=version)
            for s in sampled
        )
        return replace(self.prompts[index], completions=completions, prompt_ids=self.prompt_ids[index])

    def _fresh(self, groups: Sequence[Group]) -> tuple[Sequence[Group], dict[str, float]]:
        """The groups that are not older than `max_staleness` updates, and how old they were on average."""
        if self.stale is None:
            return groups, {}
        now = self.stale.updates()
        ages = [now - min(c.version or 0 for c in group.completions) for group in groups]
        metrics = {"staleness/mean": float(np.mean(ages))} if ages else {}
        if self.max_staleness is None:
            return groups, metrics
        fresh = [g for g, age in zip(groups, ages, strict=True) if age <= self.max_staleness]
        return fresh, {**metrics, "staleness/dropped": float(len(groups) - len(fresh))}


def rollout_metrics(groups: Sequence[Group], num_kept: int) -> dict[str, float]:
    """TRL's names: reward, reward_std, frac_reward_zero_std, rewards/<name>/{mean,std}, completions/*; and facts.

    Means and deviations (ddof 1) are over this rank's scorable completions, whatever their group, before
    any penalty; unscorable ones are counted in rewards/unscorable. A group that has no signal, for all
    its scores are equal or unscorable, counts in frac_reward_zero_std.
    """
    completions = list(chain.from_iterable(g.completions for g in groups))
    scores = [[c.score for c in g.completions] for g in groups]
    known = [c.score for c in completions if c.score is not None]
    lengths = [len(c.token_ids or ()) for c in completions]
    ended = [n for n, c in zip(lengths, completions, strict=True) if c.finish == "stop"]
    metrics = {"groups/kept": float(num_kept), "rewards/unscorable": float(len(completions) - len(known))}
    if completions:
        metrics["completions/mean_length"] = float(np.mean(lengths))
        metrics["completions/min_length"] = float(min(lengths))
        metrics["completions/max_length"] = float(max(lengths))
        metrics["completions/clipped_ratio"] = float(np.mean([c.finish == "length" for c in completions]))
    if ended:
        metrics["completions/mean_terminated_length"] = float(np.mean(ended))
    if any(len(row) > 1 for row in scores):  # completions alone have none to differ from
        metrics["frac_reward_zero_std"] = float(np.mean([all_equal(row) for row in scores]))
    if known:
        metrics["reward"] = float(np.mean(known))
        metrics["reward_std"] = standard_deviation(known)
    for name in dict.fromkeys(chain.from_iterable(c.rewards for c in completions)):
        values = [r for r in (c.rewards.get(name) for c in completions) if r is not None]
        if values:
            metrics[f"rewards/{name}/mean"] = float(np.mean(values))
            metrics[f"rewards/{name}/std"] = standard_deviation(values)
        metrics |= fact_metrics(completions, name)
    return metrics
