"""Run directories: made, found, locked, listed.

`runs/<name>-<time>-<id>/` has config.yaml (every setting), status.json, summary.json,
metrics.jsonl, events.jsonl, report.html and `stages/<stage name>/`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.recipes.journal import read_json

try:
    import fcntl
except ImportError:  # Windows has no flock; there two processes on one run are not noticed
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class RunState:
    """One line of `strop ls`. `state` is "dead" for a run whose process went without a word."""

    path: Path
    name: str
    state: str
    stage: str | None
    step: int
    steps: int
    updated: float | None


def create(runs: Path, name: str, config: str) -> Path:
    """A new run directory with its config.yaml; never one that exists.

    Raises: ValueError if the folder cannot be written.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            path = runs / f"{name}-{stamp}-{secrets.token_hex(2)}"
            try:
                path.mkdir()
                break
            except FileExistsError:
                continue
        (path / "stages").mkdir()
        (path / "config.yaml").write_text(config, "utf-8")
    except OSError as error:
        raise ValueError(f"{runs}: cannot make a run directory here ({error.strerror}); set runs=FOLDER") from error
    return path


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the run directory's lock; it goes with the process, however that ends.

    Raises: ValueError if another process holds it.
    """
    with open(run_dir / ".lock", "a+", encoding="ascii") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise ValueError(f"{run_dir}: process {holder} is at this run; wait for it, or stop it first") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory."""
    return (path / "config.yaml").is_file() and (path / "stages").is_dir()


def states(runs: Path) -> list[RunState]:
    """The runs in a folder, the newest first."""
    found = [p for p in runs.iterdir() if is_run(p)] if runs.is_dir() else []
    return sorted((_state(p) for p in found), key=lambda s: s.updated or 0.0, reverse=True)


def _state(path: Path) -> RunState:
    try:
        status: dict[str, Any] = read_json(path / "status.json") or {}
    except ValueError:
        status = {}
    state = str(status.get("state", "unknown"))
    if state == "running" and not _alive(status.get("pid")):
        state = "dead"
    updated = status.get("updated", path.stat().st_mtime)
    step, steps = int(status.get("step") or 0), int(status.get("steps") or 0)
    return RunState(path, path.name, state, status.get("stage"), step, steps, updated)


def _alive(pid: Any) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True
