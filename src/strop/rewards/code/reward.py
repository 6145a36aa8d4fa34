"""The reward for programs: 1 if every hidden test passes, in a sandbox that was seen to hold."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from strop.rewards.code.grade import Found, Sandbox, TaskFault, grade
from strop.rewards.code.isolation import Wanted, sandbox_of
from strop.rewards.code.tasks import Tests, complete, program_of, tests_of
from strop.rewards.code.worker import Fault, Limits
from strop.rewards.extract import after_think
from strop.types import Completion, Group, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """1 if the answer's Python program passes all hidden tests, 0 if it fails one; run in a sandbox.

    The program is the last block fenced as Python after the thinking, or else all of the answer.
    `facts` of each verdict: `tier`, `hidden` and (where the row has both kinds) `visible`, 1 or 0
    each for all tests passed; the monitor watches their gap.

    Attributes:
        visible: the column of the tests that the prompt shows. They are the score's where a row
            has no others. HumanEval's and MBPP's columns are read where a row has neither.
        hidden: the column of the tests that make the score.
        timeout_s: seconds of the processor that a test may take; half as much again on the clock.
        memory_mb: address space of a program.
        tier: how programs are isolated: auto takes the best of A and B that holds here, or C
            where a runner is given.
        runner: a command that runs a Python script from its standard input in isolation (tier C),
            as `docker run --rm -i --network none ... python -`.
        unsafe_exec: run programs even where no isolation holds (tier D).
        workers: programs run at a time; null takes one a core.
    """

    name: Literal["code"] = "code"
    weight: float = 1.0
    label: str | None = None
    visible: str = "tests"
    hidden: str = "hidden_tests"
    timeout_s: float = 8.0
    memory_mb: int = 1024
    tier: Literal["auto", "A", "B", "C"] = "auto"
    runner: str | None = None
    unsafe_exec: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if not 0.05 <= self.timeout_s <= 600:
            raise ValueError(f"code.timeout_s must be from 0.05 to 600 seconds, got {self.timeout_s}")
        if self.memory_mb < 128:
            raise ValueError(f"code.memory_mb must be at least 128 (Python itself needs some 60), got {self.memory_mb}")
        if (self.tier == "C") != (self.runner is not None) and self.tier != "auto":
            raise ValueError("code.tier: C and a runner go together; give both, or leave tier at auto")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"code.workers must be at least 1, got {self.workers}")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        sandbox = sandbox_of(Wanted(tier=self.tier, runner=self.runner, unsafe=self.unsafe_exec))
        jobs = [(completion, group) for group in groups for completion in group.completions]
        if not jobs:
            return [[] for _ in groups]
        limits = Limits(timeout_s=self.timeout_s, memory_mb=self.memory_mb)
        with ThreadPoolExecutor(self.workers or _cores()) as threads:
            verdicts = threads.map(lambda job: self._verify(job[0], job[1], sandbox, limits), jobs)
            return [[next(verdicts) for _ in group.completions] for group in groups]

    def _verify(self, completion: Completion, group: Group, sandbox: Sandbox, limits: Limits) -> Verdict:
        row = {"prompt": group.prompt_text, **group.row}
        try:
            tests = tests_of(row, self.visible, self.hidden)
        except ValueError as error:
            return Verdict(None, f"the row's tests: {error}", facts={"tier": sandbox.tier})
        return verify_code(completion.text, tests, sandbox, limits)


def verify_code(answer: str, tests: Tests, sandbox: Sandbox, limits: Limits) -> Verdict:
    """What the tests say of an answer. `None` only for faults of the tests or of the machinery."""
    text = program_of(after_think(answer))
    program = complete(text, tests)
    facts: dict[str, str | float] = {"tier": sandbox.tier}
    try:
        hidden = _graded(program, tests.hidden, sandbox, limits)
        facts["hidden"] = float(hidden.passed)
        if tests.visible:
            facts["visible"] = float(_graded(program, tests.visible, sandbox, limits).passed)
    except (Fault, TaskFault) as fault:
        return Verdict(None, f"the grader failed: {fault}", extracted=text, facts=facts)
    reason = f"passed {len(tests.hidden)} tests" if hidden.passed else f"failed a test: {hidden.failure}"
    return Verdict(float(hidden.passed), reason, extracted=text, facts=facts)


def _graded(program: str, tests: Sequence[Any], sandbox: Sandbox, limits: Limits) -> Found:
    """The tests, in an order that depends on the program alone, so that a run can be repeated."""
    return grade(program, tests, sandbox, limits, seed=zlib.crc32(program.encode("utf-8", "replace")))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux tells
        return os.cpu_count() or 1
