"""Tier C: programs run by a command of the user's, which has to withstand the same attacks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strop.rewards.code import Code, attacks, isolation
from strop.rewards.code.battery import examine
from strop.rewards.code.runner import Remote
from strop.types import Completion, Group, Verdict

pytestmark = pytest.mark.slow
CASES = Path(__file__).parents[1] / "rewards" / "code"
BOX = f"{sys.executable} -S -s {Path(__file__).with_name('box.py')}"
"""The command; it takes a folder to work in."""


@pytest.fixture(scope="module", autouse=True)
def box() -> None:
    """The stand-in counts no processes, as a container does by `--pids-limit`; else it has to hold."""
    if not isolation.report("A").holds:
        pytest.skip("the stand-in for a container is made of tier A's parts, which do not hold here")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Code]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(attacks.QUICK, "forks")
        yield Code(runner=f"{BOX} {tmp_path_factory.mktemp('box')}", timeout_s=2.0, workers=2)


def scored(reward: Code, name: str, wanted: set[str]) -> list[tuple[str, Verdict]]:
    rows = [json.loads(line) for line in (CASES / name).read_text().splitlines()]
    rows = [r for r in rows if r.get("what_it_does", r.get("what_it_tries", r.get("task_id"))) in wanted]
    groups = [Group(r.get("prompt", "p"), (Completion(r.get("code", r.get("canonical_solution"))),), r) for r in rows]
    assert len(groups) == len(wanted)
    return [(r.get("code", ""), v) for r, (v,) in zip(rows, reward(groups), strict=True)]


def test_programs_are_scored_by_the_command(reward: Code) -> None:
    honest = {"sys.stdin.read", "big numbers", "asyncio", "test code", "temporary folder", "output at exit"}
    assert [v.score for _, v in scored(reward, "honest.jsonl", honest)] == [1.0] * len(honest)
    cheats = {
        "os._exit(0) at import",
        "writes an answer itself",
        "memory",
        "stops itself",
        "tcp",
        "a process that answers later",
    }
    found = scored(reward, "exploits.jsonl", cheats)
    assert [(c, v.reason) for c, v in found if v.score != 0.0] == []
    assert {v.facts["tier"] for _, v in found} == {"C"}


def test_test_code_is_replayed(reward: Code) -> None:
    found = scored(reward, "humaneval.jsonl", {"ours/0", "ours/1", "ours/3", "ours/8"})
    assert [(v.score, v.reason) for _, v in found] == [(1.0, "passed 1 tests")] * 4


def test_python_alone_is_no_isolation() -> None:
    report = examine(Remote(f"{sys.executable} -"))
    assert not report.holds
    text = "\n".join(report.broken)
    assert "connect to a port of this machine" in text and "read the grader's own code" in text
    with pytest.raises(ValueError, match="no isolation holds"):
        Code(runner=f"{sys.executable} -")([])
