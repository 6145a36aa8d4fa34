"""A run directory as plain values, whatever state it is in.

Nothing here raises on a bad file: a run that failed is the one whose report is needed most. What
is missing, torn or of an unexpected shape is left out and said in `Run.problems`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strop.types import Content, group_from_json

Points = tuple[tuple[int, float], ...]
"""(step, value), steps ascending."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value with its 95 % interval and the number of prompts or rows it rests on."""

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
class Event:
    """A line of events.jsonl."""

    kind: str
    text: str
    time: float | None
    stage: str
    step: int | None
    reason: str


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
    problems: tuple[str, ...] = ()


def read_run(run_dir: Path) -> Run:
    """The run in a directory.

    Raises: ValueError if there is no such directory.
    """
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir}: no such run directory; `strop ls` lists the runs")
    problems: list[str] = []
    summary = _read_object(run_dir / "summary.json", problems)
    status = _read_object(run_dir / "status.json", problems)
    events = tuple(_events(run_dir / "events.jsonl", problems))
    curves = _curves(run_dir / "metrics.jsonl", problems)
    samples = _samples(run_dir / "stages", problems)
    return Run(
        name=_text(summary.get("name")) or run_dir.resolve().name,
        state=_text(status.get("state")) or _text(summary.get("state")) or "unknown",
        stage=_text(status.get("stage")),
        step=_whole(status.get("step")),
        steps=_whole(status.get("steps")),
        updated=_number(status.get("updated")),
        error=_text(status.get("error")) or _text(summary.get("error")),
        command=_command(summary.get("command")),
        seed=_text(summary.get("seed")),
        version=_text(summary.get("version")),
        seconds=_number(summary.get("seconds")),
        stages=_stages(run_dir, summary, [*(e.stage for e in events), *curves, *samples], events),
        lineage=tuple(_lineage(summary.get("lineage"))),
        difference=tuple(_text(line) for line in _list(summary.get("difference"))),
        config=_read_text(run_dir / "config.yaml", problems),
        curves=curves,
        events=events,
        samples=samples,
        problems=tuple(problems),
    )


def _stages(
    run_dir: Path, summary: Mapping[str, Any], seen: Sequence[str], events: Sequence[Event]
) -> tuple[StageRun, ...]:
    """The summary's stages, then those that only left traces (a run that died before its summary)."""
    told = {s.name: s for s in (_stage(value, events) for value in _list(summary.get("stages"))) if s.name}
    for name in seen:
        if name and name not in told:
            told[name] = StageRun(name=name, kind=_kind_on_disk(run_dir, name))
    return tuple(told.values())


def _stage(value: Any, events: Sequence[Event]) -> StageRun:
    stage = _mapping(value)
    name = _text(stage.get("name"))
    return StageRun(
        name=name,
        kind=_text(stage.get("kind")),
        state=_text(stage.get("state")),
        seconds=_number(stage.get("seconds")),
        metrics=_figures(stage.get("metrics")),
        artifacts=_texts(stage.get("artifacts")),
        inputs=_texts(stage.get("inputs")),
        data=_data_use(stage.get("data"), [e for e in events if e.kind == "drop" and e.stage == name]),
        hash=_text(stage.get("hash")),
        phases=_numbers(stage.get("phases")),
        peak_memory_mb=_number(stage.get("peak_memory_mb")),
    )


def _kind_on_disk(run_dir: Path, name: str) -> str:
    """The kind in stages/NAME/stage.json. The name is compared, never joined to a path."""
    for path in _stage_dirs(run_dir / "stages"):
        if path.name == name:
            return _text(_read_object(path / "stage.json", []).get("kind"))
    return ""


def _figures(value: Any) -> dict[str, Figure]:
    figures = {}
    for name, entry in _mapping(value).items():
        known = _mapping(entry) or {"value": entry}
        number = _number(known.get("value"))
        if number is not None:
            figures[name] = Figure(number, _number(known.get("low")), _number(known.get("high")), _whole(known.get("n")))
    return figures


def _data_use(value: Any, drops: Sequence[Event]) -> DataUse | None:
    data = _mapping(value)
    if not data:
        return None
    dropped = {name: round(count) for name, count in _numbers(data.get("dropped")).items()}
    examples = {e.reason: e.text for e in reversed(drops) if e.reason} | _texts(data.get("examples"))
    return DataUse(
        rows=_whole(data.get("rows")),
        kept=_whole(data.get("kept")),
        dropped=dropped,
        examples={reason: examples[reason] for reason in dropped if reason in examples},
        kind=_text(data.get("kind")),
        sha256=_text(data.get("sha256")),
    )


def _lineage(value: Any) -> Iterator[Mapping[str, str]]:
    for entry in _list(value):
        yield _texts(entry) if isinstance(entry, Mapping) else {"name": _text(entry)}


def _curves(path: Path, problems: list[str]) -> dict[str, dict[str, Points]]:
    """Every numeric series of metrics.jsonl by stage; a step written twice (a resume) counts once, the last.

    A null is a value that was not finite (the journal writes it so) and stands here as nan.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    for line in _read_lines(path, problems):
        step = _whole(line.get("step"))
        if step is None:
            continue
        stage = found.setdefault(_text(line.get("stage")), {})
        for name, value in line.items():
            number = math.nan if value is None else _number(value)
            if number is not None and name not in ("step", "time", "stage"):
                stage.setdefault(name, {})[step] = number
    return {
        stage: {name: tuple(sorted(points.items())) for name, points in series.items()}
        for stage, series in found.items()
    }


def _events(path: Path, problems: list[str]) -> Iterator[Event]:
    for line in _read_lines(path, problems):
        yield Event(
            kind=_text(line.get("kind")) or "note",
            text=_text(line.get("text")),
            time=_number(line.get("time")),
            stage=_text(line.get("stage")),
            step=_whole(line.get("step")),
            reason=_text(line.get("reason")),
        )


def _samples(stages_dir: Path, problems: list[str]) -> dict[str, tuple[Sampled, ...]]:
    found = {}
    for folder in _stage_dirs(stages_dir):
        path = folder / "samples.jsonl"
        if path.is_file():
            bad: list[str] = []
            groups = tuple(s for line in _read_lines(path, problems) if (s := _sampled(line, bad)))
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
        Answer(c.text, _finite(c.score), _verdicts(c.rewards), _texts(c.reasons), _text(c.finish))
        for c in group.completions
    )
    return Sampled(group.prompt, answers)


def _verdicts(value: Any) -> dict[str, float | None]:
    return {_text(name): _number(score) for name, score in _mapping(value).items()}


def _stage_dirs(stages_dir: Path) -> list[Path]:
    return sorted(p for p in stages_dir.iterdir() if p.is_dir()) if stages_dir.is_dir() else []


def _read_text(path: Path, problems: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        problems.append(f"{path.name} {'is missing' if isinstance(error, FileNotFoundError) else 'cannot be read'}")
        return ""


def _read_object(path: Path, problems: list[str]) -> Mapping[str, Any]:
    text = _read_text(path, problems)
    if not text:
        return {}
    value = _parse(text)
    if not isinstance(value, Mapping):
        problems.append(f"{path.name} is torn or not a JSON object, and was left out")
        return {}
    return value


def _read_lines(path: Path, problems: list[str]) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a file, one a line; lines that are none are counted into `problems`."""
    torn: list[int] = []
    name = path.name if path.parent.parent.name != "stages" else f"stages/{path.parent.name}/{path.name}"
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for i, line in enumerate(file, start=1):
                value = _parse(line) if line.strip() else {}
                if not isinstance(value, Mapping):
                    torn.append(i)
                elif value:
                    yield value
    except OSError as error:
        problems.append(f"{name} {'is missing' if isinstance(error, FileNotFoundError) else 'cannot be read'}")
    if torn:
        problems.append(f"{name}: {len(torn)} line(s) torn or not JSON objects, left out; the first is line {torn[0]}")


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _command(value: Any) -> str:
    return " ".join(_text(part) for part in value) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, Mapping | list) else str(value)


def _number(value: Any) -> float | None:
    """The value if it is a number (nan and infinities are: they are what a broken run recorded)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _finite(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _finite(value)
    return None if number is None else round(number)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> dict[str, str]:
    return {str(name): text for name, entry in _mapping(value).items() if (text := _text(entry))}


def _numbers(value: Any) -> dict[str, float]:
    pairs = ((str(name), _finite(entry)) for name, entry in _mapping(value).items())
    return {name: number for name, number in pairs if number is not None}
