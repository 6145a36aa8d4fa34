"""A newcomer's first hour: every command of docs/getting-started.md, in order, in an empty folder, by a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/getting-started.md"
WRITTEN = "runs/dpo-20260101-120000-ab12"
"""The run that the page names; the newest of the folder stands for it."""
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"in `(my_\w+\.py)`:\n\n$")
"""What stands before a block of Python that is a file."""


def steps() -> list[tuple[str, str]]:
    """What the reader does: `sh` a line for the shell, `py` a script, or a file's name and its text."""
    found: list[tuple[str, str]] = []
    text = PAGE.read_text("utf-8")
    for match in FENCE.finditer(text):
        named = FILE.search(text[: match.start()])
        if match[1] == "python":
            found.append((named[1] if named else "py", match[2]))
        elif not match[1] and "git clone" not in match[2]:  # the package is installed already
            found += [("sh", line) for line in match[2].splitlines()]
    return found


def done(kind: str, text: str, folder: Path) -> str:
    """One step; its output, or what went wrong."""
    newest = max(folder.glob("runs/dpo-*"), key=lambda run: run.stat().st_mtime, default=None)
    text = text.replace(WRITTEN, str(newest.relative_to(folder))) if newest else text
    if kind not in ("sh", "py"):
        (folder / kind).write_text(text)
        return ""
    words = ["bash", "-c", text] if kind == "sh" else [sys.executable, "-c", text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    alone = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "CI": "1"}
    result = subprocess.run(words, cwd=folder, env=alone, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, f"{text}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout


@pytest.mark.slow
def test_every_command_runs_in_an_empty_folder(tmp_path: Path) -> None:
    outputs = {text: done(kind, text, tmp_path) for kind, text in steps()}
    asked = next(out for text, out in outputs.items() if text.startswith("strop sample"))
    assert "<answer>" in asked
    runs = {run.name.split("-")[0]: run for run in (tmp_path / "runs").iterdir() if not run.name.startswith(".")}
    assert {"quickstart", "sft", "dpo", "grpo", "align", "eval"} <= set(runs)
    assert all((run / "report.html").stat().st_size > 10_000 for run in runs.values())
    assert (tmp_path / "my-model/model.safetensors").is_file() and (tmp_path / "my.yaml").is_file()


def test_the_page_s_steps_are_found() -> None:
    kinds = [kind for kind, _ in steps()]
    lines = [text for kind, text in steps() if kind == "sh"]
    assert kinds.count("py") == 2 and kinds.count("my_rewards.py") == 1
    assert len(lines) > 20 and all(line.split(" ")[0] in ("strop", "cp") for line in lines)
