"""The report of a run: one HTML file under 2 MB, without any external request.

The template escapes every value (autoescape), SVG and data: URIs are escaped where they are made
(`charts`), and a content security policy lets no script run but our own, by its hash. The same run
directory gives the same bytes.

Left out for now: comparing several runs, licences, overlap of training and evaluation rows.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from strop.report import text
from strop.report.bars import OTHER, Bar, Interval, interval_chart, stacked_bars
from strop.report.charts import MAX_SERIES, Chart, Mark, Series, line_chart
from strop.report.curves import kind_of, plots_of, remaining
from strop.report.lineage import lineage
from strop.report.plane import rewards_by_distance
from strop.report.read import Event, Figure, Run, StageRun, read_run
from strop.report.samples import compare, num_unscorable, question, worst
from strop.report.verdict import alerts, evaluated, headline, state_sentence, verdict

MAX_BYTES = 2_000_000

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a report shows: points a curve, plots a stage, prompts, characters of a text."""

    points: int
    plots: int
    prompts: int
    characters: int


LADDER = (
    Limits(points=400, plots=24, prompts=50, characters=2400),
    Limits(points=240, plots=18, prompts=50, characters=1200),
    Limits(points=160, plots=12, prompts=40, characters=600),
    Limits(points=80, plots=12, prompts=20, characters=400),
    Limits(points=40, plots=6, prompts=10, characters=300),
    Limits(points=20, plots=1, prompts=3, characters=200),
)
"""Tried in order until the file is under 2 MB."""


def write_report(run_dir: Path) -> Path:
    """Write RUN_DIR/report.html and return its path.

    Raises: ValueError if there is no such directory.
    """
    page = fitted(read_run(run_dir))
    path = run_dir / "report.html"
    part = run_dir / "report.html.part"
    part.write_bytes(page)
    os.replace(part, path)
    return path


def fitted(run: Run) -> bytes:
    """The page in UTF-8, with the most generous limits that keep it under 2 MB."""
    for limits in LADDER:
        page = render(run, limits).encode("utf-8", "replace")
        if len(page) < MAX_BYTES:
            break
    return page


def render(run: Run, limits: Limits) -> str:
    """The page as text."""
    env = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {
        "number": text.number,
        "short": text.short,
        "signed": text.signed,
        "duration": text.duration,
        "moment": text.moment,
        "visible": text.visible,
        "first_line": text.first_line,
        "clip": text.clip,
        "question": question,
    }
    style, script = (Markup((_HERE / name).read_text(encoding="utf-8")) for name in ("report.css", "report.js"))
    page = env.get_template("template.html").render(
        _context(run, limits), style=style, script=script, style_hash=_hash(style), script_hash=_hash(script)
    )
    return page.lstrip()


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")


def _context(run: Run, limits: Limits) -> dict[str, Any]:
    """What the template shows, under the names it uses."""
    flagged = alerts(run)
    stages = evaluated(run.stages)
    sampled = {name: groups for name, groups in _sampled_stages(run) if groups}
    last = list(sampled)[-1] if sampled else ""
    return {
        "run": run,
        "limits": limits,
        "state_sentence": state_sentence(run),
        "claim": verdict(run),
        "hero": _hero(stages),
        "facts": _facts(run),
        "alerts": flagged,
        "nodes": lineage(run),
        "data_uses": [(s, s.data) for s in run.stages if s.data],
        "evaluation": _evaluation(stages),
        "training": [_training(run, s, flagged, limits) for s in run.stages if run.curves.get(s.name)],
        "compared": compare(sampled, limits.prompts),
        "compared_stages": list(sampled),
        "num_prompts": max((len(groups) for groups in sampled.values()), default=0),
        "worst": worst(sampled[last], 10) if last else (),
        "worst_stage": last,
        "num_unscorable": num_unscorable(sampled[last]) if last else 0,
        "speed": _speed(run, limits),
        "memory": [(s.name, s.peak_memory_mb) for s in run.stages if s.peak_memory_mb is not None],
        "traceback": next((e.traceback for e in reversed(run.events) if e.traceback), ""),
        "log": _ends(run.events, limits.prompts),
    }


def _sampled_stages(run: Run) -> list[tuple[str, Any]]:
    """Samples of the evaluate stages in run order; of every stage where none is known to evaluate."""
    names = [s.name for s in run.stages if s.name in run.samples]
    evaluating = [s.name for s in run.stages if s.kind == "evaluate" and s.name in run.samples]
    return [(name, run.samples[name]) for name in evaluating or names]


def _facts(run: Run) -> list[tuple[str, str]]:
    trained = [s.name for s in run.stages if run.curves.get(s.name)]
    num_steps = sum(len({t for points in run.curves[name].values() for t, _ in points}) for name in trained)
    known = [s.seconds for s in run.stages if s.seconds is not None]
    took = run.seconds if run.seconds is not None or not known else sum(known)
    return [
        ("Time", text.duration(took)),
        ("Stages", str(len(run.stages)) if run.stages else "–"),
        ("Optimizer steps", f"{num_steps:,}"),
        ("Seed", run.seed or "–"),
        ("Version", run.version or "–"),
        ("Last update", text.moment(run.updated)),
    ]


def _hero(stages: Sequence[StageRun]) -> Chart | None:
    """The headline metric over the evaluate stages."""
    name = headline(stages[-1].metrics) if stages else ""
    rows = [
        Interval(s.name, figure.value, figure.low, figure.high, figure.n)
        for s in stages
        if (figure := s.metrics.get(name)) is not None and math.isfinite(figure.value)
    ]
    return interval_chart(name, rows, stem="evaluation") if rows else None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics by evaluate stage; `paired` rows are differences to the stage's baseline."""

    stages: tuple[StageRun, ...]
    rows: tuple[tuple[str, tuple[Figure | None, ...]], ...]
    paired: tuple[tuple[str, tuple[Figure | None, ...]], ...]


def _evaluation(stages: Sequence[StageRun]) -> Evaluation:
    names = list(dict.fromkeys(name for s in stages for name in s.metrics))
    first = headline({name: Figure(0.0) for name in names if not name.startswith("delta/")})
    names.sort(key=lambda name: name != first)
    plain = [name for name in names if not name.startswith("delta/")]
    paired = [name for name in names if name.startswith("delta/")]
    return Evaluation(
        tuple(stages),
        tuple((name, tuple(s.metrics.get(name) for s in stages)) for name in plain[:200]),
        tuple((name.removeprefix("delta/"), tuple(s.metrics.get(name) for s in stages)) for name in paired[:200]),
    )


@dataclass(frozen=True, slots=True)
class Training:
    """A training stage's plots, and those of everything else it recorded."""

    stage: StageRun
    kind: str
    charts: tuple[Chart, ...]
    distance: Chart | None
    others: tuple[Chart, ...]
    not_drawn: tuple[str, ...]


def _training(run: Run, stage: StageRun, flagged: Sequence[Event], limits: Limits) -> Training:
    series = run.curves[stage.name]
    kind = kind_of(stage.kind, list(series))
    marks = [
        Mark(e.step, i)
        for i, e in enumerate(flagged, start=1)
        if e.stage == stage.name and e.step is not None and e.step >= 0
    ][:12]
    plots = list(plots_of(kind, series, MAX_SERIES))
    charts = [
        line_chart(
            plot.title,
            plot.unit,
            [Series(name, series[name]) for name in names],
            limit=limits.points,
            marks=marks,
            stem=stage.name,
        )
        for plot, names in plots[: limits.plots]
    ]
    rest = remaining(kind, series)
    others = [
        line_chart(name, "", [Series(name, series[name])], limit=limits.points // 2, marks=marks, stem=stage.name)
        for name in rest[: max(0, limits.plots - len(charts))]
    ]
    left_out = [name for _, names in plots[limits.plots :] for name in names] + rest[len(others) :]
    distance = rewards_by_distance(run.looks.get(stage.name, ()), stage.name)
    return Training(stage, kind, tuple(charts), distance, tuple(others), tuple(left_out))


@dataclass(frozen=True, slots=True)
class Speed:
    """Where the time went, and how fast tokens were trained on."""

    phases: Chart | None
    throughput: tuple[Chart, ...]


def _speed(run: Run, limits: Limits) -> Speed:
    bars = [Bar(s.name, parts) for s in run.stages if (parts := _phases(s, run.curves.get(s.name, {})))]
    throughput = [
        line_chart(
            f"Throughput of {s.name}",
            "tokens a second",
            [Series("tokens_per_s", points)],
            limit=limits.points // 2,
            stem="speed",
        )
        for s in run.stages
        if (points := run.curves.get(s.name, {}).get("tokens_per_s"))
    ]
    return Speed(stacked_bars("Time by phase", bars) if bars else None, tuple(throughput))


def _phases(stage: StageRun, series: Mapping[str, Sequence[tuple[int, float]]]) -> list[tuple[str, float]]:
    """Seconds by phase: the summary's, or the sum over the steps; what no phase covers is 'other'."""
    phases = {name: seconds for name, seconds in stage.phases.items() if seconds > 0}
    if not phases:
        for name, points in series.items():
            if name.startswith("phase/") and (total := sum(v for _, v in points if v > 0)) < 1e150:
                phases[name.removeprefix("phase/").removesuffix("_s")] = total
    rest = (stage.seconds or 0.0) - sum(phases.values())
    parts = [(name, seconds) for name, seconds in phases.items() if seconds > 0]
    return [*parts, (OTHER, rest)] if rest > 0.01 * (stage.seconds or 1.0) else parts


def _ends(events: Sequence[Event], num: int) -> tuple[Sequence[Event], int, Sequence[Event]]:
    """The first and the last events, and how many stand between."""
    if len(events) <= 2 * num:
        return events, 0, ()
    return events[:num], len(events) - 2 * num, events[-num:]
