"""The traces that stages leave beside the summary: answers, a monitor's looks, a reward model's calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from strop.report.loose import (
    finite_of,
    list_of,
    mapping_of,
    number_of,
    read_lines,
    read_object,
    text_of,
    texts_of,
    whole_of,
)
from strop.report.records import Answer, Bin, Check, Figure, Gate, Look, Sampled
from strop.types import group_from_json

T = TypeVar("T")

SNAPSHOTS = 6
"""Looks of a monitor whose answers are shown side by side, the first and the last among them."""


def stage_dirs(stages_dir: Path) -> list[Path]:
    """The folders of the stages that left any, by name."""
    return sorted(p for p in stages_dir.iterdir() if p.is_dir()) if stages_dir.is_dir() else []


def samples_of(stages_dir: Path, problems: list[str]) -> dict[str, tuple[Sampled, ...]]:
    """The answers to show, by stage: those of the evaluate stages, else a monitor's, else all that there are.

    What sample stages leave may be many times larger, and is another set of prompts each time.
    """
    files = {folder.name: folder / "samples.jsonl" for folder in stage_dirs(stages_dir)}
    files = {name: path for name, path in files.items() if path.is_file()}
    evaluating = {name: path for name, path in files.items() if _kind_of(path.parent) == "evaluate"}
    looks = {} if evaluating else _snapshots(stages_dir)
    return {name: _groups(path, problems) for name, path in (evaluating or looks or files).items()}


def _kind_of(folder: Path) -> str:
    return text_of(read_object(folder / "stage.json", []).get("kind"))


def _snapshots(stages_dir: Path) -> dict[str, Path]:
    """What the last monitored stage answered at the start, at the end and between."""
    monitored = [(f.name, sorted(f.glob("monitor/step-*.jsonl"))) for f in stage_dirs(stages_dir)]
    name, files = max(
        ((name, files) for name, files in monitored if files),
        key=lambda found: found[1][-1].stat().st_mtime_ns,
        default=("", []),
    )
    return {f"{name} step {int(p.stem.removeprefix('step-')):,}": p for p in spread(files, SNAPSHOTS)}


def spread(items: Sequence[T], num: int) -> list[T]:
    """At most `num` of the items, evenly spread, the first and the last among them."""
    if len(items) <= num:
        return list(items)
    return [items[round(i * (len(items) - 1) / (num - 1))] for i in range(num)]


def _groups(path: Path, problems: list[str]) -> tuple[Sampled, ...]:
    bad: list[str] = []
    groups = tuple(s for line in read_lines(path, problems) if (s := _sampled(line, bad)))
    if bad:
        problems.append(f"{_shown(path)}: {len(bad)} line(s) left out; the first: {bad[0]}")
    return groups


def _shown(path: Path) -> str:
    return "/".join(path.parts[path.parts.index("stages") :]) if "stages" in path.parts else path.name


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


def looks_of(stages_dir: Path, problems: list[str]) -> dict[str, tuple[Look, ...]]:
    """What each stage's monitor measured, by step."""
    found = {}
    for folder in stage_dirs(stages_dir):
        if not (folder / "monitor.json").is_file():
            continue
        rows = list_of(read_object(folder / "monitor.json", problems).get("evaluations"))
        looks = [(whole_of(row.get("step")), figures_of(row.get("figures"))) for row in map(mapping_of, rows)]
        found[folder.name] = tuple(Look(step, figures) for step, figures in looks if step is not None)
    return found


def figures_of(value: Any) -> dict[str, Figure]:
    """Measured values by name; one that could not be scored is nan."""
    figures = {}
    for name, entry in mapping_of(value).items():
        known = mapping_of(entry) or {"value": entry}
        number = float("nan") if known.get("value") is None else number_of(known["value"])
        if number is not None:
            figures[name] = Figure(
                number, number_of(known.get("low")), number_of(known.get("high")), whole_of(known.get("n"))
            )
    return figures


def calibration_of(stages_dir: Path, problems: list[str]) -> dict[str, dict[str, tuple[Bin, ...]]]:
    """Each reward model's reliability curves by name."""
    found = {}
    for folder in stage_dirs(stages_dir):
        if (folder / "calibration.json").is_file():
            told = mapping_of(read_object(folder / "calibration.json", problems).get("curves"))
            curves = {str(name): tuple(_bins(rows)) for name, rows in told.items()}
            found[folder.name] = {name: bins for name, bins in curves.items() if bins}
    return found


def _bins(rows: Any) -> list[Bin]:
    out = []
    for row in map(mapping_of, list_of(rows)):
        confidence, right = finite_of(row.get("confidence")), finite_of(row.get("right"))
        if confidence is not None and right is not None:
            low, high = finite_of(row.get("low")), finite_of(row.get("high"))
            out.append(Bin(confidence, right, low, high, whole_of(row.get("n"))))
    return out


def gates_of(stages_dir: Path, problems: list[str]) -> dict[str, Gate]:
    """What each ship stage's gate found."""
    found = {folder.name: gate_of(folder, problems) for folder in stage_dirs(stages_dir)}
    return {name: gate for name, gate in found.items() if gate is not None}


def gate_of(folder: Path, problems: list[str]) -> Gate | None:
    """What a gate found: its outcomes, then the alarms that were looked at; None where none was asked."""
    if not (folder / "gate.json").is_file():
        return None
    gate = read_object(folder / "gate.json", problems)
    checks = [_check(mapping_of(outcome)) for outcome in list_of(gate.get("outcomes"))]
    checks += [_alarm(mapping_of(alarm)) for alarm in list_of(gate.get("alarms"))]
    passed = gate.get("passed")
    return Gate(passed if isinstance(passed, bool) else None, tuple(checks))


def _check(outcome: Mapping[str, Any]) -> Check:
    name = " · ".join(filter(None, (text_of(outcome.get("set")), text_of(outcome.get("metric")))))
    return Check(name, text_of(outcome.get("verdict")), text_of(outcome.get("why")))


def _alarm(alarm: Mapping[str, Any]) -> Check:
    name = f"alarm of {text_of(alarm.get('stage'))} at step {text_of(alarm.get('step'))}"
    return Check(name, "fail" if alarm.get("open") else "closed", text_of(alarm.get("text")))
