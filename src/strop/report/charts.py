"""Curves as inline SVG, with their table and CSV. Intervals and bars are in `bars`.

Colours are classes (`c0` … `c6`), set for light and dark in report.css; every colour also has a
dash pattern or a hatch, so no reading rests on colour. Every text is escaped here.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup, escape

from strop.report.series import Row, domain, drawable, join, running_mean, thin, ticks, window_of
from strop.report.text import number, short

MAX_SERIES = 7
"""Colours and dash patterns there are."""

WIDTH, HEIGHT = 520, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 30


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
    def body(self) -> Markup:
        """The rows in HTML; made here, since a template takes five times as long over thousands of cells."""
        rows = ("".join(f"<td>{_cell(value)}</td>" for value in row) for row in self.rows)
        return Markup("".join(f"<tr>{row}</tr>" for row in rows))

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
        svg=svg_of(HEIGHT, label, Markup("").join(body), axes),
        table=Table(("step", *(s.name for s in series)), tuple((step, *values) for step, values in kept)),
        filename=slug(f"{stem} {title}") + ".csv",
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
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="end" dy=".32em">{}</text>').format(
                LEFT - 8, y, short(value)
            )
        )
    for value in ticks(axes.x_low, axes.x_high, 6):
        if value == int(value):
            parts.append(
                Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                    axes.x(value), HEIGHT - 9, short(value)
                )
            )
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


def svg_of(height: int, label: str, body: Markup, axes: _Axes | None = None) -> Markup:
    """The picture: drawn to WIDTH, named by `label` for who cannot see it, its step axis for the script."""
    scale = Markup(' data-x="{} {} {} {}"').format(axes.x_low, axes.x_high, LEFT, WIDTH - RIGHT) if axes else Markup("")
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>').format(
        WIDTH, height, label, scale, body
    )


def _cell(value: str | float | None) -> str:
    if isinstance(value, str):
        return str(escape(value))
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def slug(text: str) -> str:
    """A file name of letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "data"
