"""A run directory as plain values, whatever state it is in.

Nothing here raises on a bad file: a run that failed is the one whose report is needed most. What
is missing, torn or of an unexpected shape is left out and said in `Run.problems`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from strop.types import Content, group_from_json

Points = tuple[tuple[int, float], ...]
"""(step, value), steps ascending."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value with its 95 % interval and the number of prompts or rows it rests on.

    What `evaluate.statistics.Measure` was before it became JSON, without importing numpy. The value
    is nan where nothing could be scored.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class DataUse:
    """The rows a stage read: how many, how many were dropped and why, and their sha256."""

    rows: int | None
    kept: int | None
    dropped: Mapping[str, int]
    examples: Mapping[str, str]
    kind: str
    sha256: str


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage as summary.json tells it; empty values where it does not."""

    name: str
    kind: str = ""
    state: str = ""
    seconds: float | None = None
    metrics: Mapping[str, Figure] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    data: DataUse | None = None
    hash: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A prompt and an answer that show what an alert means."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a stage's monitor measured at a step."""

    step: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Event:
    """A line of events.jsonl; `code` is the detector's that raised it, if one did."""

    kind: str
    text: str
    time: float | None
    stage: str
    step: int | None
    reason: str
    traceback: str = ""
    code: str = ""
    examples: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled completion with what the rewards said of it."""

    text: str
    score: float | None
    rewards: Mapping[str, float | None]
    reasons: Mapping[str, str]
    finish: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """A prompt and the completions sampled for it."""

    prompt: Content
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """All that a report is made of."""

    name: str
    state: str = "unknown"
    stage: str = ""
    step: int | None = None
    steps: int | None = None
    updated: float | None = None
    error: str = ""
    command: str = ""
    seed: str = ""
    version: str = ""
    seconds: float | None = None
    stages: tuple[StageRun, ...] = ()
    lineage: tuple[Mapping[str, str], ...] = ()
    difference: tuple[str, ...] = ()
    config: str = ""
    curves: Mapping[str, Mapping[str, Points]] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    samples: Mapping[str, tuple[Sampled, ...]] = field(default_factory=dict)
    looks: Mapping[str, tuple[Look, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


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
    samples = _samples(run_dir / "stages", problems)
    return Run(
        name=text_of(summary.get("name")) or run_dir.resolve().name,
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
        stages=_stages(run_dir, summary, [*(e.stage for e in events), *curves, *samples], events),
        lineage=tuple(_lineage(summary.get("lineage"))),
        difference=tuple(text_of(line) for line in list_of(summary.get("difference"))),
        config=read_text(run_dir / "config.yaml", problems),
        curves=curves,
        events=events,
        samples=samples,
        looks=_looks(run_dir / "stages", problems),
        problems=tuple(problems),
    )


def _stages(
    run_dir: Path, summary: Mapping[str, Any], seen: Sequence[str], events: Sequence[Event]
) -> tuple[StageRun, ...]:
    """The summary's stages, then those that only left traces (a run that died before its summary)."""
    told = {s.name: s for s in (_stage(value, events) for value in list_of(summary.get("stages"))) if s.name}
    on_disk = {folder.name: folder / "stage.json" for folder in _stage_dirs(run_dir / "stages")}
    for name in seen:
        if name and name not in told:
            entry = read_object(on_disk[name], []) if name in on_disk else {}  # its name is never joined to a path
            told[name] = _stage({**entry, "name": name}, events)
    return tuple(told.values())


def _stage(value: Any, events: Sequence[Event]) -> StageRun:
    stage = mapping_of(value)
    name = text_of(stage.get("name"))
    return StageRun(
        name=name,
        kind=text_of(stage.get("kind")),
        state=text_of(stage.get("state")),
        seconds=finite_of(stage.get("seconds")),
        metrics=_figures(stage.get("metrics")),
        artifacts=texts_of(stage.get("artifacts")),
        inputs=texts_of(stage.get("inputs")),
        data=_data_use(stage.get("data"), [e for e in events if e.kind == "drop" and e.stage == name]),
        hash=text_of(stage.get("hash")),
        phases=numbers_of(stage.get("phases")),
        peak_memory_mb=finite_of(stage.get("peak_memory_mb")),
    )


def _figures(value: Any) -> dict[str, Figure]:
    figures = {}
    for name, entry in mapping_of(value).items():
        known = mapping_of(entry) or {"value": entry}
        number = math.nan if known.get("value") is None else number_of(known["value"])
        if number is not None:
            figures[name] = Figure(
                number, number_of(known.get("low")), number_of(known.get("high")), whole_of(known.get("n"))
            )
    return figures


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
    )


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
            examples=tuple(_shown(line.get("examples"))),
        )


def _shown(value: Any) -> Iterator[Shown]:
    for entry in map(mapping_of, list_of(value)):
        yield Shown(text_of(entry.get("prompt")), text_of(entry.get("completion")))


def _looks(stages_dir: Path, problems: list[str]) -> dict[str, tuple[Look, ...]]:
    """What each stage's monitor measured, by step."""
    found = {}
    for folder in _stage_dirs(stages_dir):
        if not (folder / "monitor.json").is_file():
            continue
        rows = list_of(read_object(folder / "monitor.json", problems).get("evaluations"))
        looks = [(whole_of(row.get("step")), _figures(row.get("figures"))) for row in map(mapping_of, rows)]
        found[folder.name] = tuple(Look(step, figures) for step, figures in looks if step is not None)
    return found


def _samples(stages_dir: Path, problems: list[str]) -> dict[str, tuple[Sampled, ...]]:
    found = {}
    for folder in _stage_dirs(stages_dir):
        path = folder / "samples.jsonl"
        if path.is_file():
            bad: list[str] = []
            groups = tuple(s for line in read_lines(path, problems) if (s := _sampled(line, bad)))
            if bad:
                problems.append(f"stages/{folder.name}/samples.jsonl: {len(bad)} line(s) left out; the first: {bad[0]}")
            found[folder.name] = groups
    return found


def _sampled(line: Mapping[str, Any], bad: list[str]) -> Sampled | None:
    try:
        group = group_from_json(line)
    except (ValueError, TypeError) as error:
        bad.append(str(error))
        return None
    answers = tuple(
        Answer(c.text, finite_of(c.score), _verdicts(c.rewards), texts_of(c.reasons), text_of(c.finish))
        for c in group.completions
    )
    return Sampled(group.prompt, answers)


def _verdicts(value: Any) -> dict[str, float | None]:
    return {text_of(name): number_of(score) for name, score in mapping_of(value).items()}


def _stage_dirs(stages_dir: Path) -> list[Path]:
    return sorted(p for p in stages_dir.iterdir() if p.is_dir()) if stages_dir.is_dir() else []


def _command(value: Any) -> str:
    return " ".join(text_of(part) for part in value) if isinstance(value, list) else text_of(value)
