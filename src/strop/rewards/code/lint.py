"""What is wrong with a set of tasks, before anything is trained on it.

A task that a trivial cheat solves teaches the cheat. Each row is tried with cheats (constants, the
input given back, the first visible answer), which must fail, and with its reference (where it has
one), which must pass whatever the random numbers are. And it needs enough hidden inputs that the
prompt does not show.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.data.read import Problem as Unreadable
from strop.data.read import read_rows
from strop.rewards.code.compare import same_output, same_value
from strop.rewards.code.grade import Sandbox, TaskFault, grade
from strop.rewards.code.tasks import Call, Check, Run, Test, Tests, complete, program_of, tests_of
from strop.rewards.code.values import Unplain, encode
from strop.rewards.code.worker import Ended, Fault, Limits, Relay, Tier

ENOUGH = 10
"""Hidden inputs that a task needs at least."""

REFERENCES = ("reference", "canonical_solution", "solution", "code")
"""Columns that may hold a program that solves the task; the first that a row has."""

_SEEDS = (1, 2, 3)
_CONSTANTS: tuple[Any, ...] = (True, False, 0, 1, -1, "", [], {}, None)
_OUTPUTS = ("", "0", "1", "-1", "YES", "NO", "Yes", "No", "True", "False")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a row: where it stands, and what."""

    row: str
    problem: str

    def to_json(self) -> dict[str, str]:
        """As plain values."""
        return {"row": self.row, "problem": self.problem}


@dataclass(frozen=True, slots=True)
class Seeded:
    """A sandbox whose programs' random numbers begin elsewhere."""

    inner: Sandbox
    seed: int

    @property
    def tier(self) -> Tier:
        return self.inner.tier

    def run(self, request: dict[str, Any], limits: Limits, stdin: str | None = None) -> Ended:
        """Run one program."""
        return self.inner.run({**request, "seed": self.seed}, limits, stdin)

    def run_test(self, request: dict[str, Any], limits: Limits, wall_s: float, relay: Relay) -> Ended:
        """Run test code, which has the usual random numbers."""
        return self.inner.run_test(request, limits, wall_s, relay)


def lint_file(path: str, sandbox: Sandbox, limits: Limits) -> Iterator[Problem]:
    """What is wrong with the rows of a file, in order. Raises: ValueError if it cannot be read at all."""
    seen: dict[str, str] = {}
    for row in read_rows(path):
        if isinstance(row, Unreadable):
            yield Problem(row.origin, f"cannot be read: {row.reason} {row.detail}".strip())
            continue
        same = _content(row.value)
        if same in seen:
            yield Problem(row.origin, f"the same task as {seen[same]}")
        seen.setdefault(same, row.origin)
        yield from (Problem(row.origin, text) for text in lint_row(row.value, sandbox, limits))


def _content(row: Mapping[str, Any]) -> str:
    return json.dumps({k: v for k, v in row.items() if k not in ("id", "task_id")}, sort_keys=True, default=str)


def lint_row(row: Mapping[str, Any], sandbox: Sandbox, limits: Limits) -> Iterator[str]:
    """What is wrong with one task, in words."""
    try:
        tests = tests_of(row)
    except ValueError as error:
        yield str(error)
        return
    yield from _inputs(tests, str(row.get("prompt") or row.get("text") or ""))
    try:
        yield from _cheats(tests, sandbox, limits)
        reference = next((row[name] for name in REFERENCES if isinstance(row.get(name), str)), None)
        if reference is not None:
            yield from _reference(complete(program_of(reference), tests), tests, sandbox, limits)
    except (Fault, TaskFault) as fault:
        yield f"cannot be graded: {fault}"


def _inputs(tests: Tests, prompt: str) -> Iterator[str]:
    """Too few inputs, repeated ones, and ones that the prompt shows."""
    keys = [_key(test) for test in tests.hidden]
    repeated = [key for key, number in Counter(keys).items() if number > 1]
    if repeated:
        yield f"{len(repeated)} hidden tests are there more than once, as {repeated[0]:.60}"
    clashing = _clashing(tests.hidden)
    if clashing:
        yield f"two tests expect different answers to {clashing:.60}"
    bare = "".join(prompt.split())
    shown = {_key(test) for test in tests.visible}
    told = {key for test, key in zip(tests.hidden, keys, strict=True) if key in shown or _told(test, bare)}
    if told:
        yield f"{len(told)} hidden inputs are shown to the model, as {min(told):.60}"
    number = sum(_num_inputs(t) for t, key in zip(tests.hidden, keys, strict=True) if key not in told)
    number -= len(keys) - len(set(keys))
    if number < ENOUGH:
        yield f"{number} hidden inputs that the prompt does not show; at least {ENOUGH} are needed"


def _key(test: Test) -> str:
    """A test's input as a text."""
    if isinstance(test, Run):
        return test.stdin
    if isinstance(test, Check):
        return test.test
    if test.source:
        return test.source
    given = [repr(a) for a in test.args] + [f"{k}={v!r}" for k, v in test.kwargs.items()]
    return f"{test.entry}({', '.join(given)})"


def _told(test: Test, bare: str) -> bool:
    """Whether the prompt shows a test's input: the call, or lines of input; spaces do not count."""
    key = "".join(_key(test).split())
    return not isinstance(test, Check) and len(key) >= 3 and key in bare


def _num_inputs(test: Test) -> int:
    """How many inputs a test has: of test code, its asserts are counted."""
    if not isinstance(test, Check):
        return 1
    nodes = list(ast.walk(ast.parse(test.test)))
    calls = [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    asserts = [n for n in nodes if isinstance(n, ast.Assert)]
    loops = any(isinstance(n, ast.For | ast.While) for n in nodes)
    return ENOUGH if loops else len(asserts) + sum(str(n.func.attr).startswith("assert") for n in calls)  # type: ignore[attr-defined]


def _clashing(tests: Sequence[Test]) -> str:
    expected: dict[str, Any] = {}
    for test in tests:
        if not isinstance(test, Check):
            known = expected.setdefault(_key(test), test.expected)
            if json.dumps(_tree(known)) != json.dumps(_tree(test.expected)):
                return _key(test)
    return ""


def _tree(value: Any) -> Any:
    try:
        return encode(value)
    except Unplain:
        return repr(value)


def _cheats(tests: Tests, sandbox: Sandbox, limits: Limits) -> Iterator[str]:
    """The cheats that pass every hidden test."""
    first = next((t.expected for t in (*tests.visible, *tests.hidden) if not isinstance(t, Check)), None)
    if all(isinstance(t, Check) for t in tests.hidden):
        yield from _cheats_of_code(tests, sandbox, limits)
        return
    if any(isinstance(t, Check) for t in tests.hidden):
        return  # with calls beside it, test code is one of several hurdles
    for what, passes in _tricks(first):
        if all(passes(test) for test in tests.hidden if not isinstance(test, Check)):
            yield f"a program that {what} passes all hidden tests"
            return


def _tricks(first: Any) -> Iterator[tuple[str, Callable[[Call | Run], bool]]]:
    """Cheats as tests of a test: would this one pass?"""
    for value in _CONSTANTS:
        yield f"always returns {value!r}", lambda t, v=value: isinstance(t, Call) and _gives(t, v)  # type: ignore[misc]
    for text in _OUTPUTS:
        yield f"always prints {text!r}", lambda t, v=text: isinstance(t, Run) and same_output(v.encode(), t.expected)  # type: ignore[misc]
    yield (
        "gives its first visible answer",
        lambda t: (
            _gives(t, first)
            if isinstance(t, Call)
            else isinstance(first, str) and same_output(first.encode(), t.expected)
        ),
    )
    yield (
        "gives its input back",
        lambda t: (
            any(_gives(t, a) for a in t.args[:1]) if isinstance(t, Call) else same_output(t.stdin.encode(), t.expected)
        ),
    )


def _gives(test: Call, value: Any) -> bool:
    try:
        return same_value(encode(value), test.expected, test.rules)
    except Unplain:
        return False


def _cheats_of_code(tests: Tests, sandbox: Sandbox, limits: Limits) -> Iterator[str]:
    names = sorted({name for t in tests.hidden if isinstance(t, Check) for name in t.functions})
    bodies = [(f"always returns {v!r}", f"return {v!r}") for v in _CONSTANTS]
    for what, body in [*bodies, ("gives its input back", "return a[0]")]:
        program = "\n".join(f"def {name}(*a, **k):\n    {body}" for name in names)
        if grade(program, tests.hidden, sandbox, limits).passed:
            yield f"a program that {what} passes all hidden tests"
            return


def _reference(program: str, tests: Tests, sandbox: Sandbox, limits: Limits) -> Iterator[str]:
    """What is wrong with a task's own solution: it fails, or it depends on random numbers."""
    everything = (*tests.visible, *tests.hidden)
    found = [grade(program, everything, Seeded(sandbox, seed), limits) for seed in _SEEDS]
    passed = [f.passed for f in found]
    if not any(passed):
        yield f"its reference fails: {found[0].failure}"
    elif not all(passed):
        yield "its reference passes or fails by chance: it is not deterministic"
