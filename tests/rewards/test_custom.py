"""The user's own reward, by the place of its function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from strop.rewards import Custom, Exact, JsonSchema, load_function, load_rewards
from strop.types import Completion, Group, Verdict

GROUPS = [Group("one", (Completion("a"), Completion("bb"))), Group("two"), Group("three", (Completion("ccc"),))]


def values(verdicts: Sequence[Sequence[Verdict]]) -> list[list[float | None]]:
    return [[v.score for v in vs] for vs in verdicts]


MINE = """
from strop.rewards import on_groups

LIMIT = 2

def short(completion, row):
    return len(completion) <= LIMIT

@on_groups
def rank(groups):
    return [[float(i) for i, _ in enumerate(g.completions)] for g in groups]

def one_argument(completion):
    return 1.0

@on_groups
def two_arguments(groups, rows):
    return []
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "my_rewards.py"
    path.write_text(MINE)
    return str(path)


def test_custom_from_a_file(mine: str) -> None:
    assert values(Custom(function=f"{mine}:short")(GROUPS)) == [[1.0, 1.0], [], [0.0]]
    assert values(Custom(function=f"{mine}:rank", label="rank")(GROUPS)) == [[0.0, 1.0], [], [0.0]]


def test_custom_from_a_module(mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(mine).parent))
    assert values(Custom(function="my_rewards:short")(GROUPS)) == [[1.0, 1.0], [], [0.0]]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("shrt", "has no 'shrt'; did you mean short"),
        ("LIMIT", "is a int, not a function"),
        ("one_argument", r"cannot be called as f\(completion, row\)"),
        ("two_arguments", r"cannot be called as f\(groups\)"),
    ],
)
def test_custom_functions_that_do_not_fit(mine: str, function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_function(f"{mine}:{function}")


def test_custom_files_that_do_not_load(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("x = 1\ny = 1 / 0\n")
    with pytest.raises(ValueError, match=r"ZeroDivisionError: division by zero at .*bad.py:2: y = 1 / 0"):
        load_function(f"{tmp_path}/bad.py:f")
    with pytest.raises(ValueError, match=r"no file .*none.py"):
        load_function(f"{tmp_path}/none.py:f")
    with pytest.raises(ValueError, match="No module named 'no_such_package'"):
        load_function("no_such_package.x:f")


@pytest.mark.parametrize("function", ["f", "a.b.f", ":f", "a.py:", "a.py:f()"])
def test_custom_places_that_are_none(function: str) -> None:
    with pytest.raises(ValueError, match=r"write package\.module:function"):
        Custom(function=function)


def test_rewards_are_loaded_before_the_first_step(mine: str, tmp_path: Path) -> None:
    load_rewards([Exact(), Custom(function=f"{mine}:rank"), Custom(function=f"{mine}:short", label="short")])
    with pytest.raises(ValueError, match="has no 'nothing'"):
        load_rewards([Exact(), Custom(function=f"{mine}:nothing")])
    with pytest.raises(ValueError, match="cannot be read"):
        load_rewards([JsonSchema(path=str(tmp_path / "none.json"))])
