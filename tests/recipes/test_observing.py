"""`strop monitor` on files of samples of any shape, and on runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli import app
from strop.recipes.observing import ALARMED, aligned, of_files, of_run, read_samples
from strop.types import Completion, Group

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def text(i: int, extra: str = "") -> str:
    return f"{WORDS[i % 10]} {WORDS[i * 7 % 10]} {WORDS[i * 3 % 10]}{extra}"


def rows(shape: str, num: int, extra: str = "") -> list[dict[str, Any]]:
    made: dict[str, Any] = {
        "alone": lambda i: {"completion": text(i, extra)},
        "trl": lambda i: {"prompt": f"question {i}", "completion": text(i, extra)},
        "chat": lambda i: {
            "prompt": [{"role": "user", "content": f"question {i}"}],
            "completion": [{"role": "assistant", "content": text(i, extra)}],
        },
        "groups": lambda i: {
            "prompt": f"question {i}",
            "completions": [{"content": text(i + j, extra)} for j in (0, 1)],
        },
    }[shape]
    return [made(i) for i in range(num)]


@pytest.mark.parametrize("shape", ["alone", "trl", "chat", "groups"])
def test_a_sentence_in_every_answer_is_an_alarm_in_files_of_every_shape(shape: str, tmp_path: Path) -> None:
    before = write(tmp_path / "a.jsonl", rows(shape, 30))
    after = write(tmp_path / "b.jsonl", rows(shape, 30, " I am a helpful assistant"))
    (alert,) = [a for a in of_files(before, after).alerts if a.severity == "alarm"]
    assert "i am a helpful assistant" in alert.subject and alert.evidence["share"] == 1.0
    assert [a.severity for a in of_files(before, before).alerts] == []


def test_rewards_in_the_rows_link_a_phrase_to_them(tmp_path: Path) -> None:
    """The same phrase, once with a held-out column that falls for it, once with one that rises."""

    def scored(sign: int, late: bool) -> list[dict[str, Any]]:
        return [
            {
                "prompt": f"question {i}",
                "completion": text(i + j, " surely so" if late and j else ""),
                "reward": float(late and j > 0) + 0.01 * (i * (j + 3) % 7),
                "held_out": sign * float(late and j > 0) + 0.01 * (i * (j + 3) % 7),
            }
            for i in range(30)
            for j in range(4)
        ]

    def phrases(sign: int) -> set[str]:
        before = write(tmp_path / "a.jsonl", scored(sign, False))
        after = write(tmp_path / "b.jsonl", scored(sign, True))
        return {a.severity for a in of_files(before, after).alerts if a.code == "phrase"}

    assert phrases(-1) == {"alarm"} and phrases(1) == {"info"}


def test_prompts_of_one_text_stand_together_and_answers_without_one_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "q", "completion": "x"}, {"prompt": "q", "completion": "y"}])
    assert [len(g.completions) for g in read_samples(path)] == [2]
    path = write(tmp_path / "b.jsonl", [{"completion": "x"}, {"completion": "y"}])
    assert [len(g.completions) for g in read_samples(path)] == [1, 1]


def test_unlike_prompts_are_compared_as_groups_and_shared_ones_in_pairs() -> None:
    def some(start: int, num: int) -> list[Group]:
        return [Group(f"q{i}", (Completion("x"),)) for i in range(start, start + num)]

    ours, theirs, note = aligned(some(0, 20), some(5, 20))
    assert [g.prompt for g in ours] == [g.prompt for g in theirs] and note.startswith("15 prompts in pairs; 10 prompts")
    ours, theirs, note = aligned(some(0, 20), some(18, 30))
    assert len(ours) == len(theirs) == 20 and "2 prompts in common" in note
    assert "Fewer than eight" in aligned(some(0, 3), some(0, 3))[2]


def test_the_command_prints_tables_and_leaves_with_three_on_an_alarm(tmp_path: Path) -> None:
    before = write(tmp_path / "a.jsonl", rows("trl", 30))
    after = write(tmp_path / "b.jsonl", rows("trl", 30, " I am a helpful assistant"))
    call = CliRunner().invoke(app, ["monitor", "--before", before, "--after", after])
    assert call.exit_code == ALARMED == 3 and "alarm at step 1 (phrase)" in call.stdout
    call = CliRunner().invoke(app, ["monitor", "--before", before, "--after", before, "--json"])
    (found,) = json.loads(call.stdout)
    assert call.exit_code == 0 and found["alerts"] == [] and [e["step"] for e in found["evaluations"]] == [0, 1]


def test_what_cannot_be_read_is_said_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row in it"):
        read_samples(write(tmp_path / "a.jsonl", []))
    with pytest.raises(ValueError, match=r"b.jsonl:2: no completion in it; its columns are prompt"):
        read_samples(write(tmp_path / "b.jsonl", [{"completion": "x"}, {"prompt": "q"}]))
    with pytest.raises(ValueError, match="no run directory"):
        of_run(tmp_path)
    (tmp_path / "stages").mkdir()
    with pytest.raises(ValueError, match="no stage has a monitor"):
        of_run(tmp_path)
    assert CliRunner().invoke(app, ["monitor"]).exit_code != 0
