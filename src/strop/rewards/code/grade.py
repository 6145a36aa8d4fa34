"""Whether a program passes tests: each in a fresh process, one input at a time, compared out here.

An expected value never enters a sandbox that holds the program, so there is nothing to steal; what
comes out is plain data, so forging it means knowing the answer. A program that is wrong, hangs,
crashes, exits early or says too much fails. Only a fault of the machinery itself is no verdict.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from strop.rewards.code import pool, values
from strop.rewards.code.compare import same_output, same_value
from strop.rewards.code.tasks import Call, Check, Run, Test
from strop.rewards.code.worker import Ended, Limits, Relay, Tier

TOTAL = 10
"""Test code may take this many times the limit of one call, in all."""


class Sandbox(Protocol):
    """Where programs run."""

    @property
    def tier(self) -> Tier: ...
    def run(self, request: dict[str, Any], limits: Limits, stdin: str | None = None) -> Ended: ...
    def run_test(self, request: dict[str, Any], limits: Limits, wall_s: float, relay: Relay) -> Ended: ...


@dataclass(frozen=True, slots=True)
class Local:
    """The sandbox of a tier on this machine, with starters from the pool."""

    tier: Tier

    def run(self, request: dict[str, Any], limits: Limits, stdin: str | None = None) -> Ended:
        """Run one program. Raises: Fault after several tries."""

        def once() -> Ended:
            with pool.lent(self.tier) as worker:
                return worker.run(request, limits, stdin)

        return pool.retried(once)

    def run_test(self, request: dict[str, Any], limits: Limits, wall_s: float, relay: Relay) -> Ended:
        """Run test code. Raises: Fault after several tries."""

        def once() -> Ended:
            with pool.lent(self.tier) as worker:
                return worker.run_test(request, limits, wall_s, relay)

        return pool.retried(once)


class TaskFault(ValueError):
    """The test itself cannot be run: nothing is known of the program."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of tests: how many were run, and why the first one failed, if one did."""

    num_run: int
    failure: str | None

    @property
    def passed(self) -> bool:
        return self.failure is None


def grade(program: str, tests: Sequence[Test], sandbox: Sandbox, limits: Limits, seed: int = 0) -> Found:
    """Run the tests in an order drawn from `seed` until one fails.

    Raises: Fault where the machinery fails, TaskFault where a test does.
    """
    order = list(tests)
    random.Random(seed).shuffle(order)
    for number, test in enumerate(order, 1):
        failure = run_test(program, test, sandbox, limits)
        if failure is not None:
            return Found(number, failure)
    return Found(len(order), None)


def run_test(program: str, test: Test, sandbox: Sandbox, limits: Limits) -> str | None:
    """Why the program fails one test; `None` if it passes."""
    if isinstance(test, Call):
        return _call(program, test, sandbox, limits)
    if isinstance(test, Run):
        return _run(program, test, sandbox, limits)
    return _check(program, test, sandbox, limits)


def _call(program: str, test: Call, sandbox: Sandbox, limits: Limits) -> str | None:
    args = [values.encode(a) for a in test.args]
    kwargs = {name: values.encode(v) for name, v in test.kwargs.items()}
    entry = {"source": test.source} if test.source else {"entry": test.entry, "args": args, "kwargs": kwargs}
    kind, said = _called(program, entry, sandbox, limits)
    if kind != "value":
        return str(said)
    return None if same_value(said, test.expected, test.rules) else f"{test.entry} returned another value"


def _called(program: str, call: dict[str, Any], sandbox: Sandbox, limits: Limits) -> tuple[str, Any]:
    """One call in a fresh process: ("value", tree), ("raised", ...) as text, or ("failed", why)."""
    ended = sandbox.run({"mode": "call", "code": program, **call}, limits)
    answer = _answer(ended)
    if isinstance(answer, str):
        return "failed", answer
    if answer[0] == "value" and len(answer) == 2:
        return "value", answer[1]
    return answer[0], _told(answer)


def _answer(ended: Ended) -> list[Any] | str:
    """The message a process left, or why there is none."""
    trouble = _trouble(ended)
    if trouble is not None:
        return trouble
    if not ended.answer:
        return "it exited before it answered"
    try:
        message = values.load(ended.answer)
    except values.Unplain as error:
        return f"its answer is {error}"
    if not isinstance(message, list) or not message or message[0] not in ("value", "raised", "unplain", "held"):
        return "its answer is no plain data"
    return message


def _trouble(ended: Ended) -> str | None:
    if ended.why == "timeout":
        return "it took too long"
    if ended.why is not None:
        return f"it was stopped: {ended.why}"
    if ended.status < 0:
        return (
            "it took too long"
            if ended.status in (-24, -9) and ended.cpu_s > 0.5
            else f"it crashed (signal {-ended.status})"
        )
    return f"it exited with status {ended.status}" if ended.status else None


def _told(message: list[Any]) -> str:
    """An error message of a program's process, which may say anything, as a short text."""
    parts = [part if isinstance(part, str) else "" for part in message[1:3]]
    if message[0] == "unplain":
        return f"it returned no plain data: {parts[0] if parts else ''}"[:300]
    line = message[3] if len(message) > 3 and type(message[3]) is int and message[3] > 0 else None
    return f"{': '.join(p for p in parts if p)}{f' (line {line})' if line else ''}"[:300] or "it raised"


def _run(program: str, test: Run, sandbox: Sandbox, limits: Limits) -> str | None:
    ended = sandbox.run({"mode": "stdin", "code": program}, limits, test.stdin)
    trouble = _trouble(ended)
    if trouble is not None:
        answer = _answer(Ended(status=0, why=None, output=b"", answer=ended.answer, cpu_s=0.0))
        return trouble if isinstance(answer, str) or ended.why else _told(answer)
    if len(ended.output) > values.MAX_BYTES:
        return f"it wrote more than {values.MAX_BYTES} bytes"
    return None if same_output(ended.output, test.expected) else "it wrote another output"


def _check(program: str, test: Check, sandbox: Sandbox, limits: Limits) -> str | None:
    """Test code in one sandbox, the program in others: one fresh process a call."""
    if not test.functions:
        raise TaskFault("the test code calls no function of the program")
    relayed = _Relayed(program, test, sandbox, limits)
    request = {
        "mode": "check",
        "test": test.test,
        "before": list(test.before),
        "functions": list(test.functions),
        "call": test.call,
    }
    ended = sandbox.run_test(request, limits, TOTAL * limits.timeout_s, relayed)
    if relayed.failure is not None:
        return relayed.failure
    answer = _answer(ended)
    if isinstance(answer, str):
        return f"with this program, the test code failed: {answer}"
    if answer[0] == "held":
        return None if relayed.num_calls else "the test code held, but never called the program"
    if answer[1:2] == ["Unplain"]:
        raise TaskFault(f"the test code passes what is not plain data: {_told(answer)}")
    return _told(answer)


class _Relayed:
    """Answers the calls of test code, and remembers what ended them."""

    def __init__(self, program: str, test: Check, sandbox: Sandbox, limits: Limits) -> None:
        self.failure: str | None = None
        self.num_calls = 0
        self._functions = test.functions
        self._one: Callable[..., tuple[str, Any]] = lambda name, args, kwargs: _called(
            program, {"entry": name, "args": args, "kwargs": kwargs}, sandbox, limits
        )

    def __call__(self, message: bytes) -> bytes | None:
        try:
            what, name, args, kwargs = values.load(message)
            if what != "call" or name not in self._functions:
                return None
        except (ValueError, TypeError):
            return None
        self.num_calls += 1
        kind, said = self._one(name, args, kwargs)
        if kind == "value":
            return values.dump(["value", said])
        if kind == "raised":
            return values.dump(["raised", *said.partition(": ")[::2]])
        self.failure = said
        return None
