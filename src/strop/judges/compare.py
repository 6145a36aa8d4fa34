"""Which of two responses is better, asked in both orders.

A judge that prefers a place rather than a response contradicts itself when the responses change
places; so every pair is asked twice, and what differs is a tie:

    p(first better) = 1/2 [p(A | first shown as A) + p(B | first shown as B)]

p(A) is softmax over the log-probabilities of the verdict's letter, summed over its surface variants,
where the backend tells them; else 1 or 0 by the letter. Zheng et al. 2023, arXiv:2306.05685 (both
orders); Lee et al. 2023, arXiv:2309.00267 (soft labels from both); Bai et al. 2022, arXiv:2212.08073
(the clamp). We take a contradiction, and what lies closer to one half than the margin, as exactly 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.judges.asking import Asked, ask
from strop.judges.backends import BackendSettings
from strop.judges.prompts import BETTER, as_text, compare_prompt, turn
from strop.judges.protocol import Reply, Request
from strop.judges.verdict import begin_of, end_of, nonce_of, option_weights, read_verdict
from strop.types import Content

LETTERS = ("A", "B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two responses to one prompt.

    Attributes: principle: what to judge by, in place of the general criterion. reference: a known good answer.
    """

    prompt: Content
    first: str
    second: str
    principle: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a judge said of a pair.

    Attributes:
        probability: P(first better), over both orders; 1/2 for a tie; None where the judge abstained.
        reason: why it abstained or tied, or what its two verdicts were.
        forward, backward: P(first better) with the first shown first, and shown second; None if not had.
        flipped: whether the two point to different responses; None if not both were had.
        tie: whether the probability is 1/2 by contradiction, margin or because the responses are the same.
    """

    probability: float | None
    reason: str = ""
    forward: float | None = None
    backward: float | None = None
    flipped: bool | None = None
    tie: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Asks which response of each pair is better.

    Attributes:
        backend: who is asked.
        criterion: what is better, unless a pair has its own principle.
        think: let the judge write before its verdict (chain of thought).
        samples: verdicts drawn an order and averaged (self-consistency); more than one needs a temperature.
        temperature: 0 takes the likeliest reply.
        tie_margin: closer to one half than this is a tie.
        clamp: keep each order's probability within these, as (0.4, 0.6) for verdicts after thinking, which
            are near 0 or 1 whatever they rest on.
        max_tokens: of a reply; null is 64, and 1024 with thinking.
        max_chars: of each text that the judge reads; the middle of a longer one is left out.
    """

    backend: BackendSettings
    criterion: str = BETTER
    think: bool = False
    samples: int = 1
    temperature: float = 0.0
    tie_margin: float = 0.05
    clamp: tuple[float, float] | None = None
    max_tokens: int | None = None
    max_chars: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_drawing(self.samples, self.temperature, self.max_tokens, self.max_chars, "judge")
        _check(0 <= self.tie_margin < 0.5, f"judge.tie_margin must be in [0, 0.5), got {self.tie_margin}")
        low, high = self.clamp or (0.0, 1.0)
        _check(0 <= low <= 0.5 <= high <= 1, f"judge.clamp must hold 0.5 and lie in [0, 1], got {self.clamp}")

    def __call__(self, pairs: Sequence[Pair]) -> list[Comparison]:
        different = [i for i, pair in enumerate(pairs) if pair.first != pair.second]
        questions = [
            _Question(pairs[i], swapped, sample)
            for i in different
            for swapped in (False, True)
            for sample in range(self.samples)
        ]
        said = ask(self.backend, questions, self._request, _read)
        each = 2 * self.samples
        judged = {i: self._comparison(said[n * each : (n + 1) * each]) for n, i in enumerate(different)}
        same = Comparison(probability=0.5, reason="the responses are the same; not asked", tie=True)
        return [judged.get(i, same) for i in range(len(pairs))]

    def _request(self, question: _Question, attempt: int) -> Request:
        pair, responses = question.pair, question.responses
        nonce = nonce_of(
            "compare",
            self.seed, as_text(pair.prompt), responses, self.criterion, pair.principle, pair.reference, question.sample,
            attempt, self.temperature, self.think,
        )  # fmt: skip
        text = compare_prompt(
            pair.prompt, responses, nonce, criterion=self.criterion, principle=pair.principle,
            reference=pair.reference, think=self.think, max_chars=self.max_chars,
        )  # fmt: skip
        return Request(
            task="compare",
            messages=turn(text),
            inputs=inputs_of(pair.prompt, responses, pair.principle, pair.reference),
            max_tokens=self.max_tokens or (1024 if self.think else 64),
            temperature=self.temperature,
            seed=seed_of(nonce),
            options=LETTERS,
            nonce=nonce,
            begin=begin_of(nonce, "better", quoted=True),
            end=end_of(quoted=True),
            think=self.think,
        )

    def _comparison(self, said: Sequence[Asked]) -> Comparison:
        """One pair's comparison from its verdicts: all samples forward, then all backward."""
        forward, backward = self._order(said[: self.samples]), self._order(said[self.samples :])
        if backward is not None:
            backward = 1 - backward
        if forward is None or backward is None:
            why = next(one.reason for one in said if one.value is None)
            return Comparison(probability=None, reason=f"abstained: {why}", forward=forward, backward=backward)
        p, flipped = (forward + backward) / 2, (forward - 0.5) * (backward - 0.5) < 0
        tie = flipped or abs(p - 0.5) < self.tie_margin
        reason = f"first better: {forward:.3g} shown first, {backward:.3g} shown second"
        return Comparison(
            probability=0.5 if tie else p, reason=reason, forward=forward, backward=backward, flipped=flipped, tie=tie
        )

    def _order(self, said: Sequence[Asked]) -> float | None:
        """The mean P(A) of one order's verdicts, clamped; None if there is none."""
        known = [one.value for one in said if one.value is not None]
        if not known:
            return None
        p = math.fsum(known) / len(known)
        return p if self.clamp is None else min(max(p, self.clamp[0]), self.clamp[1])


@dataclass(frozen=True, slots=True)
class _Question:
    """A pair in one order, one of several samples."""

    pair: Pair
    swapped: bool
    sample: int
    responses: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        shown = (self.pair.first, self.pair.second)
        object.__setattr__(self, "responses", shown[::-1] if self.swapped else shown)


def _read(request: Request, reply: Reply) -> Asked:
    """P(A) by one reply."""
    letter, why = read_verdict(reply, request.nonce, "better", lambda v: v in ("A", "B", "tie"))
    if letter is None:
        letter = _bare(request, reply)
        if letter is None:
            return Asked(None, why)
    if letter == "tie":
        return Asked(0.5)
    weights = option_weights(reply, LETTERS, letter)
    if weights is None:
        return Asked(1.0 if letter == "A" else 0.0)
    return Asked(weights["A"] / (weights["A"] + weights["B"]))


def _bare(request: Request, reply: Reply) -> str | None:
    """The letter of a reply that is nothing else, where its probability and the other's are told.

    Judges too small to write an object still have a preference. The code that guards against repeated texts
    is missing, so a reply that is one of the responses does not count.
    """
    text = (reply.text or "").strip()
    weights = option_weights(reply, LETTERS, text) if text in LETTERS else None
    if weights is None or min(weights.values()) <= 0:
        return None
    repeats = any(text == response.strip() for response in request.inputs["responses"])
    return None if repeats else text


def inputs_of(
    prompt: Content, responses: Sequence[str], principle: str | None, reference: str | None
) -> dict[str, Any]:
    """What a stand-in function reads."""
    return {
        "prompt": as_text(prompt),
        "responses": tuple(responses),
        "principle": principle,
        "reference": reference,
    }


def seed_of(nonce: str) -> int:
    """The seed of a question's reply, by its code: one question, one answer."""
    return int(nonce[:7], 16)


def check_drawing(samples: int, temperature: float, max_tokens: int | None, max_chars: int, where: str) -> None:
    """Raises ValueError for settings of drawing that cannot be."""
    _check(samples >= 1, f"{where}.samples must be at least 1, got {samples}")
    _check(temperature >= 0, f"{where}.temperature must not be negative, got {temperature}")
    _check(
        samples == 1 or temperature > 0,
        f"{where}.samples={samples} at temperature 0 asks for the same reply again; set {where}.temperature=0.7",
    )
    _check(max_tokens is None or max_tokens >= 1, f"{where}.max_tokens must be positive, got {max_tokens}")
    _check(max_chars >= 100, f"{where}.max_chars must be at least 100, got {max_chars}")


def figures(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """How a judge behaved on these pairs.

    Returns: `judge/position_bias` = mean |forward - backward|, `judge/flip_rate`, both over pairs judged in both
        orders; `judge/ties` over pairs with a probability; `judge/abstained` over all; `judge/pairs`, their number.
    """
    both = [c for c in comparisons if c.forward is not None and c.backward is not None]
    known = [c for c in comparisons if c.probability is not None]
    out = {"judge/pairs": float(len(comparisons))}
    if comparisons:
        out["judge/abstained"] = 1 - len(known) / len(comparisons)
    if both:
        out["judge/position_bias"] = math.fsum(abs((c.forward or 0) - (c.backward or 0)) for c in both) / len(both)
        out["judge/flip_rate"] = sum(bool(c.flipped) for c in both) / len(both)
    if known:
        out["judge/ties"] = sum(c.tie for c in known) / len(known)
    return out


def _check(good: bool, text: str) -> None:
    if not good:
        raise ValueError(text)
