"""Alarms of the monitor that still speak against a model.

An alarm of a stage is closed where the stage ended with the model of an earlier step: the monitor rolled back,
or stopped early. One that only stopped the stage leaves the model that it was about, and stays open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.recipes.journal import read_json
from strop.recipes.shipping.left import Left
from strop.recipes.watching import ENDED, FILE
from strop.train.metrics import EVENTS, read_jsonl

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm: where it was raised, what it says, and the step of the model that was kept, if it is closed."""

    stage: str
    step: int
    code: str
    text: str
    kept: int | None = None

    @property
    def is_open(self) -> bool:
        return self.kept is None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"stage": self.stage, "step": self.step, "code": self.code, "text": self.text, "kept_step": self.kept}


def alarms_of(left: Left, stage: str) -> list[Alarm]:
    """The monitor's alarms of a stage and of all it came from, open and closed.

    Read from events.jsonl; of a stage taken from another run, whose events are there, from its monitor.json.
    """
    path = left.run_dir / EVENTS
    lines = read_jsonl(path) if path.is_file() else []
    return [alarm for name in left.ancestors(stage)[::-1] for alarm in _of_stage(left, name, lines)]


def _of_stage(left: Left, name: str, lines: Sequence[Line]) -> list[Alarm]:
    told: dict[tuple[str, int, str], Alarm] = {}
    before = told
    kept: int | None = None
    for line in [line for line in lines if line.get("stage") == name]:
        kind, step = line.get("kind"), line.get("step")
        if kind == "start":
            told, before, kept = {}, told, None
        elif kind == "resume":  # what was said of steps that are done again is said again
            told = {key: alarm for key, alarm in before.items() if alarm.step <= int(step or 0)}
        elif kind == "alarm" and line.get("severity") == "alarm":
            found = Alarm(name, int(step or 0), str(line.get("code", "")), str(line.get("text", "")))
            told[(found.code, found.step, str(line.get("subject", "")))] = found
        elif str(line.get("text", "")).startswith(ENDED) and isinstance(step, int):
            kept = step
    record = read_json(left.run_dir / "stages" / name / FILE) or {}
    for row in record.get("evaluations", ()):
        for a in row.get("alerts", ()):
            if a.get("severity") == "alarm":
                text = " ".join(str(a.get(key, "")) for key in ("what", "cause", "fix") if a.get(key))
                key = (str(a.get("code", "")), int(a.get("step", 0)), str(a.get("subject", "")))
                told.setdefault(key, Alarm(name, key[1], key[0], text))
    kept = record.get("kept") if kept is None else kept
    return [_closed(alarm, kept) for alarm in told.values()]


def _closed(alarm: Alarm, kept: int | None) -> Alarm:
    """The alarm with the step that closed it, where the model left is of a step before it."""
    closed = kept is not None and kept < alarm.step
    return Alarm(alarm.stage, alarm.step, alarm.code, alarm.text, kept if closed else None)
