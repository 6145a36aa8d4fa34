"""Sampled answers to held-out prompts, scored by rewards: every figure with n and an interval."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strop.evaluate.statistics import Measure, measure, measure_majority, measure_pass_at_k, paired, win_rate
from strop.rollout.rollouts import Sampler, Score
from strop.types import Completion, Group, group_to_json

Value = float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scored answers, one group a prompt, and the seconds they took by phase."""

    groups: tuple[Group, ...]
    seconds: Mapping[str, float]

    def values(self, name: str) -> list[list[Value]]:
        """A reward's values by prompt."""
        return [[c.rewards.get(name) for c in group.completions] for group in self.groups]

    @property
    def names(self) -> list[str]:
        """The rewards' names."""
        return list(dict.fromkeys(name for g in self.groups for c in g.completions for name in c.rewards))

    def measures(self, num_samples: int, *, seed: int) -> dict[str, Measure]:
        """Mean of each reward over prompts; with several samples pass@k, and maj@k where answers are told.

        Unscorable answers are left out of n and counted in `unscorable/<name>`.
        """
        figures: dict[str, Measure] = {}
        for name in self.names:
            values = self.values(name)
            figures[name] = measure(values, seed=seed)
            missing = sum(v is None for row in values for v in row)
            if missing:
                figures[f"unscorable/{name}"] = Measure(float(missing), None, None, sum(map(len, values)))
            if num_samples > 1 and all(v in (0.0, 1.0, None) for row in values for v in row):
                for k in _powers(num_samples):
                    figures[f"pass@{k}/{name}"] = measure_pass_at_k(values, k, seed=seed)
                answers = [[c.text.strip() or None for c in group.completions] for group in self.groups]
                figures[f"maj@{num_samples}/{name}"] = measure_majority(answers, values, num_samples, seed=seed)
        lengths = [[float(len(c.token_ids or ())) for c in group.completions] for group in self.groups]
        cut = [[float(c.finish == "length") for c in group.completions] for group in self.groups]
        figures["completions/mean_length"] = measure(lengths, share=False, seed=seed)
        figures["completions/clipped_ratio"] = measure(cut, share=True, seed=seed)
        return figures

    def against(self, other: Evaluation, *, seed: int) -> dict[str, Measure]:
        """Paired differences to another model on the same prompts, and the share of prompts won (ties half)."""
        figures: dict[str, Measure] = {}
        for name in self.names:
            figures[f"delta/{name}"] = paired(self.values(name), other.values(name), seed=seed)
            figures[f"win_rate/{name}"] = win_rate(self.values(name), other.values(name), seed=seed)
        return figures

    def only(self, origins: Collection[str]) -> Evaluation:
        """The answers to prompts of these origins."""
        return replace(self, groups=tuple(group for group in self.groups if group.origin in origins))


def write_groups(path: Path, groups: Sequence[Group]) -> None:
    """Groups as JSONL, without token ids and log-probs."""
    with path.open("w", encoding="utf-8") as file:
        for group in groups:
            bare = tuple(replace(c, token_ids=None, logprobs=None) for c in group.completions)
            file.write(as_line(replace(group, completions=bare, prompt_ids=None)))


def as_line(group: Group) -> str:
    """A group as one line of JSONL."""
    return json.dumps(group_to_json(group), ensure_ascii=False) + "\n"


def evaluate_samples(
    prompts: Sequence[Group],
    prompt_ids: Sequence[tuple[int, ...]],
    sample: Sampler,
    decode: Callable[[Sequence[int]], str],
    score: Score,
    phase: Callable[[str], None],
) -> Evaluation:
    """Sample and score every prompt once."""
    began = time.perf_counter()
    phase("sampling")
    sampled = sample(prompt_ids, 0, 0)
    groups = [
        replace(
            prompt,
            completions=tuple(
                Completion(decode(s.ids), token_ids=s.ids, logprobs=s.logprobs, finish=s.finish) for s in row
            ),
        )
        for prompt, row in zip(prompts, sampled, strict=True)
    ]
    between = time.perf_counter()
    phase("scoring")
    scored = tuple(score(groups))
    return Evaluation(scored, {"sampling": between - began, "scoring": time.perf_counter() - between})


def _powers(n: int) -> list[int]:
    return [2**i for i in range(n.bit_length()) if 2**i <= n]
