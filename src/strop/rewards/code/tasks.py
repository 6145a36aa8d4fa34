"""What a row's tests are: read from the shapes that tests come in, as calls, programs' input, or test code.

- `tests`, `hidden_tests`: lists of `{"entry", "args"[, "kwargs"], "expected"}`, of
  `{"stdin", "expected"}`, of asserts as texts, or of `{"check": code[, "entry"]}`;
- HumanEval: `test` (with `def check(candidate)`), `entry_point`, and `prompt`, which begins the program;
- MBPP: `test_list` and `challenge_test_list` of asserts, after `test_setup_code`.

An assert of the form `f(literals) == literal` becomes a call; its expected value then never
enters a sandbox. Any other is test code, which runs in a sandbox of its own.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import symtable
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.rewards.code.compare import AS_JSON, AS_PYTHON, Rules, from_json
from strop.rewards.code.values import Unplain, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Call a function; its result is to be `expected`.

    Attributes: source: the call as an expression, where its arguments are not plain data but made
        of what the program defines (`f([Pair(1, 2)])`); evaluated among the program's names.
    """

    entry: str
    args: tuple[Any, ...]
    expected: Any
    source: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    rules: Rules = AS_JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Run a program on some standard input; its output is to be `expected`."""

    stdin: str
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Run test code, which calls `functions` of the program.

    Attributes:
        before: code that is run first: what the test's helpers are.
        call: the function of the test code that is called with the first of `functions`; empty
            where running the code is the test.
    """

    test: str
    functions: tuple[str, ...]
    before: tuple[str, ...] = ()
    call: str = ""


Test = Call | Run | Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Tests:
    """A row's tests.

    Attributes:
        hidden: those that the score is of.
        visible: those that the prompt shows; empty where a row does not tell them apart.
        before: what the program begins with where the answer does not define `entry` itself: the
            prompt of HumanEval.
    """

    hidden: tuple[Test, ...]
    visible: tuple[Test, ...] = ()
    before: str = ""
    entry: str = ""


def tests_of(row: Mapping[str, Any], visible: str = "tests", hidden: str = "hidden_tests") -> Tests:
    """The tests of a row, whichever shape it has.

    Args: visible, hidden: the columns of the tests that the prompt shows and of those it does not.
        Where a row has the first alone, they are what counts.
    Raises: ValueError saying what is missing or malformed.
    """
    shown, kept = _listed(row, visible), _listed(row, hidden)
    if kept:
        return Tests(hidden=tuple(_test(t, row) for t in kept), visible=tuple(_test(t, row) for t in shown))
    if shown:
        return Tests(hidden=tuple(_test(t, row) for t in shown))
    if isinstance(row.get("test"), str) and isinstance(row.get("entry_point"), str):
        return _humaneval(row)
    asserts = [*_listed(row, "test_list"), *_listed(row, "challenge_test_list")]
    if asserts:
        return Tests(hidden=tuple(_test(t, row) for t in asserts))
    known = ", ".join(sorted(row)) or "none"
    raise ValueError(
        f"the row has no tests: expected {visible!r} or {hidden!r}, HumanEval's 'test' and 'entry_point', or MBPP's"
        f" 'test_list' (columns: {known})"
    )


def _listed(row: Mapping[str, Any], column: str) -> Sequence[Any]:
    value = row.get(column)
    if isinstance(value, str) and value.strip().startswith("["):
        value = json.loads(value)
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ValueError(f"{column!r} is a {type(value).__name__}, not a list of tests")
    return value


def _test(test: Any, row: Mapping[str, Any]) -> Test:
    if isinstance(test, str):
        return from_assert(test, str(row.get("test_setup_code") or ""))
    if not isinstance(test, Mapping):
        raise ValueError(f"a test is an object or an assert, got {test!r:.60}")
    if isinstance(test.get("check"), str):
        entry = str(test.get("entry") or row.get("entry_point") or "")
        return _check(test["check"], (), entry)
    if "expected" not in test:
        raise ValueError(f"a test needs 'expected', got the keys {', '.join(map(str, test))}")
    if "stdin" in test:
        if not isinstance(test["stdin"], str) or not isinstance(test["expected"], str):
            raise ValueError("'stdin' and its 'expected' are texts")
        return Run(stdin=test["stdin"], expected=test["expected"])
    return _call(test)


def _call(test: Mapping[str, Any]) -> Call:
    entry, args, kwargs = test.get("entry"), test.get("args", []), test.get("kwargs") or {}
    if not isinstance(entry, str) or not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
        raise ValueError("a test needs 'entry' (a name) with 'args' (a list), or 'stdin' (a text)")
    try:
        call = Call(
            entry=entry,
            args=tuple(from_json(a) for a in args),
            kwargs={str(k): from_json(v) for k, v in kwargs.items()},
            expected=from_json(test["expected"]),
        )
        encode([call.args, dict(call.kwargs), call.expected])
    except Unplain as error:
        raise ValueError(f"a test of {entry}: {error}") from None
    return call


def _humaneval(row: Mapping[str, Any]) -> Tests:
    prompt, entry = str(row.get("prompt") or ""), str(row["entry_point"])
    test = _check(row["test"], (_whole(prompt),) if prompt else (), entry)
    return Tests(hidden=(test,), before=prompt, entry=entry)


def _whole(prompt: str) -> str:
    """A prompt that ends in a function's head, as code that runs: its docstring is its body, or `pass`."""
    try:
        ast.parse(prompt)
        return prompt
    except SyntaxError:
        return prompt + "\n    pass\n"


def _check(test: str, before: tuple[str, ...], entry: str) -> Check:
    try:
        tree = ast.parse(test)
    except SyntaxError as error:
        raise ValueError(f"the test code has a mistake in line {error.lineno}: {error.msg}") from None
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    functions = (entry,) if entry else _unknown(test, before)
    if "check" in defined and not entry:
        raise ValueError("test code with `check(candidate)` needs the function's name as 'entry_point'")
    return Check(test=test, functions=functions, before=before, call="check" if "check" in defined else "")


def from_assert(text: str, setup: str = "") -> Test:
    """An assert as a call where it is `f(...) == literal`, else as test code.

    Raises: ValueError if it is no Python.
    """
    try:
        tree = ast.parse(text.strip())
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the test {text!r:.60} is no Python: {error}") from None
    call = _simple(tree, plain_alone=bool(setup.strip()))
    if call is not None:
        return call
    before: tuple[str, ...] = (setup,) if setup.strip() else ()
    before += tuple(f"import {name}" for name in sorted(_modules(tree) - set(_defined(setup))))
    return Check(test=text, functions=_unknown(text, before), before=before)


def _simple(tree: ast.Module, plain_alone: bool) -> Call | None:
    """The call of `assert f(...) == literal` (or `is None`, `is True`); `None` for any other code.

    Args: plain_alone: take literal arguments alone: others may need what a setup defines.
    """
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Assert):
        return None
    test = tree.body[0].test
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.left, ast.Call):
        return None
    operator, expected = test.ops[0], test.comparators[0]
    if not isinstance(operator, ast.Eq) and not (isinstance(operator, ast.Is) and _is_single(expected)):
        return None
    try:
        want = ast.literal_eval(expected)
        encode(want)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return _plain_call(test.left, want) or (None if plain_alone else _call_by_source(test.left, want))


def _is_single(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool))


def _plain_call(call: ast.Call, want: Any) -> Call | None:
    """A call of a name with literals."""
    if not isinstance(call.func, ast.Name) or any(k.arg is None for k in call.keywords):
        return None
    try:
        args = tuple(ast.literal_eval(a) for a in call.args)
        kwargs = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        encode([args, kwargs])
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return Call(entry=call.func.id, args=args, kwargs=kwargs, expected=want, rules=AS_PYTHON)


def _call_by_source(call: ast.Call, want: Any) -> Call | None:
    """A call of the program's, with arguments that it must make itself; never one of Python's on its result."""
    first: ast.expr = call
    while isinstance(first, ast.Call | ast.Attribute):
        first = first.func if isinstance(first, ast.Call) else first.value
    if not isinstance(first, ast.Name) or first.id in vars(builtins) or first.id in sys.stdlib_module_names:
        return None
    return Call(entry=first.id, args=(), expected=want, source=ast.unparse(call), rules=AS_PYTHON)


def _modules(tree: ast.Module) -> set[str]:
    """The standard modules whose members code names, which an assert of MBPP takes as imported."""
    used = [n.value.id for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    return set(used) & set(sys.stdlib_module_names)


def _unknown(test: str, before: Sequence[str]) -> tuple[str, ...]:
    """The names that test code reads and neither it, its setup nor Python defines: the program's."""
    known = set(vars(builtins)) | {name for code in before for name in _defined(code)} | set(_defined(test))
    return tuple(sorted(_read_names(test) - known))


def _read_names(code: str) -> set[str]:
    return {n.id for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _defined(code: str) -> list[str]:
    """All names that code binds anywhere: at its top, in functions, as arguments, in comprehensions."""
    tables, names = [symtable.symtable(code, "<test>", "exec")], []
    while tables:
        table = tables.pop()
        names += [s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_parameter()]
        tables += table.get_children()
    return names


_FENCE = re.compile(
    r"^[ \t]*(?:```|~~~)[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*(?:```|~~~)[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_QUOTED = re.compile(r"\"{3}.*?\"{3}|'{3}.*?'{3}", re.DOTALL)
_PYTHON = ("python", "py", "python3")


def program_of(text: str) -> str:
    """The program in an answer: its last block fenced as Python, or else its last fenced one, or else all of it.

    Fences within a program's own docstrings are no fences; one that is never closed runs to the end.
    """
    if not _FENCE.search(_QUOTED.sub("", text)):
        return text
    blocks = [(found[1].lower(), found[2]) for found in _FENCE.finditer(text)]
    named = [code for kind, code in blocks if kind in _PYTHON]
    bare = [code for kind, code in blocks if not kind]
    return (named or bare or [text])[-1]


def complete(program: str, tests: Tests) -> str:
    """The program with what comes before it: HumanEval's prompt, whose function it goes on or writes again."""
    if not tests.before:
        return program
    again = re.search(
        rf"^(?:async[ \t]+)?def[ \t]+{re.escape(tests.entry)}\b|^{re.escape(tests.entry)}[ \t]*=", program, re.MULTILINE
    )
    return f"{_whole(tests.before)}\n\n{program}" if again else tests.before + program
