"""The order of K responses, by a judge that sees them together.

A judge of lists too prefers places. So the list is shown in several orders, each with its reverse, and a
response's score is 1 - its mean rank / (K - 1), ranks from 0: 1 if it is always the best, 0 if always the
last, 1/2 where judge and chance agree. Equal texts are shown once and share their score.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from strop.judges.asking import Asked, ask
from strop.judges.backends import BackendSettings
from strop.judges.compare import check_drawing, inputs_of, seed_of
from strop.judges.prompts import BETTER, LETTERS, as_text, rank_prompt, turn
from strop.judges.protocol import Reply, Request
from strop.judges.verdict import begin_of, nonce_of, read_verdict
from strop.types import Content


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Responses to one prompt, to be ordered."""

    prompt: Content
    responses: tuple[str, ...]
    principle: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """What a judge said of a list.

    Attributes:
        scores: of each response, in [0, 1]; None where it abstained.
        reason: why it did, or how many orders it was asked in.
        agreement: Kendall's tau between each order's verdict and its reverse's, averaged: 1 if places make
            no difference, -1 for a judge that repeats the places it is shown; None where there is no such pair.
    """

    scores: tuple[float, ...] | None
    reason: str = ""
    agreement: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Asks in which order the responses of each list stand.

    Attributes:
        backend: who is asked.
        criterion: what is better, unless a list has its own principle.
        rounds: random orders a list is shown in, each also reversed.
        think, temperature, max_tokens, max_chars: as in `Compare`.
    """

    backend: BackendSettings
    criterion: str = BETTER
    rounds: int = 1
    think: bool = False
    temperature: float = 0.0
    max_tokens: int | None = None
    max_chars: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_drawing(1, self.temperature, self.max_tokens, self.max_chars, "judge")
        if self.rounds < 1:
            raise ValueError(f"judge.rounds must be at least 1, got {self.rounds}")

    def __call__(self, lists: Sequence[Listed]) -> list[Ranking]:
        """Raises: ValueError for a list of more than 26 different responses."""
        different = [tuple(dict.fromkeys(listed.responses)) for listed in lists]
        most = max(map(len, different), default=0)
        if most > len(LETTERS):
            raise ValueError(f"a judge orders at most {len(LETTERS)} responses, got {most}; compare pairs instead")
        questions = [
            _Question(listed, order)
            for listed, texts in zip(lists, different, strict=True)
            for order in (self._orders(listed, texts) if len(texts) > 1 else ())
        ]
        said = iter(ask(self.backend, questions, self._request, _read))
        return [
            _ranking(listed, texts, [next(said) for _ in range(2 * self.rounds)]) if len(texts) > 1 else _alike(listed)
            for listed, texts in zip(lists, different, strict=True)
        ]

    def _orders(self, listed: Listed, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Random orders of the texts, each followed by its reverse; a function of seed, prompt and texts."""
        draws = random.Random(nonce_of("orders", self.seed, as_text(listed.prompt), sorted(texts)))
        out = []
        for _ in range(self.rounds):
            order = tuple(draws.sample(sorted(texts), len(texts)))
            out += [order, order[::-1]]
        return out

    def _request(self, question: _Question, attempt: int) -> Request:
        listed, shown = question.listed, question.shown
        nonce = nonce_of(
            "rank", self.seed, as_text(listed.prompt), shown, self.criterion, listed.principle, listed.reference,
            attempt, self.temperature, self.think,
        )  # fmt: skip
        text = rank_prompt(
            listed.prompt, shown, nonce, criterion=self.criterion, principle=listed.principle,
            reference=listed.reference, think=self.think, max_chars=self.max_chars,
        )  # fmt: skip
        return Request(
            task="rank",
            messages=turn(text),
            inputs=inputs_of(listed.prompt, shown, listed.principle, listed.reference),
            max_tokens=self.max_tokens or (1024 if self.think else 64) + 4 * len(shown),
            temperature=self.temperature,
            seed=seed_of(nonce),
            nonce=nonce,
            begin=begin_of(nonce, "order", quoted=False),
            end="}",
            think=self.think,
        )


@dataclass(frozen=True, slots=True)
class _Question:
    """A list as it is shown once."""

    listed: Listed
    shown: tuple[str, ...]


def _read(request: Request, reply: Reply) -> Asked:
    """The rank of each shown text, by text."""
    shown = request.inputs["responses"]
    letters = list(LETTERS[: len(shown)])

    def valid(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(v, str) for v in value) and sorted(value) == letters

    order, why = read_verdict(reply, request.nonce, "order", valid)
    if order is None:
        return Asked(None, why)
    return Asked({shown[LETTERS.index(letter)]: rank for rank, letter in enumerate(order)})


def _ranking(listed: Listed, texts: Sequence[str], said: Sequence[Asked]) -> Ranking:
    """Mean ranks over the rounds whose two verdicts are both there: an order without its reverse has its bias."""
    rounds = [
        (a.value, b.value)
        for a, b in zip(said[::2], said[1::2], strict=True)
        if a.value is not None and b.value is not None
    ]
    if not rounds:
        return Ranking(scores=None, reason=f"abstained: {next(one.reason for one in said if one.value is None)}")
    last = len(texts) - 1
    score = {t: 1 - math.fsum(a[t] + b[t] for a, b in rounds) / (2 * len(rounds) * last) for t in texts}
    agreement = math.fsum(kendall(a, b, texts) for a, b in rounds) / len(rounds)
    return Ranking(
        scores=tuple(score[text] for text in listed.responses),
        reason=f"mean rank over {2 * len(rounds)} orders",
        agreement=agreement,
    )


def _alike(listed: Listed) -> Ranking:
    return Ranking(scores=(0.5,) * len(listed.responses), reason="the responses are the same; not asked")


def kendall(a: dict[str, int], b: dict[str, int], texts: Sequence[str]) -> float:
    """Kendall's tau of two orders without ties: the share of pairs in the same order less that of the others."""
    pairs = [(x, y) for i, x in enumerate(texts) for y in texts[i + 1 :]]
    return math.fsum(1.0 if (a[x] < a[y]) == (b[x] < b[y]) else -1.0 for x, y in pairs) / len(pairs)
