"""Tasks that a cheat would pass are found, and good ones are not accused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli import app
from strop.rewards.code.grade import Local
from strop.rewards.code.lint import lint_file, lint_row
from strop.rewards.code.worker import Limits

LIMITS = Limits(timeout_s=2.0, memory_mb=512)


def calls(function: Any, *inputs: Any) -> list[dict[str, Any]]:
    return [{"entry": "f", "args": [x], "expected": function(x)} for x in inputs]


GOOD: dict[str, Any] = {
    "prompt": "Square a number: f(2) is 4.",
    "tests": calls(lambda x: x * x, 2),
    "hidden_tests": calls(lambda x: x * x, *range(3, 14)),
    "reference": "def f(x): return x * x",
}


def found(tier: Any, **changes: Any) -> list[str]:
    row = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    return list(lint_row(row, Local(tier), LIMITS))


@pytest.fixture
def tier() -> str:
    return "A" if _holds() else pytest.skip("no tier holds here")


def _holds() -> bool:
    from strop.rewards.code.isolation import report

    return report("A").holds


def test_a_good_task_has_no_problem(tier: str) -> None:
    assert found(tier) == []
    assert found(tier, reference=None) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_tests": calls(lambda x: True, *range(12)), "reference": None}, "always returns True"),
        ({"hidden_tests": calls(lambda x: 0, *range(12)), "reference": None}, "always returns 0"),
        ({"hidden_tests": calls(lambda x: [], *range(12)), "reference": None}, "always returns []"),
        ({"hidden_tests": calls(lambda x: None, *range(12)), "reference": None}, "always returns None"),
        ({"hidden_tests": calls(lambda x: x, *range(3, 14)), "reference": None}, "gives its input back"),
        ({"hidden_tests": calls(lambda x: 4, *range(3, 14)), "reference": None}, "gives its first visible answer"),
        ({"hidden_tests": calls(lambda x: x * x, *range(3, 9))}, "6 hidden inputs that the prompt does not show"),
        ({"hidden_tests": calls(lambda x: x * x, *range(2, 14))}, "1 hidden inputs are shown to the model, as f(2)"),
        ({"hidden_tests": calls(lambda x: x * x, 3, 3, *range(4, 14))}, "more than once, as f(3)"),
        ({"hidden_tests": GOOD["hidden_tests"] + calls(lambda x: 1, 5)}, "different answers to f(5)"),
        ({"reference": "def f(x): return 2 * x"}, "its reference fails: f returned another value"),
        ({"reference": "import random\ndef f(x): return x * x if random.random() < .93 else 0"}, "reference"),
        ({"tests": None, "hidden_tests": None}, "the row has no tests"),
        (
            {"hidden_tests": [{"stdin": f"{n}\n", "expected": "YES\n"} for n in range(12)], "reference": None},
            "always prints 'YES'",
        ),
        (
            {"hidden_tests": [{"stdin": f"{n}\n", "expected": f"{n}\n"} for n in range(12)], "reference": None},
            "gives its input back",
        ),
        (
            {"hidden_tests": [{"check": "def check(c):\n    for i in range(12): assert c(i)", "entry": "f"}]},
            "always returns True",
        ),
        ({"hidden_tests": [{"check": "def check(c): c(lambda: 1)", "entry": "f"}]}, "cannot be graded"),
    ],
    ids=range(17),
)
def test_what_is_wrong_is_told(tier: str, changes: dict[str, Any], words: str) -> None:
    assert any(words in text for text in found(tier, **changes))


def test_a_file_s_rows_are_named_and_repeated_ones_told(tier: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    rows = [{"task_id": 1, **GOOD}, {"task_id": 2, **GOOD}]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + "nonsense\n")
    problems = list(lint_file(str(path), Local(tier), LIMITS))  # type: ignore[arg-type]
    assert [p.row.rpartition(":")[2] for p in problems] == ["2", "3"]
    assert "the same task as" in problems[0].problem and "cannot be read" in problems[1].problem


def test_the_verb_s_exit_code_says_whether_all_is_well(tier: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(json.dumps(GOOD) + "\n")
    bad.write_text(json.dumps({**GOOD, "reference": "def f(x): return 0"}) + "\n")
    result = CliRunner().invoke(app, ["lint-tasks", str(good)])
    assert (result.exit_code, result.output) == (0, "no problems found\n")
    result = CliRunner().invoke(app, ["lint-tasks", str(bad), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.output.splitlines()[0])["problem"].startswith("its reference fails")
