"""Sampled answers to held-out prompts, scored by rewards: every figure with n and an interval.

A figure is a column of numbers by prompt, so that its difference to another model's is paired by prompt.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from strop.evaluate.statistics import Measure, measure, paired, pass_values, vote_values
from strop.evaluate.style import FEATURES, distinct_2
from strop.evaluate.wins import Match, length_controlled, score_wins
from strop.rollout.rollouts import Sampler, Score
from strop.rollout.vote import canonical_answer
from strop.types import Completion, Group, group_to_json

Value = float | None

OWN = "completion"
"""Under this name a completion's facts say what was measured of its tokens: how many there are."""
KL = "kl"
"""Under this name they say how far it is from a reference, nats."""
TASK = "lm_eval_task"
"""The column of a row that says which task asked it, of those that no file has."""
MOST_SUBSETS = 20
"""Values of a column that figures are told for, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class Column:
    """A figure's numbers by prompt. Attributes: share: as in `statistics.measure`."""

    rows: Sequence[Sequence[Value]]
    share: bool | None = None

    @property
    def is_zero(self) -> bool:
        """Whether there is nothing of it anywhere."""
        return all(not value for row in self.rows for value in row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What figures are made of.

    Attributes:
        answers: how maj@k finds an answer, by the reward's label; "auto" where it is not there.
        by: a column of the rows for whose values each reward is told as well.
        style: whether to say what answers look like.
    """

    answers: Mapping[str, str] = field(default_factory=dict)
    by: str | None = None
    style: bool = True


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scored answers, one group a prompt, and the seconds they took by phase."""

    groups: tuple[Group, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    wanted: Wanted = Wanted()

    def values(self, name: str) -> list[list[Value]]:
        """A reward's values by prompt."""
        return [[c.rewards.get(name) for c in group.completions] for group in self.groups]

    @property
    def names(self) -> list[str]:
        """The rewards' names."""
        return list(dict.fromkeys(name for g in self.groups for c in g.completions for name in c.rewards))

    @property
    def num_samples(self) -> int:
        """Answers a prompt."""
        return max((len(group.completions) for group in self.groups), default=0)

    def columns(self, *, seed: int) -> dict[str, Column]:
        """Every figure by prompt: rewards with pass@k and maj@k, KL to a reference, lengths, style."""
        found: dict[str, Column] = {}
        for name in self.names:
            found[name] = Column(self.values(name))
            found.update(self._repeated(name, seed))
            found.update(self._subsets(name))
        found.update(self._facts())
        found.update(self._lengths())
        if self.wanted.style:
            found.update(_style_of([[c.text for c in group.completions] for group in self.groups]))
        return found

    def measures(self, *, seed: int) -> dict[str, Measure]:
        """Every figure with its interval and n; style that occurs nowhere is left out.

        Unscorable answers are left out of n and counted in `unscorable/<reward>`.
        """
        figures: dict[str, Measure] = {}
        names = set(self.names)
        for name, column in self.columns(seed=seed).items():
            figure = measure(column.rows, share=column.share, seed=seed)
            if name in names or (figure.n and not (name.startswith("style/") and column.is_zero)):
                figures[name] = figure
            if name in names and (unscorable := self._unscorable(name)).value:
                figures[f"unscorable/{name}"] = unscorable
        lengths = [n for group in self.groups for c in group.completions if (n := tokens_of(c)) is not None]
        if lengths:
            figures["completions/min_length"] = Measure(min(lengths), None, None, len(lengths))
            figures["completions/max_length"] = Measure(max(lengths), None, None, len(lengths))
        return figures

    def against(self, other: Evaluation, *, seed: int) -> dict[str, Measure]:
        """Paired differences to another model's answers to the same prompts, and how often each reward is higher.

        `win_rate/<reward>`, ties counting a half, with /wins, /ties and /losses; of rewards that are no verifier's
        also /length_controlled.
        """
        figures: dict[str, Measure] = {}
        theirs = other.columns(seed=seed)
        for name, column in self.columns(seed=seed).items():
            if name in theirs and not (name.startswith("style/") and column.is_zero and theirs[name].is_zero):
                figures[f"delta/{name}"] = paired(column.rows, theirs[name].rows, seed=seed)
        for name in self.names:
            wins = score_wins(self.values(name), other.values(name), seed=seed)
            if not (_is_binary(self.values(name)) and _is_binary(other.values(name))):
                wins["length_controlled"] = length_controlled(list(_meetings(self, other, name)), seed=seed)
            figures.update(win_names(name, wins))
        return {name: figure for name, figure in figures.items() if not math.isnan(figure.value)}

    def only(self, origins: Collection[str]) -> Evaluation:
        """The answers to prompts of these origins."""
        return replace(self, groups=tuple(group for group in self.groups if group.origin in origins))

    def _unscorable(self, name: str) -> Measure:
        """How many answers a reward could not score, of those that it is for."""
        values = [c.rewards[name] for group in self.groups for c in group.completions if name in c.rewards]
        return Measure(float(sum(v is None for v in values)), None, None, len(values))

    def _each(self, of: Callable[[Completion], Value]) -> list[list[Value]]:
        return [[of(c) for c in group.completions] for group in self.groups]

    def _repeated(self, name: str, seed: int) -> Iterator[tuple[str, Column]]:
        """Of a reward that says right or wrong: pass@k for k = 1, 2, 4, ... and all samples, maj@k from 4 on.

        Both rest on the samples that were judged: no answer is a wrong one only where a right one is known.
        """
        values, num = self.values(name), self.num_samples
        if num < 2 or not _is_binary(values):
            return
        answers = self._judged_answers(self.wanted.answers.get(name, "auto"), values)
        judged: list[list[Value]] = [[value for value in row if value is not None] for row in values]
        weights = [[1.0] * len(row) for row in answers]
        for k in sorted({*_powers(num), num}):
            yield f"pass@{k}/{name}", Column([[v] for v in pass_values(judged, k)], True)
            if k >= 4 or k == num:
                votes = vote_values(answers, weights, judged, k, seed=seed)
                yield f"maj@{k}/{name}", Column([[vote] for vote in votes], True)

    def _judged_answers(self, by: str, values: Sequence[Sequence[Value]]) -> list[list[str | None]]:
        """What the samples with a value answer, None where they do not."""
        rows = zip(self.groups, values, strict=True)
        return [
            [canonical_answer(c.text, by) for c, v in zip(group.completions, row, strict=True) if v is not None]
            for group, row in rows
        ]

    def _subsets(self, name: str) -> Iterator[tuple[str, Column]]:
        """A reward among the rows that have each value of the wanted column."""
        if self.wanted.by is not None:
            yield from _subsets(name, self.wanted.by, self.groups, self.values(name))

    def _facts(self) -> Iterator[tuple[str, Column]]:
        """What was measured against a reference."""
        keys = dict.fromkeys(key for g in self.groups for c in g.completions for key in c.facts.get(KL, {}))
        for key in keys:
            rows = [[_number(c.facts.get(KL, {}).get(key)) for c in group.completions] for group in self.groups]
            yield f"{KL}/{key}", Column(rows, False)

    def _lengths(self) -> Iterator[tuple[str, Column]]:
        yield "completions/mean_length", Column(self._each(tokens_of), False)
        if any(c.finish == "length" for group in self.groups for c in group.completions):
            ended = self._each(lambda c: tokens_of(c) if c.finish == "stop" else None)
            yield "completions/mean_terminated_length", Column(ended, False)
        cut = self._each(lambda c: None if c.finish is None else float(c.finish == "length"))
        yield "completions/clipped_ratio", Column(cut, True)


def _style_of(texts: Sequence[Sequence[str]]) -> Iterator[tuple[str, Column]]:
    for name, (of, share) in FEATURES.items():
        yield f"style/{name}", Column([[of(text) for text in row] for row in texts], share)
    if max(map(len, texts), default=0) > 1:
        yield "style/distinct_2", Column([[distinct_2(row)] for row in texts], True)


def win_names(name: str, wins: Mapping[str, Measure]) -> dict[str, Measure]:
    """Figures of comparisons under their names in a stage: `win_rate/<name>`, and the others below it."""
    return {f"win_rate/{name}" + ("" if key == "win_rate" else f"/{key}"): m for key, m in wins.items()}


def tokens_of(completion: Completion) -> float | None:
    """How many tokens were sampled; None where that is not known."""
    if completion.token_ids is not None:
        return float(len(completion.token_ids))
    return _number(completion.facts.get(OWN, {}).get("tokens"))


def subset_measures(
    name: str, by: str, groups: Sequence[Group], values: Sequence[Sequence[Value]], *, seed: int
) -> dict[str, Measure]:
    """A figure among the rows that have each value of a column, `<name>/<column>=<value>`."""
    return {key: measure(column.rows, seed=seed) for key, column in _subsets(name, by, groups, values)}


def _subsets(
    name: str, by: str, groups: Sequence[Group], values: Sequence[Sequence[Value]]
) -> Iterator[tuple[str, Column]]:
    column = [subset_of(group, by) for group in groups]
    counts = Counter(value for value in column if value is not None)
    for value in sorted(value for value, _ in counts.most_common(MOST_SUBSETS)):
        rows = zip(values, column, strict=True)
        yield f"{name}/{by}={value}", Column([row if own == value else [] for row, own in rows])


def subset_of(group: Group, by: str) -> str | None:
    """A row's value in a column, as a name; None where it has none, or one that is no name."""
    value = group.row.get(by)
    return str(value) if isinstance(value, str | int | float | bool) and str(value) else None


def _meetings(ours: Evaluation, theirs: Evaluation, name: str) -> Iterator[Match]:
    """Our first answer against their first, and so on, by a reward: all against all would be many, and tell no more."""
    for prompt, (a, b) in enumerate(zip(ours.groups, theirs.groups, strict=True)):
        for mine, other in zip(a.completions, b.completions, strict=False):
            x, y = mine.rewards.get(name), other.rewards.get(name)
            if x is not None and y is not None:
                p = 0.5 if x == y else float(x > y)
                yield Match(prompt=prompt, probability=p, longer_by=len(mine.text) - len(other.text))


def _is_binary(rows: Sequence[Sequence[Value]]) -> bool:
    return all(value in (0.0, 1.0, None) for row in rows for value in row)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def write_groups(path: Path, groups: Sequence[Group]) -> None:
    """Groups as JSONL, without token ids and log-probs, but with how many tokens there were."""
    with path.open("w", encoding="utf-8") as file:
        for group in groups:
            bare = tuple(_bare(completion) for completion in group.completions)
            file.write(as_line(replace(group, completions=bare, prompt_ids=None)))


def _bare(completion: Completion) -> Completion:
    tokens = tokens_of(completion)
    facts = completion.facts if tokens is None else {**completion.facts, OWN: {"tokens": tokens}}
    return replace(completion, token_ids=None, logprobs=None, facts=facts)


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
