"""The files a run writes while it goes: metrics.jsonl, events.jsonl, status.json.

One JSON object a line, each line written whole and flushed, so that a killed run loses at most
its last line; a torn last line is cut when the run is opened again. Numbers that are not finite
become null: JSON has no NaN, and a gap in a curve is the truth.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATUS_EVERY_S = 1.0
"""status.json is rewritten at most this often while a stage steps."""


class Journal:
    """Appends to a run directory's files. Opening it cuts torn last lines."""

    def __init__(self, run_dir: Path) -> None:
        self._dir = run_dir
        self._status: dict[str, Any] = {"state": "running", "stage": None, "step": 0, "steps": 0}
        self._written_s = -math.inf
        self.stepped = False
        """Whether a step was recorded since the journal was opened."""
        for name in ("metrics.jsonl", "events.jsonl"):
            _cut_torn_line(run_dir / name)

    def metrics(self, stage: str, step: int, values: Mapping[str, float]) -> dict[str, Any]:
        """Append one step's line and return it."""
        line = {"stage": stage, "step": step, "time": round(time.time(), 3), **finite(values)}
        self._append("metrics.jsonl", line)
        self.stepped = True
        return line

    def event(self, kind: str, text: str, *, stage: str | None, step: int | None = None, **extra: Any) -> None:
        """Append a sentence with its kind, stage and step."""
        line = {"time": round(time.time(), 3), "stage": stage, "step": step, "kind": kind, "text": text}
        self._append("events.jsonl", {**line, **extra})

    def status(self, *, state: str, stage: str | None, step: int = 0, steps: int = 0, error: str | None = None) -> None:
        """Say where the run is; at most once a second while nothing but the step changes."""
        new = {"state": state, "stage": stage, "step": step, "steps": steps, "pid": os.getpid(), "error": error}
        same_phase = (self._status["state"], self._status["stage"]) == (state, stage)
        self._status = new
        if same_phase and time.monotonic() - self._written_s < STATUS_EVERY_S:
            return
        self._written_s = time.monotonic()
        write_json(self._dir / "status.json", {**new, "updated": round(time.time(), 3)})

    def end(self, state: str, error: str | None = None) -> None:
        """Write the closing status, at the step the run had reached."""
        closing = {**self._status, "state": state, "error": error, "pid": os.getpid()}
        write_json(self._dir / "status.json", {**closing, "updated": round(time.time(), 3)})

    def rewind(self, stage: str, step: int) -> None:
        """Drop the metric lines of `stage` from `step` on: they will be written again."""
        path = self._dir / "metrics.jsonl"
        if not path.exists():
            return
        kept = [line for line in path.read_text("utf-8").splitlines() if not _is_from(line, stage, step)]
        replace_text(path, "".join(line + "\n" for line in kept))

    def adopt(self, other: Path, stage: str) -> None:
        """Copy another run's metric lines of a stage, for the curves."""
        path = other / "metrics.jsonl"
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            if _is_from(line, stage, 0):
                self._append("metrics.jsonl", json.loads(line))

    def _append(self, name: str, value: Mapping[str, Any]) -> None:
        with open(self._dir / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same numbers, with null for NaN and infinities."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole: a reader sees the old one or the new one."""
    replace_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a text file whole, through a temporary file beside it that is fsynced and renamed."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_json(path: Path) -> Any:
    """The value in a JSON file; null where there is no such file.

    Raises: ValueError naming the file when it is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error}); remove it or restore it from a copy") from error


def _is_from(line: str, stage: str, step: int) -> bool:
    value = json.loads(line)
    return bool(value["stage"] == stage and value["step"] >= step)


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    if end < len(whole):
        os.truncate(path, end)
