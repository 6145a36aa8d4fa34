"""How good one response is, from 1 to 10, by a judge.

The rating is the expectation over the probabilities of 1 ... 10 at the verdict's number, where the backend
tells them, else the number itself; score = (rating - 5.5) / 4.5, in [-1, 1]. Lee et al. 2023,
arXiv:2309.00267 (direct RLAIF). A rating alone is easier to flatter than a comparison: it has no second order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.judges.asking import Asked, ask
from strop.judges.backends import BackendSettings
from strop.judges.compare import check_drawing, inputs_of, seed_of
from strop.judges.prompts import RUBRIC, as_text, rate_prompt, turn
from strop.judges.protocol import Reply, Request
from strop.judges.verdict import (
    answer_position,
    begin_of,
    end_of,
    masses,
    nonce_of,
    option_weights,
    read_verdict,
    surface,
)
from strop.types import Content

SCALE = tuple(str(n) for n in range(1, 11))
MIDDLE, HALF = 5.5, 4.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A response to be rated. `principle`: what to judge by besides the scale. `reference`: a known good answer."""

    prompt: Content
    response: str
    principle: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What a judge said of a response.

    Attributes: score: in [-1, 1]; None where it abstained. rating: the same from 1 to 10. reason: in words.
    """

    score: float | None
    rating: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Asks how good each response is.

    Attributes:
        backend: who is asked.
        rubric: what the numbers from 1 to 10 mean.
        think, samples, temperature, max_tokens, max_chars: as in `Compare`.
    """

    backend: BackendSettings
    rubric: str = RUBRIC
    think: bool = False
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int | None = None
    max_chars: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_drawing(self.samples, self.temperature, self.max_tokens, self.max_chars, "judge")

    def __call__(self, items: Sequence[Item]) -> list[Rating]:
        questions = [(item, sample) for item in items for sample in range(self.samples)]
        said = ask(self.backend, questions, self._request, _read)
        return [_rating(said[i * self.samples : (i + 1) * self.samples]) for i in range(len(items))]

    def _request(self, question: tuple[Item, int], attempt: int) -> Request:
        item, sample = question
        nonce = nonce_of(
            "rate", self.seed, as_text(item.prompt), item.response, self.rubric, item.principle, item.reference,
            sample, attempt, self.temperature, self.think,
        )  # fmt: skip
        text = rate_prompt(
            item.prompt, item.response, nonce, rubric=self.rubric, principle=item.principle,
            reference=item.reference, think=self.think, max_chars=self.max_chars,
        )  # fmt: skip
        return Request(
            task="rate",
            messages=turn(text),
            inputs=inputs_of(item.prompt, [item.response], item.principle, item.reference),
            max_tokens=self.max_tokens or (1024 if self.think else 64),
            temperature=self.temperature,
            seed=seed_of(nonce),
            options=SCALE,
            nonce=nonce,
            begin=begin_of(nonce, "score", quoted=False),
            end=end_of(quoted=False),
            think=self.think,
        )


def _rating(said: Sequence[Asked]) -> Rating:
    known = [one.value for one in said if one.value is not None]
    if not known:
        return Rating(score=None, reason=f"abstained: {said[0].reason}")
    rating = math.fsum(known) / len(known)
    return Rating(score=(rating - MIDDLE) / HALF, rating=rating, reason=f"rated {rating:.3g} of 10")


def _read(request: Request, reply: Reply) -> Asked:
    """The expected rating by one reply."""
    value, why = read_verdict(reply, request.nonce, "score", _is_rating)
    if value is None:
        return Asked(None, why)
    weights = rating_weights(reply, value)
    if weights is None:
        return Asked(float(value))
    total = math.fsum(weights.values())
    return Asked(math.fsum(int(n) * w for n, w in weights.items()) / total)


def _is_rating(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= 10


def rating_weights(reply: Reply, value: float) -> dict[str, float] | None:
    """Probability mass of each rating where the verdict's number begins; None where it is not told.

    Where no token spells "10", the mass of "1" is that of 1 and of 10. What follows "1" tells them apart if
    the verdict is one of the two; else they share it as 2 and 9 stand to each other.
    """
    chosen = f"{value:g}"
    if reply.option_logprobs:
        return option_weights(reply, SCALE, chosen)
    place, single = _number_at(reply, chosen)
    weights = None if place is None else masses(reply.logprobs[place], SCALE)
    if place is None or weights is None:
        return None
    if not single and not any(surface(token) == "10" for token in reply.logprobs[place]):
        ten = _share_of_ten(reply, place, chosen, weights)
        weights["10"], weights["1"] = weights["1"] * ten, weights["1"] * (1 - ten)
    return weights if math.fsum(weights.values()) > 0 else None


def _number_at(reply: Reply, chosen: str) -> tuple[int | None, bool]:
    """Where the number begins among the reply's tokens, and whether a token spells 10."""
    place = answer_position(reply, chosen)
    if place is not None or chosen != "10" or len(reply.tokens) != len(reply.logprobs):
        return place, chosen == "10"
    pairs = range(len(reply.tokens) - 2, -1, -1)
    digits = (i for i in pairs if surface(reply.tokens[i]) == "1" and surface(reply.tokens[i + 1]) == "0")
    return next(digits, None), False


def _share_of_ten(reply: Reply, place: int, chosen: str, weights: Mapping[str, float]) -> float:
    """P(10 | the number begins with 1)."""
    if chosen in ("1", "10"):
        follows = reply.logprobs[place + 1] if place + 1 < len(reply.logprobs) else {}
        return min(1.0, math.fsum(math.exp(p) for token, p in follows.items() if surface(token) == "0"))
    near = weights["2"] + weights["9"]
    return weights["9"] / near if near > 0 else 0.5
