"""Cheats score 0 and honest programs 1, in every tier, and nothing outside a sandbox changes."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.types import Verdict

HERE = Path(__file__).parent
SHARED = Path(__file__).parents[4] / "shared" / "cases"
MBPP = SHARED.parent / "data" / "mbpp" / "mbpp.jsonl.gz"
Scores = Callable[..., list[Verdict]]


def rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        pytest.skip(f"no {path}")
    read = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [row for row in read if not row["category"].startswith(("math", "judge"))]


def not_scored(verdicts: Scores, path: Path, score: float, timeout_s: float) -> list[Any]:
    """The rows of a file that did not get a score, with what they got."""
    read = rows(path)
    found = verdicts([(row["code"], row) for row in read], timeout_s=timeout_s)
    return [(r, v.score, v.reason) for r, v in zip(read, found, strict=True) if v.score != score]


def names(folder: str) -> set[str]:
    """What is in a folder, other tests' and grades' files aside."""
    return {n for n in os.listdir(folder) if not n.startswith(("strop-", "pytest", ".", "__"))}


def test_there_are_enough_of_both() -> None:
    assert len(rows(HERE / "exploits.jsonl")) >= 40 and len(rows(HERE / "honest.jsonl")) >= 30


def test_cheats_score_zero(verdicts: Scores) -> None:
    before = {folder: names(folder) for folder in ("/dev/shm", ".", str(Path.home()))}
    assert not_scored(verdicts, HERE / "exploits.jsonl", 0, timeout_s=0.5) == []
    assert before == {folder: names(folder) for folder in before}


def test_honest_programs_score_one(verdicts: Scores) -> None:
    assert not_scored(verdicts, HERE / "honest.jsonl", 1, timeout_s=4.0) == []


def test_the_shared_cheats_score_zero(verdicts: Scores) -> None:
    assert not_scored(verdicts, SHARED / "exploits.jsonl", 0, timeout_s=0.5) == []


def test_the_shared_honest_programs_score_one(verdicts: Scores) -> None:
    assert not_scored(verdicts, SHARED / "legit.jsonl", 1, timeout_s=4.0) == []


def test_the_tier_is_in_every_verdict(verdicts: Scores, tier: str) -> None:
    tests = {"tests": [{"entry": "f", "args": [], "expected": 1}]}
    found = verdicts([("def f(): return 1", tests), ("def f(): return 2", tests), ("", {"tests": []}), ("", {})])
    assert [v.score for v in found] == [1.0, 0.0, None, None]
    assert [v.facts["tier"] for v in found] == [tier] * 4
    assert [v.facts.get("hidden") for v in found] == [1.0, 0.0, None, None]


HARD = (126, 260, 296, 367, 460, 533, 596, 601, 734, 927)
"""Among them: a function called `sum`, a type as an argument, objects of the program's, helpers of the test's."""


def test_mbpp_s_references_pass_but_for_two(verdicts: Scores) -> None:
    if not MBPP.exists():
        pytest.skip(f"no {MBPP}")
    read = [json.loads(line) for line in gzip.decompress(MBPP.read_bytes()).splitlines()]
    chosen = [row for row in read if row["task_id"] in HARD or row["task_id"] % 40 == 0]
    found = verdicts([(row["code"], row) for row in chosen], timeout_s=8.0)
    failed = [row["task_id"] for row, v in zip(chosen, found, strict=True) if v.score != 1]
    assert failed == [367, 927], "their tests build trees of a class that they do not define"
    assert [v.score for v in found if v.score != 1] == [0.0, 0.0]
    cheat = "from unittest.mock import ANY\n"
    names = {row["task_id"]: row["code"].split("def ")[-1].split("(")[0] for row in chosen}
    cheats = [(cheat + f"def {names[row['task_id']]}(*a): return ANY", row) for row in chosen]
    assert {v.score for v in verdicts(cheats)} == {0.0}
