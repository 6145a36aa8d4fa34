"""Ratings: the expectation over digit tokens, with 10 as one token and as two."""

from __future__ import annotations

import math
from typing import Any

import pytest

from strop.judges import Function, Item, Rate, Rating, Reply, Request
from strop.judges.rate import rating_weights
from strop.judges.verdict import verdict_line


class Scripted:
    name = "scripted"

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[Request] = []

    def __call__(self, requests: Any) -> list[Reply]:
        self.asked.extend(requests)
        return [self.replies.pop(0)(request) for request in requests]


def number(value: Any) -> Any:
    return lambda request: Reply(text=verdict_line(request.nonce, "score", value))


def digits(*places: tuple[str, dict[str, float]], end: dict[str, float] | None = None) -> Any:
    """A verdict whose number is these tokens, each with the probabilities at its place; `end`: those behind it."""

    def reply(request: Request) -> Reply:
        tokens = ('{"nonce": "', request.nonce, '", "score": ', *(token for token, _ in places), "}")
        logs = [{t: math.log(p) for t, p in at.items()} for at in (*(place for _, place in places), end or {})]
        return Reply(text="".join(tokens), tokens=tokens, logprobs=({}, {}, {}, *logs))

    return reply


def rated(*replies: Any, **settings: Any) -> Rating:
    (found,) = Rate(backend=Scripted(*replies), **settings)([Item(prompt="q", response="r")])  # type: ignore[arg-type]
    return found


def test_the_scale_runs_from_minus_one_to_one() -> None:
    for value, score in ((1, -1.0), (5.5, 0.0), (10, 1.0), (7, 1 / 3)):
        assert rated(number(value)).score == pytest.approx(score)


@pytest.mark.parametrize("value", [0, 11, -1, True, None, "7", [7], 1e9])
def test_other_values_are_malformed(value: Any) -> None:
    found = rated(number(value), number(value))
    assert found.score is None and found.reason.startswith("abstained")


def test_the_expectation_over_single_tokens() -> None:
    found = rated(digits(("8", {"8": 0.5, " 9": 0.2, "9": 0.1, "10": 0.2, "The": 0.0001})))
    assert found.rating == pytest.approx(0.5 * 8 + 0.3 * 9 + 0.2 * 10)


def test_ten_as_two_tokens() -> None:
    """P(10) = P(1) P(0 | 1), read where the verdict is 10 or 1."""
    first = {"1": 0.6, "9": 0.4}
    assert rated(digits(("1", first), ("0", {"0": 0.75}))).rating == pytest.approx(0.45 * 10 + 0.15 * 1 + 0.4 * 9)
    assert rated(digits(("1", first), end={"0": 0.25})).rating == pytest.approx(0.15 * 10 + 0.45 * 1 + 0.4 * 9)
    assert rated(digits(("1", {"1": 1.0}))).rating == pytest.approx(1.0)


def test_a_one_that_was_not_chosen_is_shared_as_two_and_nine_stand() -> None:
    assert rated(digits(("9", {"9": 0.6, "8": 0.2, "1": 0.2}))).rating == pytest.approx(0.6 * 9 + 0.2 * 8 + 0.2 * 10)
    assert rated(digits(("2", {"2": 0.8, "1": 0.2}))).rating == pytest.approx(0.8 * 2 + 0.2)
    assert rated(digits(("5", {"5": 0.8, "1": 0.2}))).rating == pytest.approx(0.8 * 5 + 0.1 * 10 + 0.1)


def test_options_that_a_backend_scored_itself() -> None:
    logs = {str(n): math.log(0.1) for n in range(1, 11)}
    assert rated(lambda r: Reply(text=verdict_line(r.nonce, "score", 3), option_logprobs=logs)).rating == 5.5


def test_without_probabilities_the_number_counts() -> None:
    assert rating_weights(Reply(text="x"), 3) is None
    assert rated(number(7), number(9), samples=2, temperature=1.0).rating == 8


def test_a_malformed_rating_is_asked_again() -> None:
    assert rated(lambda r: Reply(text="Score: 10"), number(4)).rating == 4
    assert rated(lambda r: Reply(text="10"), lambda r: Reply(text="10")).score is None


def test_a_function_rates(tmp_path: Any) -> None:
    (tmp_path / "m.py").write_text("def f(task, inputs):\n    return str(len(inputs['responses'][0]))\n")
    judge = Rate(backend=Function(function=f"{tmp_path}/m.py:f"))
    found = judge([Item(prompt="q", response="x" * n) for n in (1, 10, 11)])
    assert [one.score for one in found] == [-1.0, 1.0, None]
