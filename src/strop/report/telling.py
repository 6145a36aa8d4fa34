"""What a report says, as plain JSON values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from strop.report.read import read_run
from strop.report.records import Figure, Run
from strop.report.verdict import alerts, evaluated, state_sentence, verdict


def told(run_dirs: Sequence[Path], report: Path) -> dict[str, Any]:
    """The report's path, and of each run its state, verdict, alerts and evaluations; no file is written."""
    return {"report": str(report), "runs": [{"run": str(path), **_run(read_run(path))} for path in run_dirs]}


def _run(run: Run) -> dict[str, Any]:
    claim = verdict(run)
    return {
        "name": run.name,
        "state": run.state,
        "story": state_sentence(run),
        "verdict": {"tone": claim.tone, "sentence": claim.sentence, "caveats": list(claim.caveats)},
        "alerts": [{"kind": e.kind, "stage": e.stage, "step": e.step, "text": e.text} for e in alerts(run)],
        "evaluation": {
            s.name: {name: _figure(figure) for name, figure in s.metrics.items()} for s in evaluated(run.stages)
        },
        "problems": list(run.problems),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    known = dataclasses.asdict(figure)
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in known.items()}
