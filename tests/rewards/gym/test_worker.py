"""What is let through to scorers that evaluate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from strop.rewards.gym.worker import _uses, unfit


class Parsing:
    def score_answer(self, answer: str, entry: Any) -> float:
        from sympy import parse_expr

        return float([parse_expr(text) for text in [answer]] == [entry])


class Comparing:
    def score_answer(self, answer: str, entry: Any) -> float:
        return float(answer == entry)


@pytest.mark.parametrize("answer", ["x**2 + 3*x*exp(-x)/2 + C", "-sin(2*x) + log(X)", "3.5*y", "(a + b)**10"])
def test_expressions_are_let_through(answer: str) -> None:
    assert unfit(Parsing(), "simple_integration", answer) == ""


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').system('true')",
        "exec(x)",
        "open(x)",
        "x.__class__",
        "x.subs",
        "[x]",
        "lambda: x",
        "'x'",
        "x; y",
        "Integral(x, x)",
        "9**9**9",
        "9**(9**9)",
        "x**99999",
        "x_1",
    ],
)
def test_code_and_towers_are_not(answer: str) -> None:
    assert unfit(Parsing(), "simple_integration", answer) != ""


@pytest.mark.parametrize("answer, fits", [("(3+4)*2 - 1/5", True), ("2**3", False), ("7//2", False), ("1.5+x", False)])
def test_sums_over_given_numbers_are_sums_alone(answer: str, fits: bool) -> None:
    assert (unfit(Parsing(), "countdown", answer) == "") is fits


def test_a_scorer_that_only_compares_takes_any_text() -> None:
    assert unfit(Comparing(), "leg_counting", "__import__('os')") == ""


def test_names_are_seen_in_inner_functions_too() -> None:
    code = SimpleNamespace(f=lambda: [eval(x) for x in "1"]).f.__code__
    assert _uses(code, ("eval",)) and not _uses(code, ("exec",))
