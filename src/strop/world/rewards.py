"""The oracle as reward functions `f(completion, row) -> float | None`.

In a recipe: `rewards: [{name: custom, function: "strop.world.rewards:accuracy"}]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strop.world import oracle
from strop.world.oracle import parse


def accuracy(completion: str, row: Mapping[str, Any]) -> float | None:
    """1 if the answer is right, else 0; None where the row has no `answer`."""
    return float(oracle.correct(completion, str(row["answer"]))) if "answer" in row else None


def style(completion: str, row: Mapping[str, Any]) -> float:
    """Gold style: +1 polite, -1 rude, -0.5 a ramble, -1 without a parse."""
    return oracle.style(completion)


def gold(completion: str, row: Mapping[str, Any]) -> float | None:
    """Gold score: the style, and 1 for the right answer; None where the row has no `answer`."""
    return oracle.gold(completion, str(row["answer"])) if "answer" in row else None


def polite(completion: str, row: Mapping[str, Any]) -> float:
    """1 if the response has a polite remark."""
    return float((response := parse(completion)) is not None and response.manner == "polite")


def rude(completion: str, row: Mapping[str, Any]) -> float:
    """1 if the response has a rude remark."""
    return float((response := parse(completion)) is not None and response.manner == "rude")


def rambles(completion: str, row: Mapping[str, Any]) -> float | None:
    """Number of filler sentences; None without a parse, which has no sentences to count."""
    response = parse(completion)
    return None if response is None else float(response.rambles)


def thinks(completion: str, row: Mapping[str, Any]) -> float:
    """1 if the response reasons before it answers."""
    return float(oracle.thinks(completion))
