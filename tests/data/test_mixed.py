"""Prompts of several sources: each row kept, whatever kind its file is of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from strop.data.formats import load_dataset
from strop.data.mixed import load_prompts


def write(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three problems with an answer, four requests with a completion and a row that is none."""
    problems = [{"prompt": f"{i}+1?", "answer": str(i + 1)} for i in range(3)]
    requests: list[dict[str, Any]] = [{"prompt": f"Say {i}.", "completion": f"{i}."} for i in range(4)]
    return [write(tmp_path, "problems", problems), write(tmp_path, "requests", [*requests, {"answer": "lost"}])]


@pytest.mark.parametrize("order", [1, -1])
def test_no_prompt_is_lost_for_what_the_other_file_is(files: list[str], order: int) -> None:
    """As rows to train on, one file's would be dropped."""
    paths = files[::order]
    found = load_prompts(paths)
    assert sorted(g.prompt_text for g in found.groups) == sorted(
        [f"{i}+1?" for i in range(3)] + [f"Say {i}." for i in range(4)]
    )
    assert len(load_dataset(paths).groups) < 7
    problems = [g for g in found.groups if "+" in g.prompt_text]
    assert [(g.row["answer"], len(g.completions)) for g in problems] == [("1", 0), ("2", 0), ("3", 0)]
    assert found.num_rows == 8 and found.num_dropped == 1
    assert set(found.columns) == {"prompt", "answer", "completion"}
    assert found.sha256 == load_dataset(paths).sha256 and found.files == tuple(paths)


def test_the_limit_is_of_all_and_one_path_is_read_as_ever(files: list[str]) -> None:
    assert [g.prompt_text for g in load_prompts(files, limit=4).groups] == ["0+1?", "1+1?", "2+1?", "Say 0."]
    assert len(load_prompts(files, limit=3).groups) == 3
    assert load_prompts(files[:1]) == load_dataset(files[0])
    assert load_prompts(files).kind == load_dataset(files[0]).kind
    assert load_prompts(files).shape == "plain prompt and plain prompt and completion"
