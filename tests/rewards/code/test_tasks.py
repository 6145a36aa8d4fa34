"""Tests as rows write them."""

from __future__ import annotations

from typing import Any

import pytest

from strop.rewards.code import tasks
from strop.rewards.code.compare import AS_JSON, AS_PYTHON
from strop.rewards.code.tasks import Call, Check, Run, complete, from_assert, program_of

CALL = {"entry": "f", "args": [1], "expected": 2}
OTHER = {"entry": "f", "args": [2], "expected": 3}


def test_calls_and_input() -> None:
    row = {"tests": [{**CALL, "kwargs": {"k": {"~set": [1]}}}, {"stdin": "1\n", "expected": "2\n"}]}
    assert tasks.tests_of(row).hidden == (
        Call(entry="f", args=(1,), kwargs={"k": {1}}, expected=2, rules=AS_JSON),
        Run(stdin="1\n", expected="2\n"),
    )
    assert tasks.tests_of({"tests": '[{"entry": "f", "args": [1], "expected": 2}]'}).hidden[0] == Call(
        entry="f", args=(1,), expected=2
    )


def test_visible_and_hidden_are_kept_apart() -> None:
    tests = tasks.tests_of({"tests": [CALL], "hidden_tests": [OTHER]})
    assert [t.args for t in tests.hidden] == [(2,)] and [t.args for t in tests.visible] == [(1,)]  # type: ignore[union-attr]
    renamed = tasks.tests_of({"public": [CALL], "private": [OTHER]}, "public", "private")
    assert renamed == tests


@pytest.mark.parametrize(
    ("text", "entry", "args", "expected"),
    [
        ("assert f(1, 'a') == [1]", "f", (1, "a"), [1]),
        ("assert f((1, 2), {'a': -1}) == {1, 2}", "f", ((1, 2), {"a": -1}), {1, 2}),
        ("assert (f(1)) == (3, 4)", "f", (1,), (3, 4)),
        ("assert f(1) is None", "f", (1,), None),
        ("assert f(1) is True", "f", (1,), True),
        ("assert sum(10, 15) == 6", "sum", (10, 15), 6),
        ("assert f(1) == 2, 'message'", "f", (1,), 2),
    ],
)
def test_simple_asserts_become_calls(text: str, entry: str, args: Any, expected: Any) -> None:
    assert from_assert(text) == Call(entry=entry, args=args, expected=expected, rules=AS_PYTHON)


def test_arguments_that_the_program_makes_are_sent_as_source() -> None:
    test = from_assert("assert longest([Pair(1, 2)], 4) == 3")
    assert isinstance(test, Call) and test.source == "longest([Pair(1, 2)], 4)" and test.expected == 3
    assert isinstance(from_assert("assert longest([Pair(1, 2)]) == 3", "Pair = tuple"), Check)


@pytest.mark.parametrize(
    ("text", "functions", "before"),
    [
        ("assert len(f(1)) == 3", ("f",), ()),
        ("assert f(1)", ("f",), ()),
        ("assert not f(1)", ("f",), ()),
        ("assert f(1) == g(2)", ("f", "g"), ()),
        ("assert math.isclose(f(1), 2)", ("f",), ("import math",)),
        ("assert abs(f(1) - 2) < 1e-6", ("f",), ()),
        ("x = [1]\nassert f(x) == 2", ("f",), ()),
    ],
)
def test_other_asserts_are_test_code(text: str, functions: tuple[str, ...], before: tuple[str, ...]) -> None:
    assert from_assert(text) == Check(test=text, functions=functions, before=before)


def test_humaneval() -> None:
    row = {
        "prompt": 'def f(x):\n    """Doc."""\n',
        "entry_point": "f",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
        "canonical_solution": "    return x + 1\n",
    }
    tests = tasks.tests_of(row)
    assert tests.hidden == (Check(test=row["test"], functions=("f",), before=(row["prompt"],), call="check"),)
    assert complete("    return x + 1\n", tests) == row["prompt"] + "    return x + 1\n"
    again = complete("def f(x):\n    return 2\n", tests)
    assert again == row["prompt"] + "\n\ndef f(x):\n    return 2\n"
    bare = tasks.tests_of({**row, "prompt": "import math\ndef f(x):\n"})
    assert bare.hidden[0].before == ("import math\ndef f(x):\n\n    pass\n",)  # type: ignore[union-attr]


def test_mbpp() -> None:
    row = {"test_list": ["assert f(1) == 2"], "challenge_test_list": ["assert f(2) == 3"], "test_setup_code": ""}
    assert [t.args for t in tasks.tests_of(row).hidden] == [(1,), (2,)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "the row has no tests"),
        ({"tests": []}, "the row has no tests"),
        ({"tests": "x"}, "'tests' is a str"),
        ({"tests": [3]}, "a test is an object or an assert"),
        ({"tests": [{"entry": "f", "args": [1]}]}, "a test needs 'expected'"),
        ({"tests": [{"args": [1], "expected": 1}]}, "'entry'"),
        ({"tests": [{"entry": "f", "args": 1, "expected": 1}]}, "'args'"),
        ({"tests": [{"stdin": 1, "expected": "1"}]}, "are texts"),
        ({"tests": [{"entry": "f", "args": [{"~odd": 1}], "expected": 1}]}, "no tag '~odd'"),
        ({"tests": ["assert f( == 1"]}, "is no Python"),
        ({"test": "def check(c:", "entry_point": "f"}, "mistake in line 1"),
        ({"tests": [{"check": "def check(candidate): pass"}]}, "entry_point"),
    ],
)
def test_what_is_wrong_is_named(row: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        tasks.tests_of(row)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("x = 1", "x = 1"),
        ("a\n```python\nx = 1\n```\nb", "x = 1\n"),
        ("```py\nx = 1\n```\n```\noutput\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\n```python3\nx = 2\n```\n", "x = 2\n"),
        ("```bash\nls\n```", "```bash\nls\n```"),
        ("```python\nx = 1", "x = 1"),
        ('"""\n```python\nx\n```\n"""\nx = 1', '"""\n```python\nx\n```\n"""\nx = 1'),
    ],
)
def test_the_program_in_an_answer(text: str, program: str) -> None:
    assert program_of(text) == program
