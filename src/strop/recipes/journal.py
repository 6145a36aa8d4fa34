"""What a run writes while it goes, through `train.metrics.RunLog`: metrics, events, status.

Adds what a run needs beyond one log: a status at most once a second, the step it had reached when
it ended, and curves taken over from another run.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strop.train.metrics import METRICS, Kind, RunLog, State, read_jsonl

STATUS_EVERY_S = 1.0
"""status.json is rewritten at most this often while a stage steps."""


class Journal:
    """Appends to a run directory's files."""

    def __init__(self, run_dir: Path) -> None:
        self._log = RunLog(run_dir)
        self._at: tuple[str | None, int, int] = (None, 0, 0)
        self._written_s = -math.inf
        self.stepped = False
        """Whether a step was recorded since this was last set to false."""
        self.said: set[str] = set()
        """Notes of the whole run that were said already."""

    def metrics(self, stage: str, step: int, values: Mapping[str, float]) -> dict[str, Any]:
        """Append one step's line; returns what it says, for the display."""
        self._log.metrics(stage, step, values)
        self.stepped = True
        return {"stage": stage, "step": step, **finite(values)}

    def event(self, kind: Kind, text: str, *, stage: str | None, step: int | None = None, **extra: Any) -> None:
        """Append a sentence with its kind, stage and step."""
        self._log.event(kind, text, stage=stage, step=step, extra=extra)

    def running(self, stage: str, step: int = 0, steps: int = 0) -> None:
        """Say where the run is; at most once a second while only the step changes."""
        same_stage = self._at[0] == stage
        self._at = (stage, step, steps)
        if not same_stage or time.monotonic() - self._written_s >= STATUS_EVERY_S:
            self._status("running", None)

    def end(self, state: State, error: str | None = None) -> None:
        """Write the closing status, at the step the run had reached, and release the files."""
        self._status(state, error)
        self._log.close()

    def rewind(self, stage: str, step: int) -> int:
        """Drop the metric lines of `stage` from `step` on, which will be written again; how many there were."""
        return self._log.rewind(stage, step)

    def adopt(self, other: Path, stage: str) -> None:
        """Copy another run's metric lines of a stage, for the curves."""
        for line in read_jsonl(other / METRICS) if (other / METRICS).exists() else ():
            if line.get("stage") == stage:
                known = {k: v for k, v in line.items() if k not in ("stage", "step", "time", "nonfinite")}
                self._log.metrics(stage, int(line["step"]), known)

    def _status(self, state: State, error: str | None) -> None:
        self._written_s = time.monotonic()
        stage, step, steps = self._at
        self._log.status(state, stage=stage, step=step, steps=steps, error=error)


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same numbers, with null for NaN and infinities."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


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
