"""Curves as inline SVG, with their table and CSV. Intervals and bars are in `bars`.

Colours are classes (`c0` … `c7`), set for light and dark in report.css; every colour also has a
dash pattern or a hatch, so no reading rests on colour. Every text is escaped here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from markupsafe import Markup

from strop.report.frame import BOTTOM, HEIGHT, TOP, Frame, dot, grid, svg_of
from strop.report.series import Row, domain, drawable, join, running_mean, thin, window_of
from strop.report.tables import Table, slug
from strop.report.text import number

MAX_SERIES = 8
"""Colours and dash patterns there are."""

V = TypeVar("V")
Points = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """A named curve: (step, value), steps ascending.

    Attributes: style: its colour and dashes; None takes those of its place.
    """

    name: str
    points: Points
    style: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """An alert on the step axis, by its number in the list of alerts.

    Attributes: where: its place in words, where that is not the step on the axis.
    """

    step: int
    number: int
    where: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot, ready to place: its legend, its table, a warning if there is one, and how it was drawn."""

    title: str
    unit: str
    svg: Markup
    table: Table
    filename: str
    legend: tuple[str, ...] = ()
    styles: tuple[int, ...] = ()
    last: str = ""
    warning: str = ""
    notes: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()


def line_chart(
    title: str,
    unit: str,
    series: Sequence[Series],
    *,
    limit: int,
    marks: Sequence[Mark] = (),
    rounds: Sequence[int] = (),
    stem: str = "",
) -> Chart:
    """Curves over the step, at most `limit` points each, with a running mean where they are noisy.

    Args: rounds: the step at which each round begins, where several stand one after the other; no line crosses.
    """
    assert 0 < len(series) <= MAX_SERIES
    rows = join([s.points for s in series])
    kept = thin(rows, limit)
    frame = _frame(kept)
    inside = sorted((m for m in marks if frame.x_low <= m.step <= frame.x_high), key=lambda m: m.step)
    body = [grid(frame, whole=True), _rounds(frame, rounds), *(_mark(frame, m) for m in inside)]
    windows = [max(map(_window, _parts(s.points, rounds)), default=1) for s in series]
    body += [_curve(frame, i, s, kept, rounds, windows[i]) for i, s in enumerate(series)]
    label = f"{title} by step. " + " ".join(_in_words(s) for s in series)
    return Chart(
        title=title,
        unit=unit,
        svg=svg_of(HEIGHT, label, Markup("").join(body), frame),
        table=_table(series, kept, rounds),
        filename=slug(f"{stem} {title}") + ".csv",
        legend=tuple(s.name for s in series),
        styles=tuple(_styles(series)),
        last=" / ".join([number(s.points[-1][1]) for s in series[:3]] + ["…"] * (len(series) > 3)),
        warning=_not_finite(rows),
        notes=tuple(_notes(len(rows), len(kept), max(windows))),
        marks=tuple(inside),
    )


def _styles(series: Sequence[Series]) -> list[int]:
    return [place if s.style is None else s.style for place, s in enumerate(series)]


def _table(series: Sequence[Series], kept: Sequence[Row], rounds: Sequence[int]) -> Table:
    names = tuple(s.name for s in series)
    if not rounds:
        return Table(("step", *names), tuple((step, *values) for step, values in kept))
    placed = tuple((step, max(1, bisect_right(rounds, step)), *values) for step, values in kept)
    return Table(("step", "round", *names), placed)


def _frame(rows: Sequence[Row]) -> Frame:
    steps = [step for step, _ in rows] or [0]
    x_low, x_high = (steps[0], steps[-1]) if steps[-1] > steps[0] else (steps[0] - 1, steps[0] + 1)
    y_low, y_high = domain([v for _, values in rows for v in values if v is not None and drawable(v)])
    return Frame(x_low, x_high, y_low, y_high)


def _mark(frame: Frame, mark: Mark) -> Markup:
    x = f"{frame.x(mark.step):.1f}"
    return Markup(
        '<g class="mark"><path d="M{} {}V{}"/><circle cx="{}" cy="{}" r="7"/>'
        '<text x="{}" y="{}" text-anchor="middle" dy=".34em">{}</text></g>'
    ).format(x, TOP, HEIGHT - BOTTOM, x, TOP, x, TOP, mark.number)


def _rounds(frame: Frame, rounds: Sequence[int]) -> Markup:
    """Where each round begins, with its number."""
    parts = []
    for place, step in enumerate(rounds, start=1):
        if frame.x_low <= step <= frame.x_high:
            x = f"{frame.x(step):.1f}"
            line = Markup('<path class="round" d="M{} {}V{}"/>').format(x, TOP - 8, HEIGHT - BOTTOM)
            text = Markup('<text class="tick" x="{:.1f}" y="{}">{}</text>').format(frame.x(step) + 4, TOP, place)
            parts.append(line + text)
    return Markup("").join(parts)


def _curve(frame: Frame, place: int, series: Series, kept: Sequence[Row], rounds: Sequence[int], window: int) -> Markup:
    """The measured values, thin where a running mean goes over them; single points become dots."""
    index = place if series.style is None else series.style
    steps = {step for step, _ in kept}
    points = [(step, values[place]) for step, values in kept]
    pieces = [piece for part in _parts(points, rounds) for piece in _pieces(part)]
    faint = window > 1
    raw = Markup("").join(_path(frame, piece, f"line c{index} {'raw' if faint else f'd{index}'}") for piece in pieces)
    few = [point for piece in pieces for point in piece] if len(series.points) <= 24 else []
    lonely = few or [piece[0] for piece in pieces if len(piece) == 1]
    dots = Markup("").join(dot(frame, index, step, value) for step, value in lonely)
    if not faint:
        return raw + dots
    means = [
        [(t, v) for t, v in running_mean(part, window) if t in steps] for part in _parts(series.points, rounds) if part
    ]
    return raw + Markup("").join(_path(frame, mean, f"line c{index} d{index}") for mean in means) + dots


def _window(points: Points) -> int:
    return window_of([value for _, value in points if drawable(value)])


def _parts(points: Sequence[tuple[int, V]], rounds: Sequence[int]) -> list[list[tuple[int, V]]]:
    """The points of each round."""
    if len(rounds) < 2:
        return [list(points)]
    ends = [*rounds[1:], float("inf")]
    parts: list[list[tuple[int, V]]] = [[] for _ in rounds]
    place = 0
    for step, value in points:
        while step >= ends[place]:
            place += 1
        parts[place].append((step, value))
    return parts


def _pieces(points: Sequence[tuple[int, float | None]]) -> list[list[tuple[int, float]]]:
    """The curve cut where a value was not finite; steps without a value are passed over."""
    pieces: list[list[tuple[int, float]]] = [[]]
    for step, value in points:
        if value is not None and drawable(value):
            pieces[-1].append((step, value))
        elif value is not None:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _path(frame: Frame, points: Points, classes: str) -> Markup:
    if len(points) < 2:
        return Markup("")
    d = "L".join(f"{frame.x(step):.1f} {frame.y(value):.1f}" for step, value in points)
    return Markup('<path class="{}" d="M{}"/>').format(classes, d)


def _in_words(series: Series) -> str:
    """The curve for who cannot see it: both ends and the extremes."""
    points = [(step, value) for step, value in series.points if drawable(value)]
    if not points:
        return f"{series.name}: no finite value."
    low, high = min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1])
    (start, first), (end, last) = points[0], points[-1]
    return (
        f"{series.name}: {number(first)} at step {start:,}, {number(last)} at step {end:,}; "
        f"lowest {number(low[1])} at step {low[0]:,}, highest {number(high[1])} at step {high[0]:,}."
    )


def _not_finite(rows: Sequence[Row]) -> str:
    steps = [step for step, values in rows if any(v is not None and not drawable(v) for v in values)]
    if not steps:
        return ""
    shown = ", ".join(f"{step:,}" for step in steps[:5]) + (" …" if len(steps) > 5 else "")
    return f"Not finite at {len(steps)} step{'s' * (len(steps) > 1)} ({shown}): a gap in the curve."


def _notes(num_rows: int, num_kept: int, window: int) -> list[str]:
    notes = [f"The strong line is the mean of {window} steps around."] if window > 1 else []
    if num_kept < num_rows:
        notes.append(f"{num_kept:,} of {num_rows:,} steps, the extremes among them; all are in metrics.jsonl.")
    return notes
