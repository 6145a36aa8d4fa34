"""The math reward: one boxed answer, compared with the gold as mathematics.

Score 1 for an answer that is the gold, 0 for any other, also for one that is hostile, hangs or
crashes what works it out; `None` where the verifier cannot tell: no gold, a gold that cannot be
read, or workers that do not work.
"""

from __future__ import annotations

import importlib.util
import math
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from strop.rewards.math.box import boxed
from strop.rewards.math.decide import NeedsWorker, decide, unasked
from strop.rewards.math.pool import Fault, num_cores, pool
from strop.rewards.protocol import check_column, gold_of
from strop.types import Group, Verdict

MAX_TIMEOUT_S = 60
_APPROXIMATED = re.compile(r"(?<=\S)\s*(?:\\approx|≈)\s*[-0-9., ]+(?=\$?\s*$)")  # 3\sqrt2 \approx 4.24


@dataclass(frozen=True, slots=True, kw_only=True)
class MathAnswer:
    """1 if the one boxed answer after the thinking is the gold, as mathematics.

    Attributes:
        column: the row's column with the gold: LaTeX or a number; a list has accepted ones.
        timeout_s: seconds of processor time one comparison may take; then the answer is wrong.
    """

    name: Literal["math"] = "math"
    weight: float = 1.0
    label: str | None = None
    column: str = "answer"
    timeout_s: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(f"math.timeout_s: {self.timeout_s} must be from 1 to {MAX_TIMEOUT_S} seconds")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        require_math_verify()
        check_column(groups, self.column, self.name)
        pairs = [(c.text, gold_of(g, self.column)) for g in groups for c in g.completions]
        verdicts = iter(verify_many(pairs, timeout_s=self.timeout_s))
        return [[next(verdicts) for _ in group.completions] for group in groups]


def require_math_verify() -> None:
    """Raises ValueError, naming the fix, where math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise ValueError("reward 'math': needs math-verify, which is not installed; pip install 'strop[train]'")


def verify_many(pairs: Sequence[tuple[str, Any]], *, timeout_s: int = 3) -> list[Verdict]:
    """Verdicts on (completion, gold) pairs in order; several at once where they must be worked out."""
    if len(pairs) < 2:
        return [verify_math(text, gold, timeout_s=timeout_s) for text, gold in pairs]
    with ThreadPoolExecutor(min(len(pairs), num_cores()), "math") as threads:
        return list(threads.map(lambda pair: verify_math(pair[0], pair[1], timeout_s=timeout_s), pairs))


def verify_math(text: str, gold: Any, *, timeout_s: int = 3) -> Verdict:
    """Whether the one boxed answer in a text is the gold.

    Args: gold: LaTeX, with or without `$` and `\\\\boxed`, a number, or a list of accepted golds.
        timeout_s: processor seconds for working a comparison out.
    Returns: 1 or 0; `None` for a gold that is missing or unreadable, and for faults of our own.
    """
    golds = gold_texts(gold)
    if not golds:
        return Verdict(None, f"no gold answer to compare with: {str(gold)[:60]!r}")
    answer, why = boxed(text)
    if answer is None:
        return Verdict(0.0, why)
    shown = answer if len(answer) <= 200 else answer[:200] + "…"
    verdicts = []
    for wanted in golds:
        verdicts.append(_compared(wanted, answer, shown, timeout_s))
        if verdicts[-1].score == 1.0:
            break
    return max(verdicts, key=lambda v: (v.score == 1.0, v.score is None))


def gold_texts(gold: Any) -> list[str]:
    """A gold as LaTeX texts, empty if there is none: its box's content, what follows ####, numbers in digits."""
    if isinstance(gold, list | tuple):
        found = [text for g in gold for text in (gold_texts(g) or [""])]
        return found if all(found) else []
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        return []
    if not isinstance(gold, str):
        return [repr(gold)] if math.isfinite(gold) else []
    text = gold.rpartition("####")[2]
    text = (boxed(text)[0] or text) if "\\boxed" in text or "\\fbox" in text else text
    text = _APPROXIMATED.sub("", text)
    return [text.strip()] if text.strip(" $\n\t") else []


def _compared(gold: str, answer: str, shown: str, timeout_s: int) -> Verdict:
    try:
        decision = decide(gold, answer, unasked)
    except NeedsWorker:
        decision = None
    if decision is None:
        return _worked_out(gold, answer, shown, timeout_s)
    return Verdict(float(decision.equal), decision.reason, shown)


def _worked_out(gold: str, answer: str, shown: str, timeout_s: int) -> Verdict:
    """The worker's verdict, remembered: the answers of a group are often the same."""
    with _BUSY.of(gold, answer):
        score, reason = _remembered(gold, answer, timeout_s)
    return Verdict(score, reason, shown)


class _Busy:
    """Locks by pair, so that equal pairs of one batch are worked out once."""

    def __init__(self, num: int) -> None:
        self.locks = [threading.Lock() for _ in range(num)]

    def of(self, gold: str, answer: str) -> threading.Lock:
        return self.locks[hash((gold, answer)) % len(self.locks)]


_BUSY = _Busy(64)


def _remembered(gold: str, answer: str, timeout_s: int) -> tuple[float | None, str]:
    try:
        return _known(gold, answer, timeout_s)
    except Fault as fault:
        return None, f"the verifier failed: {fault}"


@lru_cache(maxsize=4096)
def _known(gold: str, answer: str, timeout_s: int) -> tuple[float | None, str]:
    """The score and why. Raises: Fault, which is not remembered."""
    reply = _asked(gold, answer, timeout_s)
    if reply.ended or reply.value.get("failed"):
        alone = _asked(gold, None, timeout_s)  # whose fault is it?
        if alone.ended or not alone.value.get("equal"):
            raise Fault(f"the gold answer cannot be worked out either: {gold[:80]}")
        said = {"time": f"not worked out in {timeout_s} s", "died": "working it out crashed"}.get(reply.ended, "")
        return 0.0, said or str(reply.value["reason"])
    if "fault" in reply.value:
        return None, str(reply.value["fault"])
    return float(reply.value["equal"]), str(reply.value["reason"])


def _asked(gold: str, answer: str | None, timeout_s: int) -> Any:
    """A worker's reply, asked again if the worker died of itself: something else may have killed it.

    Raises: Fault if other processes leave it no processor time.
    """
    request = {"gold": gold, "answer": answer}
    reply = pool().ask(request, timeout_s)
    if reply.ended in ("died", "starved"):
        reply = pool().ask(request, timeout_s)
    if reply.ended == "starved":
        raise Fault("this machine is so busy that a worker had no processor time")
    return reply


__all__ = ["MathAnswer", "gold_texts", "require_math_verify", "verify_many", "verify_math"]
