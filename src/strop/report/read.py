"""A run directory as plain values, whatever state it is in.

Nothing here raises on a bad file: a run that failed is the one whose report is needed most. What
is missing, torn or of an unexpected shape is left out and said in `Run.problems`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from strop.report.goals import goals_of
from strop.report.loose import (
    finite_of,
    list_of,
    mapping_of,
    number_of,
    numbers_of,
    read_lines,
    read_object,
    read_text,
    text_of,
    texts_of,
    whole_of,
)
from strop.report.records import (
    DataUse,
    Event,
    Gate,
    Licence,
    Overlap,
    Points,
    Run,
    Shown,
    StageRun,
)
from strop.report.traces import calibration_of, figures_of, gate_of, gates_of, looks_of, samples_of, stage_dirs


def read_run(run_dir: Path) -> Run:
    """The run in a directory.

    Raises: ValueError if there is no such directory.
    """
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir}: no such run directory; `strop ls` lists the runs")
    problems: list[str] = []
    summary = read_object(run_dir / "summary.json", problems)
    status = read_object(run_dir / "status.json", problems)
    events = tuple(_events(run_dir / "events.jsonl", problems))
    curves = _curves(run_dir / "metrics.jsonl", problems)
    samples = samples_of(run_dir / "stages", problems)
    config = read_text(run_dir / "config.yaml", problems)
    seen = [*(e.stage for e in events), *curves, *(folder.name for folder in stage_dirs(run_dir / "stages"))]
    return Run(
        name=text_of(summary.get("name")) or run_dir.resolve().name,
        folder=str(run_dir.resolve()),
        state=text_of(status.get("state")) or text_of(summary.get("state")) or "unknown",
        stage=text_of(status.get("stage")),
        step=whole_of(status.get("step")),
        steps=whole_of(status.get("steps")),
        updated=number_of(status.get("updated")),
        error=text_of(status.get("error")) or text_of(summary.get("error")),
        command=_command(summary.get("command")),
        seed=text_of(summary.get("seed")),
        version=text_of(summary.get("version")),
        seconds=finite_of(summary.get("seconds")),
        stages=_whole(
            _stages(run_dir, summary, seen, events),
            goals_of(config, samples),
            gates_of(run_dir / "stages", problems),
        ),
        lineage=tuple(_lineage(summary.get("lineage"))),
        difference=tuple(text_of(line) for line in list_of(summary.get("difference"))),
        left_out=tuple(text_of(line) for line in list_of(summary.get("left_out"))),
        config=config,
        curves=with_evaluations(curves, events),
        events=events,
        samples=samples,
        looks=looks_of(run_dir / "stages", problems),
        calibration=calibration_of(run_dir / "stages", problems),
        gate=gate_of(run_dir / "ship", problems),
        licences=_licences(summary.get("licences")),
        problems=tuple(problems),
    )


def _stages(
    run_dir: Path, summary: Mapping[str, Any], seen: Sequence[str], events: Sequence[Event]
) -> tuple[StageRun, ...]:
    """The summary's stages, then those that only left traces (a run that died before its summary)."""
    told = {s.name: s for s in (_stage(value, events) for value in list_of(summary.get("stages"))) if s.name}
    on_disk = {folder.name: folder / "stage.json" for folder in stage_dirs(run_dir / "stages")}
    for name in seen:
        if name and name not in told:
            entry = read_object(on_disk[name], []) if name in on_disk else {}  # its name is never joined to a path
            told[name] = _stage({**entry, "name": name}, events)
    return tuple(told.values())


def _whole(
    stages: Sequence[StageRun], goals: Mapping[str, tuple[str, ...]], gates: Mapping[str, Gate]
) -> tuple[StageRun, ...]:
    """The stages with what stands in their folders."""
    return tuple(replace(s, rewards=goals.get(s.name, ()), gate=gates.get(s.name)) for s in stages)


def _stage(value: Any, events: Sequence[Event]) -> StageRun:
    stage = mapping_of(value)
    name = text_of(stage.get("name"))
    return StageRun(
        name=name,
        kind=text_of(stage.get("kind")),
        state=text_of(stage.get("state")),
        seconds=finite_of(stage.get("seconds")),
        metrics=figures_of(stage.get("metrics")),
        artifacts=texts_of(stage.get("artifacts")),
        inputs=texts_of(stage.get("inputs")),
        data=_data_use(stage.get("data"), [e for e in events if e.kind == "drop" and e.stage == name]),
        hash=text_of(stage.get("hash")),
        phases=numbers_of(stage.get("phases")),
        peak_memory_mb=finite_of(stage.get("peak_memory_mb")),
        chosen=text_of(mapping_of(stage.get("inputs")).get("best")).removeprefix("@"),
    )


def _data_use(value: Any, drops: Sequence[Event]) -> DataUse | None:
    data = mapping_of(value)
    if not data:
        return None
    dropped = {name: round(count) for name, count in numbers_of(data.get("dropped")).items()}
    examples = {e.reason: e.text for e in reversed(drops) if e.reason} | texts_of(data.get("examples"))
    return DataUse(
        rows=whole_of(data.get("rows")),
        kept=whole_of(data.get("kept")),
        dropped=dropped,
        examples={reason: examples[reason] for reason in dropped if reason in examples},
        kind=text_of(data.get("kind")),
        sha256=text_of(data.get("sha256")),
        overlap=_overlaps(data.get("overlap")),
    )


def _overlaps(value: Any) -> tuple[Overlap, ...] | None:
    """What a check of evaluation rows against training data found; None where there was none."""
    rows = [value] if isinstance(value, Mapping) else list_of(value)
    if value is None or not isinstance(value, Mapping | list):
        return None
    return tuple(_overlap(row) for row in map(mapping_of, rows) if row)


def _overlap(row: Mapping[str, Any]) -> Overlap:
    examples = (texts_of(entry) for entry in list_of(row.get("examples")))
    return Overlap(
        stage=text_of(row.get("stage")),
        path=text_of(row.get("path")),
        words=whole_of(row.get("words")),
        prompts=whole_of(row.get("prompts")),
        rows=whole_of(row.get("rows")),
        same=whole_of(row.get("same")),
        shared=whole_of(row.get("shared")),
        examples=tuple(": ".join(filter(None, (e.get("judged"), e.get("words")))) for e in examples if e),
    )


def _licences(value: Any) -> dict[str, Licence]:
    """By the name of a model or a dataset."""
    found = {}
    for name, entry in mapping_of(value).items():
        told = mapping_of(entry) or {"licence": entry}
        found[str(name)] = Licence(str(name), text_of(told.get("licence")) or "unknown", text_of(told.get("source")))
    return found


def _lineage(value: Any) -> Iterator[Mapping[str, str]]:
    for entry in list_of(value):
        yield texts_of(entry) if isinstance(entry, Mapping) else {"name": text_of(entry)}


def _curves(path: Path, problems: list[str]) -> dict[str, dict[str, Points]]:
    """Every numeric series of metrics.jsonl by stage; a step written twice (a resume) counts once, the last.

    A null is a value that was not finite (the journal writes it so) and stands here as nan.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    for line in read_lines(path, problems):
        step = whole_of(line.get("step"))
        if step is None:
            continue
        stage = found.setdefault(text_of(line.get("stage")), {})
        for name, value in line.items():
            number = math.nan if value is None else number_of(value)
            if number is not None and name not in ("step", "time", "stage"):
                stage.setdefault(name, {})[step] = number
    return {
        stage: {name: tuple(sorted(points.items())) for name, points in series.items()}
        for stage, series in found.items()
    }


def with_evaluations(
    curves: Mapping[str, Mapping[str, Points]], events: Sequence[Event]
) -> dict[str, dict[str, Points]]:
    """The curves with what was measured on held-out rows in between, which stands in the events.

    Counted by steps done, so that a stage's first evaluation is at 0 and its last at the number of its steps.
    """
    found = {stage: dict(series) for stage, series in curves.items()}
    for event in events:
        if event.kind != "evaluate" or event.step is None or not event.stage:
            continue
        stage = found.setdefault(event.stage, {})
        for told, value in event.figures.items():
            name = told if told.startswith("eval_") else f"eval/{told}"
            points = {**dict(stage.get(name, ())), event.step: value}
            stage[name] = tuple(sorted(points.items()))
    return found


def _events(path: Path, problems: list[str]) -> Iterator[Event]:
    for line in read_lines(path, problems):
        yield Event(
            kind=text_of(line.get("kind")) or "note",
            text=text_of(line.get("text")),
            time=number_of(line.get("time")),
            stage=text_of(line.get("stage")),
            step=whole_of(line.get("step")),
            reason=text_of(line.get("reason")),
            traceback=text_of(line.get("traceback")),
            code=text_of(line.get("code")),
            cause=text_of(line.get("cause")),
            fix=text_of(line.get("fix")),
            figures=numbers_of(line.get("metrics")),
            examples=tuple(_shown(line.get("examples"))),
        )


def _shown(value: Any) -> Iterator[Shown]:
    for entry in map(mapping_of, list_of(value)):
        yield Shown(text_of(entry.get("prompt")), text_of(entry.get("completion")))


def _command(value: Any) -> str:
    return " ".join(text_of(part) for part in value) if isinstance(value, list) else text_of(value)
