"""A judge's opinion as a reward: how often a completion beats others, how it is rated, where it is ranked.

    rewards:
      - name: judge
        backend: {name: http, url: http://localhost:8000/v1, model: my-judge, max_calls: 20000}

Comparisons are asked in both orders and ties count a half (`judges.compare`). Where the judge abstains the
completion is unscorable. Thinking is not shown to the judge.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

from strop.judges import (
    BackendSettings,
    Compare,
    Comparison,
    Endpoint,
    InProcess,
    Item,
    Listed,
    Pair,
    Rank,
    Rate,
    Usage,
    usage_of,
)
from strop.judges.prompts import BETTER, RUBRIC
from strop.judges.verdict import nonce_of
from strop.rewards.extract import after_think
from strop.rewards.protocol import check_column
from strop.types import Completion, Fact, Group, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReward:
    """What a judge thinks of a completion beside its siblings, beside anchors, or on a scale.

    Attributes:
        backend: who is asked.
        method: pairs: the share of comparisons won, in [0, 1]; rank: the mean rank among the siblings, best 1,
            worst 0; rate: a rating by the rubric, in [-1, 1].
        anchors: pairs: column with a text, or several, that every completion is compared with; null compares siblings.
        opponents: pairs: at least so many siblings a completion meets, its neighbours on random rings; null is all,
            which takes K (K - 1) calls a prompt.
        criterion, rubric: what is better; what the numbers of `rate` mean.
        principle: what to judge by instead.
        reference: column with a known good answer for the judge to read; null shows none.
        think, samples, temperature, tie_margin, clamp, max_tokens, max_chars: as in `judges.Compare`.
    """

    backend: BackendSettings
    name: Literal["judge"] = "judge"
    method: Literal["pairs", "rank", "rate"] = "pairs"
    anchors: str | None = None
    opponents: int | None = None
    criterion: str = BETTER
    rubric: str = RUBRIC
    principle: str | None = None
    reference: str | None = None
    think: bool = False
    samples: int = 1
    temperature: float = 0.0
    tie_margin: float = 0.05
    clamp: tuple[float, float] | None = None
    max_tokens: int | None = None
    max_chars: int = 20_000
    seed: int = 0
    weight: float = 1.0
    label: str | None = None

    def __post_init__(self) -> None:
        pairs = self.method == "pairs"
        for key in ("anchors", "opponents", "clamp"):
            if getattr(self, key) is not None and not pairs:
                raise ValueError(f"judge.{key} is for method=pairs, not {self.method}; leave it out")
        if self.anchors is not None and self.opponents is not None:
            raise ValueError("judge.opponents draws among siblings; with judge.anchors leave it out")
        if self.opponents is not None and self.opponents < 1:
            raise ValueError(f"judge.opponents must be at least 1, got {self.opponents}")
        if self.samples > 1 and self.method == "rank":
            raise ValueError("judge.samples is for pairs and rate; rank shows each list in two orders")
        self._asker()  # which checks the rest

    @property
    def models(self) -> tuple[str, ...]:
        """Which settings name models."""
        return ("backend.path",) if isinstance(self.backend, InProcess) else ()

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        """Raises: ValueError where the backend cannot be asked at all, already for no groups."""
        if not groups:
            check_backend(self.backend)
            return []
        for column in (self.anchors, self.reference):
            if column is not None:
                check_column(groups, column, self.label or self.name)
        before = usage_of(self.backend).total
        verdicts = {"pairs": self._pairs, "rank": self._rank, "rate": self._rate}[self.method](groups)
        return _with_usage(verdicts, before, usage_of(self.backend).total)

    def _asker(self) -> Compare | Rank | Rate:
        backend, think, temperature, seed = self.backend, self.think, self.temperature, self.seed
        max_tokens, max_chars, samples = self.max_tokens, self.max_chars, self.samples
        if self.method == "rank":
            return Rank(
                backend=backend, criterion=self.criterion, think=think, temperature=temperature, seed=seed,
                max_tokens=max_tokens, max_chars=max_chars,
            )  # fmt: skip
        if self.method == "rate":
            return Rate(
                backend=backend, rubric=self.rubric, think=think, temperature=temperature, seed=seed,
                max_tokens=max_tokens, max_chars=max_chars, samples=samples,
            )  # fmt: skip
        return Compare(
            backend=backend, criterion=self.criterion, think=think, temperature=temperature, seed=seed,
            max_tokens=max_tokens, max_chars=max_chars, samples=samples, tie_margin=self.tie_margin, clamp=self.clamp,
        )  # fmt: skip

    def _pairs(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        """Each completion's share of wins over the comparisons that were decided, ties a half."""
        compare = self._asker()
        assert isinstance(compare, Compare)
        games = [(g, *game) for g, group in enumerate(groups) for game in self._games(group)]
        said = compare(
            [
                Pair(
                    prompt=groups[g].prompt, first=first, second=second,
                    principle=self.principle, reference=self._reference(groups[g]),
                )
                for g, _, _, first, second in games
            ]
        )  # fmt: skip
        seen: dict[tuple[int, int], list[tuple[float | None, Comparison]]] = {}
        for (g, i, j, _, _), one in zip(games, said, strict=True):
            seen.setdefault((g, i), []).append((one.probability, one))
            if j is not None:
                seen.setdefault((g, j), []).append((None if one.probability is None else 1 - one.probability, one))
        return [
            [_win_rate(seen.get((g, i), [])) for i in range(len(group.completions))] for g, group in enumerate(groups)
        ]

    def _games(self, group: Group) -> Iterator[tuple[int, int | None, str, str]]:
        """Who meets whom: a completion's number, its sibling's (None: an anchor), and both texts."""
        texts = [judged_text(c) for c in group.completions]
        if self.anchors is not None:
            for i, text in enumerate(texts):
                yield from ((i, None, text, anchor) for anchor in _texts(group.row.get(self.anchors)))
            return
        for i, j in sorted(_meetings(len(texts), self.opponents, nonce_of(self.seed, texts))):
            yield i, j, texts[i], texts[j]

    def _rank(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        rank = self._asker()
        assert isinstance(rank, Rank)
        lists = [
            Listed(
                prompt=group.prompt, responses=tuple(judged_text(c) for c in group.completions),
                principle=self.principle, reference=self._reference(group),
            )
            for group in groups
        ]  # fmt: skip
        verdicts = []
        for group, said in zip(groups, rank(lists), strict=True):
            facts: dict[str, Fact] = {} if said.agreement is None else {"agreement": said.agreement}
            scores = said.scores or (None,) * len(group.completions)
            alone = len(group.completions) == 1
            verdicts.append([ALONE if alone else Verdict(score, said.reason, facts=facts) for score in scores])
        return verdicts

    def _rate(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        rate = self._asker()
        assert isinstance(rate, Rate)
        items = [
            Item(
                prompt=group.prompt, response=judged_text(completion),
                principle=self.principle, reference=self._reference(group),
            )
            for group in groups
            for completion in group.completions
        ]  # fmt: skip
        said = iter(rate(items))
        return [[Verdict(one.score, one.reason) for one in (next(said) for _ in g.completions)] for g in groups]

    def _reference(self, group: Group) -> str | None:
        gold = None if self.reference is None else group.row.get(self.reference)
        return None if gold is None else str(gold)


ALONE = Verdict(None, "nothing to compare with: the prompt has one completion; set judge.anchors, or method=rate")


def check_backend(backend: BackendSettings) -> None:
    """Raises ValueError if a backend cannot be asked: no server, a refused key, no model, no function."""
    if isinstance(backend, Endpoint | InProcess):
        backend.check()
    else:
        backend([])


def judged_text(completion: Completion) -> str:
    """What a judge reads of a completion: its words without the thinking."""
    return after_think(completion.text).strip()


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list | tuple) else []


def _meetings(num: int, opponents: int | None, seed: str) -> set[tuple[int, int]]:
    """Pairs (i < j) so that each meets at least so many others: all, or neighbours on random rings."""
    if opponents is None or opponents >= num - 1:
        return set(combinations(range(num), 2))
    ring = random.Random(seed).sample(range(num), num)
    steps = range(1, opponents // 2 + opponents % 2 + 1)
    return {(min(a, b), max(a, b)) for step in steps for a, b in zip(ring, ring[step:] + ring[:step], strict=True)}


def _win_rate(seen: Sequence[tuple[float | None, Comparison]]) -> Verdict:
    if not seen:
        return ALONE
    known = [p for p, _ in seen if p is not None]
    facts: dict[str, Fact] = {"abstained": 1 - len(known) / len(seen)}
    both = [(c.forward, c.backward) for _, c in seen if c.forward is not None and c.backward is not None]
    if both:
        facts["position_bias"] = math.fsum(abs(a - b) for a, b in both) / len(both)
        facts["flip_rate"] = sum(bool(c.flipped) for _, c in seen) / len(both)
        facts["ties"] = sum(c.tie for p, c in seen if p is not None) / max(1, len(known))
    if not known:
        return Verdict(None, seen[0][1].reason, facts=facts)
    return Verdict(math.fsum(known) / len(known), f"won {math.fsum(known):.3g} of {len(known)}", facts=facts)


def _with_usage(verdicts: list[list[Verdict]], before: Usage, after: Usage) -> list[list[Verdict]]:
    """The verdicts with what asking cost, in equal parts, so that sums over completions are totals."""
    num = max(1, sum(map(len, verdicts)))
    spent = {
        "calls": (after.calls - before.calls) / num,
        "cached": (after.cached - before.cached) / num,
        "spend": (after.spend - before.spend) / num,
    }
    return [[replace(verdict, facts={**verdict.facts, **spent}) for verdict in row] for row in verdicts]
