"""Data as inline SVG: line charts, interval charts, stacked bars; each with its table and CSV.

Colours are classes (`c0` … `c6`), set for light and dark in report.css; every colour also has a
dash pattern or a hatch, so no reading rests on colour. Every text is escaped here.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup

from strop.report.series import Row, domain, drawable, join, running_mean, thin, ticks, window_of
from strop.report.text import duration, first_line, number, short

MAX_SERIES = 7
"""Colours and dash patterns there are."""

WIDTH, HEIGHT = 520, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 30
NAME_WIDTH = 124

OTHER = "other"
"""The phase that stands for all that no phase covers."""


@dataclass(frozen=True, slots=True)
class Series:
    """A named curve: (step, value), steps ascending."""

    name: str
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Mark:
    """An alert on the step axis, by its number in the list of alerts."""

    step: int
    number: int


@dataclass(frozen=True, slots=True)
class Table:
    """The numbers behind a plot."""

    header: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]

    @property
    def csv_uri(self) -> str:
        """The table as CSV in a data: URI, numbers at full precision."""
        return "data:text/csv;charset=utf-8," + quote(self.csv.encode("utf-8", "replace"), safe=",.-_")

    @property
    def csv(self) -> str:
        """The table as CSV text; a header that a spreadsheet would run as a formula is quoted."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([_inert(name) for name in self.header])
        writer.writerows([["" if v is None else _inert(v) if isinstance(v, str) else v for v in r] for r in self.rows])
        return out.getvalue()


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot, ready to place: its legend, its table, a warning if there is one, and how it was drawn."""

    title: str
    unit: str
    svg: Markup
    table: Table
    filename: str
    legend: tuple[str, ...] = ()
    last: str = ""
    warning: str = ""
    notes: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()


def line_chart(
    title: str, unit: str, series: Sequence[Series], *, limit: int, marks: Sequence[Mark] = (), stem: str = ""
) -> Chart:
    """Curves over the step, at most `limit` points each, with a running mean where they are noisy."""
    assert 0 < len(series) <= MAX_SERIES
    rows = join([s.points for s in series])
    kept = thin(rows, limit)
    axes = _axes(kept)
    inside = sorted((m for m in marks if axes.x_low <= m.step <= axes.x_high), key=lambda m: m.step)
    steps = {step for step, _ in kept}
    body = [_grid(axes), *(_mark(axes, m) for m in inside)]
    windows = [window_of([v for _, v in s.points if drawable(v)]) for s in series]
    body += [_curve(axes, i, s, [(t, v[i]) for t, v in kept], steps, windows[i]) for i, s in enumerate(series)]
    label = f"{title} by step. " + " ".join(_in_words(s) for s in series)
    return Chart(
        title=title,
        unit=unit,
        svg=_svg(HEIGHT, label, Markup("").join(body), axes),
        table=Table(("step", *(s.name for s in series)), tuple((step, *values) for step, values in kept)),
        filename=_slug(f"{stem} {title}") + ".csv",
        legend=tuple(s.name for s in series),
        last=" / ".join(number(s.points[-1][1]) for s in series[:3]) if series else "",
        warning=_not_finite(rows),
        notes=tuple(_notes(len(rows), len(kept), max(windows))),
        marks=tuple(inside),
    )


@dataclass(frozen=True, slots=True)
class _Axes:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, step: float) -> float:
        return LEFT + (step - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def _axes(rows: Sequence[Row]) -> _Axes:
    steps = [step for step, _ in rows] or [0]
    x_low, x_high = (steps[0], steps[-1]) if steps[-1] > steps[0] else (steps[0] - 1, steps[0] + 1)
    y_low, y_high = domain([v for _, values in rows for v in values if v is not None and drawable(v)])
    return _Axes(x_low, x_high, y_low, y_high)


def _grid(axes: _Axes) -> Markup:
    parts = []
    for value in ticks(axes.y_low, axes.y_high, 4):
        y = f"{axes.y(value):.1f}"
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(LEFT, y, WIDTH - RIGHT))
        parts.append(Markup('<text class="tick" x="{}" y="{}" text-anchor="end" dy=".32em">{}</text>').format(
            LEFT - 8, y, short(value)
        ))  # fmt: skip
    for value in ticks(axes.x_low, axes.x_high, 6):
        if value == int(value):
            parts.append(Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                axes.x(value), HEIGHT - 9, short(value)
            ))  # fmt: skip
    parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT))
    return Markup("").join(parts)


def _mark(axes: _Axes, mark: Mark) -> Markup:
    x = f"{axes.x(mark.step):.1f}"
    return Markup(
        '<g class="mark"><path d="M{} {}V{}"/><circle cx="{}" cy="{}" r="7"/>'
        '<text x="{}" y="{}" text-anchor="middle" dy=".34em">{}</text></g>'
    ).format(x, TOP, HEIGHT - BOTTOM, x, TOP, x, TOP, mark.number)


def _curve(
    axes: _Axes, index: int, series: Series, kept: Sequence[tuple[int, float | None]], steps: set[int], window: int
) -> Markup:
    """The measured values, thin where a running mean goes over them; single points become dots."""
    pieces = _pieces(kept)
    faint = window > 1
    raw = Markup("").join(_path(axes, piece, f"line c{index} {'raw' if faint else f'd{index}'}") for piece in pieces)
    few = [point for piece in pieces for point in piece] if len(series.points) <= 24 else []
    lonely = few or [piece[0] for piece in pieces if len(piece) == 1]
    dots = Markup("").join(
        Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(index, axes.x(t), axes.y(v))
        for t, v in lonely
    )
    if not faint:
        return raw + dots
    mean = [(t, v) for t, v in running_mean(series.points, window) if t in steps]
    return raw + _path(axes, mean, f"line c{index} d{index}") + dots


def _pieces(points: Sequence[tuple[int, float | None]]) -> list[list[tuple[int, float]]]:
    """The curve cut where a value was not finite; steps without a value are passed over."""
    pieces: list[list[tuple[int, float]]] = [[]]
    for step, value in points:
        if value is not None and drawable(value):
            pieces[-1].append((step, value))
        elif value is not None:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _path(axes: _Axes, points: Sequence[tuple[int, float]], classes: str) -> Markup:
    if len(points) < 2:
        return Markup("")
    d = "L".join(f"{axes.x(step):.1f} {axes.y(value):.1f}" for step, value in points)
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


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval, to be drawn beside others of the same metric."""

    name: str
    value: float
    low: float | None
    high: float | None
    n: int | None


def interval_chart(title: str, rows: Sequence[Interval], *, stem: str = "") -> Chart:
    """One dot and whisker a row, on one axis."""
    left, right, line = NAME_WIDTH, 62, 32
    height = line * len(rows) + 34
    ends = [v for r in rows for v in (r.value, r.low, r.high) if v is not None and drawable(v)]
    low, high = domain(ends)
    scale = (WIDTH - left - right) / (high - low)
    parts = []
    for value in ticks(low, high, 5):
        x = left + (value - low) * scale
        parts.append(Markup('<path class="grid" d="M{:.1f} 6V{}"/>').format(x, height - 24))
        parts.append(Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            x, height - 8, short(value)
        ))  # fmt: skip
    for i, row in enumerate(rows):
        y = 6 + line * (i + 0.5)
        parts.append(_whisker(row, i == len(rows) - 1, y, lambda v: left + (v - low) * scale))
    label = f"{title}. " + " ".join(f"{r.name}: {number(r.value)}, {_between(r)}." for r in rows)
    table = Table(
        ("stage", title, "low", "high", "n"), tuple((r.name, r.value, r.low, r.high, r.n) for r in rows)
    )
    svg = _svg(height, label, Markup("").join(parts), None)
    return Chart(title, "95 % interval", svg, table, _slug(f"{stem} {title}") + ".csv")


def _whisker(row: Interval, is_last: bool, y: float, x: Callable[[float], float]) -> Markup:
    kind = "final" if is_last else "earlier"
    parts = [Markup('<text class="name" x="0" y="{}" dy=".34em">{}</text>').format(y, first_line(row.name, 15))]
    if drawable(row.value):
        if row.low is not None and row.high is not None and drawable(row.low) and drawable(row.high):
            parts.append(Markup('<path class="whisker {k}" d="M{a:.1f} {y}H{b:.1f}M{a:.1f} {t}v8M{b:.1f} {t}v8"/>').format(
                k=kind, a=x(row.low), b=x(row.high), y=y, t=y - 4
            ))  # fmt: skip
        parts.append(Markup('<circle class="point {}" cx="{:.1f}" cy="{}" r="5"/>').format(kind, x(row.value), y))
    parts.append(Markup('<text class="value {}" x="{}" y="{}" text-anchor="end" dy=".34em">{}</text>').format(
        kind, WIDTH, y, number(row.value, 3)
    ))  # fmt: skip
    return Markup("").join(parts)


def _between(row: Interval) -> str:
    if row.low is None or row.high is None:
        return "no interval known"
    return f"95 % interval {number(row.low)} to {number(row.high)}"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of named parts, in seconds."""

    name: str
    parts: Sequence[tuple[str, float]]


def stacked_bars(title: str, bars: Sequence[Bar]) -> Chart:
    """One bar a stage, cut by phase, on one axis of seconds; the table has every phase.

    The phases that took longest have a colour of their own, the others are drawn together.
    """
    phases = list(dict.fromkeys(phase for bar in bars for phase, _ in bar.parts))
    totals = {p: sum(seconds for bar in bars for phase, seconds in bar.parts if phase == p) for p in phases}
    ranked = sorted((p for p in phases if p != OTHER), key=lambda p: -totals[p])[: MAX_SERIES - 1]
    drawn = [*ranked, OTHER] if len(ranked) < len(phases) else ranked
    line = 34
    longest = max((sum(s for _, s in bar.parts) for bar in bars), default=0.0) or 1.0
    scale = (WIDTH - NAME_WIDTH - 84) / longest
    rows = [_bar(bar, drawn, 4 + line * i, line, scale) for i, bar in enumerate(bars)]
    label = f"{title}. " + " ".join(
        f"{bar.name}: " + ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in bar.parts) + "." for bar in bars
    )
    table = Table(
        ("stage", *(f"{phase} (s)" for phase in phases)),
        tuple((bar.name, *(dict(bar.parts).get(phase) for phase in phases)) for bar in bars),
    )
    svg = _svg(line * len(bars) + 10, label, Markup("").join(rows), None)
    return Chart(title, "seconds", svg, table, _slug(title) + ".csv", legend=tuple(drawn))


def _bar(bar: Bar, drawn: Sequence[str], y: float, line: float, scale: float) -> Markup:
    middle = y + line / 2
    parts = [Markup('<text class="name" x="0" y="{}" dy=".34em">{}</text>').format(middle, first_line(bar.name, 15))]
    x = float(NAME_WIDTH)
    for i, phase in enumerate(drawn):
        seconds = sum(s for p, s in bar.parts if p == phase or (phase == OTHER and p not in drawn))
        if seconds > 0:
            parts.append(_segment(x, y + 6, max(seconds * scale - 1, 0.5), line - 12, i))
            x += seconds * scale
    parts.append(Markup('<text class="value" x="{:.1f}" y="{}" dy=".34em">{}</text>').format(
        x + 8, middle, duration(sum(s for _, s in bar.parts))
    ))  # fmt: skip
    return Markup("").join(parts)


def _segment(x: float, y: float, width: float, height: float, index: int) -> Markup:
    """A coloured rectangle; every second colour is hatched, so that neighbours differ without colour."""
    box = Markup('x="{:.1f}" y="{}" width="{:.1f}" height="{}"').format(x, y, width, height)
    fill = Markup('<rect class="fill c{}" {}/>').format(index, box)
    return fill + Markup('<rect class="hatch" {} fill="url(#hatch{})"/>').format(box, index % 3) if index % 3 else fill


def _svg(height: int, label: str, body: Markup, axes: _Axes | None) -> Markup:
    scale = (
        Markup(' data-x="{} {} {} {}"').format(axes.x_low, axes.x_high, LEFT, WIDTH - RIGHT) if axes else Markup("")
    )
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>').format(
        WIDTH, height, label, scale, body
    )


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "data"
