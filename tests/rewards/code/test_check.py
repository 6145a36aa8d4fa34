"""Test code in a sandbox of its own: HumanEval-shaped rows, and answers that aim at the test code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.types import Verdict

Scores = Callable[..., list[Verdict]]

ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in Path(__file__).with_name("humaneval.jsonl").read_text("utf-8").splitlines()
]

CHEATS = [
    "    pass\n",
    "    return True\n",
    "    import os; os._exit(0)\n",
    "    raise SystemExit(0)\n",
    "    raise AssertionError\n",
    "    raise NotImplementedError\n",
    "    return NotImplemented\n",
    "    return type('E', (), {f'__{m}__': lambda *a: True for m in ('eq', 'bool', 'contains', 'len')})()\n",
    "    import unittest.mock; return unittest.mock.ANY\n",
    "    import unittest.mock; return unittest.mock.MagicMock()\n",
    "    import os; os.write(3, b'[\"held\"]'); os._exit(0)\n",
    "    import builtins; builtins.AssertionError = ValueError; return 0\n",
    "    import sys; sys.modules['__main__'].check = lambda c: None; sys.exit(0)\n",
]


def test_references_pass(verdicts: Scores) -> None:
    found = verdicts([(row["canonical_solution"], row) for row in ROWS], timeout_s=4.0)
    assert [(v.score, v.reason) for v in found] == [(1.0, "passed 1 tests")] * len(ROWS)
    again = [row["prompt"] + row["canonical_solution"] for row in ROWS]
    assert [v.score for v in verdicts([(f"```python\n{t}\n```", r) for t, r in zip(again, ROWS, strict=True)])] == [
        1.0
    ] * 10


@pytest.mark.parametrize("cheat", CHEATS, ids=range(len(CHEATS)))
def test_cheats_fail(verdicts: Scores, cheat: str) -> None:
    assert [v.score for v in verdicts([(cheat, row) for row in ROWS])] == [0.0] * len(ROWS)


def test_a_check_of_the_answer_s_own_is_not_run(verdicts: Scores) -> None:
    own = "    return 0\n\n\ndef check(candidate):\n    pass\n\n\nclass T:\n    pass\n"
    assert [v.score for v in verdicts([(own, row) for row in ROWS])] == [0.0] * len(ROWS)


def test_test_code_that_never_calls_the_program_passes_nobody(verdicts: Scores) -> None:
    row = {**ROWS[0], "test": "def check(candidate):\n    pass\n"}
    (verdict,) = verdicts([(row["canonical_solution"], row)])
    assert verdict.score == 0.0 and "never called the program" in verdict.reason


def test_a_fault_of_the_test_code_is_no_score(verdicts: Scores) -> None:
    row = {**ROWS[0], "test": "def check(candidate):\n    candidate(lambda: 1)\n"}
    (verdict,) = verdicts([(row["canonical_solution"], row)])
    assert verdict.score is None and "not plain data" in verdict.reason


def test_each_call_is_a_fresh_process(verdicts: Scores) -> None:
    row = {
        "prompt": "def count():\n",
        "entry_point": "count",
        "test": "def check(candidate):\n    assert [candidate(), candidate(), candidate()] == [1, 1, 1]\n",
    }
    (verdict,) = verdicts([("    seen.append(1)\n    return len(seen)\n\nseen = []\n", row)])
    assert verdict.score == 1.0


def test_what_a_function_does_to_its_arguments_stays_with_it(verdicts: Scores) -> None:
    """Else an answer could empty the list that the test compares with."""
    row = {
        "prompt": "def f(xs):\n",
        "entry_point": "f",
        "test": "def check(candidate):\n    xs = [2, 1]\n    assert candidate(xs) == sorted(xs)\n",
    }
    (verdict,) = verdicts([("    xs.clear()\n    return []\n", row)])
    assert verdict.score == 0.0
