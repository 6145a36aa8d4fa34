"""A stage's monitor at work: samples drawn, judged and written down, alerts told, the best model kept.

The stage's folder gets `monitor/step-000123.jsonl`, the samples of each evaluation, and `monitor.json`,
the figures and alerts of all of them. A checkpoint holds only which evaluations there were: the samples
are read back, so that a resumed run judges by the very numbers of the unbroken one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from strop.evaluate.sampled import as_line
from strop.evaluate.statistics import Measure
from strop.monitor.alerts import Alert
from strop.monitor.judge import Evaluation, Watch
from strop.monitor.samples import Snapshot, held_out, kept, snapshot
from strop.recipes.context import Context
from strop.recipes.monitor import LOOKS, Monitor
from strop.train.metrics import Kind, read_jsonl, write_json
from strop.types import Group, group_from_json

if TYPE_CHECKING:
    from torch import Tensor

FILE = "monitor.json"
FOLDER = "monitor"
ENDED = "the monitor ended the stage"
"""How the event begins that says so; its step is that of the model that is kept."""
KINDS: Mapping[str, Kind] = {"alarm": "alarm", "warning": "warning", "info": "note"}
"""What an alert is as an event."""

Ending = Literal["", "stop", "rollback"]
"""Whether, and how, the monitor ends the stage."""


@dataclass(slots=True)
class Monitoring:
    """One stage's monitor, and what a checkpoint carries of it.

    Attributes:
        draw: samples of the fixed prompts by the current policy, scored.
        steps, eval_every: the stage's.
        best: the step of the evaluation to roll back to; None before the first.
        ending: set once the monitor ends the stage.
        kept: then the step of the model that is left.
    """

    context: Context
    settings: Monitor
    draw: Callable[[], Sequence[Group]]
    steps: int
    eval_every: int
    watch: Watch
    weights: Mapping[str, float]
    best: int | None = None
    ending: Ending = ""
    kept: int | None = None
    seen: list[int] = field(default_factory=list)

    @property
    def every(self) -> int:
        """Steps between evaluations; 0 for none but the first and the last."""
        if self.settings.every is not None:
            return self.settings.every
        return self.eval_every or max(1, self.steps // LOOKS)

    def due(self, done: int) -> bool:
        """Whether samples are to be looked at after so many steps."""
        return done in (0, self.steps) or bool(self.every and done % self.every == 0)

    def observe(self, done: int) -> bool:
        """Draw, judge, tell and write down; whether this is the best evaluation so far."""
        groups = [replace(g, completions=tuple(map(kept, g.completions)), prompt_ids=None) for g in self.draw()]
        _write(self._samples(done), "".join(map(as_line, groups)))
        now = snapshot(done, groups, self.weights)
        last = done == self.steps
        evaluation = self.watch.observe(now, last=last)
        self.seen.append(done)
        self._record()
        for alert in evaluation.alerts:
            self._tell(alert)
        return self._decide(evaluation, done)

    def close(self, step: int) -> None:
        """Write down that the stage was ended, and of which step the model is that it leaves."""
        self.kept = step
        self._record()

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def plain(self) -> Mapping[str, Any]:
        return {"seen": list(self.seen), "best": self.best, "ending": self.ending}

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Read back what was seen until the checkpoint; later evaluations will be made again."""
        self.seen = [int(step) for step in plain["seen"]]
        self.best, self.ending = plain["best"], plain["ending"]
        rows = {int(row["step"]): row for row in json.loads(self._file.read_text("utf-8"))["evaluations"]}
        self.watch.evaluations = [Evaluation.from_json(rows[step]) for step in self.seen]
        self.watch.snapshots = [self._snapshot(step) for step in self.seen]

    def figures(self) -> dict[str, Measure]:
        """The last evaluation's figures, under monitor/."""
        rows = self.watch.evaluations
        return {f"monitor/{name}": m for name, m in rows[-1].figures.items()} if rows else {}

    @property
    def _file(self) -> Path:
        return self.context.stage_dir / FILE

    def _samples(self, step: int) -> Path:
        return self.context.stage_dir / FOLDER / f"step-{step:06d}.jsonl"

    def _snapshot(self, step: int) -> Snapshot:
        groups = [group_from_json(row) for row in read_jsonl(self._samples(step))]
        return snapshot(step, groups, self.weights)

    def _record(self) -> None:
        rows = [evaluation.to_json() for evaluation in self.watch.evaluations]
        kept = {} if self.kept is None else {"kept": self.kept}
        write_json(self._file, {"stage": self.context.name, "evaluations": rows, **kept})

    def _tell(self, alert: Alert) -> None:
        plain = alert.to_json()
        more = {key: plain[key] for key in ("code", "severity", "subject", "evidence", "cause", "fix", "examples")}
        self.context.event(KINDS[alert.severity], alert.text, step=alert.step, **more)

    def _decide(self, evaluation: Evaluation, done: int) -> bool:
        """Set `ending` where an alarm or the patience says so; whether this evaluation is the best so far."""
        alarmed = any(a.severity == "alarm" for a in evaluation.alerts)
        if alarmed and self.settings.on_alarm != "warn":
            self.ending = self.settings.on_alarm
            return False
        is_best = self._is_best(evaluation)
        self.best = done if is_best else self.best
        if self.settings.early_stop and self._stale() >= self.settings.early_stop:
            self.ending = "rollback"
        return is_best

    def _is_best(self, evaluation: Evaluation) -> bool:
        """Of the highest held-out reward; where nothing is held out, any that nothing speaks against."""
        values = [float(np.nanmean(s.means(held_out))) for s in self.watch.snapshots if s.has(held_out)]
        if values:
            return len(values) == 1 or values[-1] > max(values[:-1])
        return not any(finding.severity == "alarm" for finding in evaluation.findings)

    def _stale(self) -> int:
        """Evaluations since the best."""
        return len(self.seen) - 1 - self.seen.index(self.best) if self.best in self.seen else 0


def _write(path: Path, text: str) -> None:
    """Replace a file at once, so that a kill leaves no half of it."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, "utf-8")
    os.replace(part, path)
