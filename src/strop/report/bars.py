"""Intervals and stacked bars as inline SVG, one row a stage; colours and dashes as in `charts`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from strop.report.charts import MAX_SERIES, Chart
from strop.report.frame import WIDTH, svg_of
from strop.report.series import domain, drawable, tick_words, ticks
from strop.report.tables import Table, slug
from strop.report.text import duration, first_line, number

NAME_WIDTH = 124

OTHER = "other"
"""The phase that stands for all that no phase covers."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval, to be drawn beside others of the same metric.

    Attributes: style: a colour of its own. strong: whether it stands out.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    style: int | None = None
    strong: bool = False


def interval_chart(title: str, rows: Sequence[Interval], *, stem: str = "") -> Chart:
    """One dot and whisker a row, on one axis."""
    left, right, line = NAME_WIDTH, 62, 32
    height = line * len(rows) + 34
    ends = [v for r in rows for v in (r.value, r.low, r.high) if v is not None and drawable(v)]
    low, high = domain(ends)
    scale = (WIDTH - left - right) / (high - low)
    parts = []
    marks = ticks(low, high, 5)
    for value, words in zip(marks, tick_words(marks), strict=True):
        x = left + (value - low) * scale
        parts.append(Markup('<path class="grid" d="M{:.1f} 6V{}"/>').format(x, height - 24))
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x, height - 8, words)
        )
    for i, row in enumerate(rows):
        y = 6 + line * (i + 0.5)
        parts.append(_whisker(row, y, lambda v: left + (v - low) * scale))
    label = f"{title}. " + " ".join(f"{r.name}: {number(r.value)}, {_between(r)}." for r in rows)
    table = Table(("stage", title, "low", "high", "n"), tuple((r.name, r.value, r.low, r.high, r.n) for r in rows))
    svg = svg_of(height, label, Markup("").join(parts))
    return Chart(title, "95 % interval", svg, table, slug(f"{stem} {title}") + ".csv")


def _whisker(row: Interval, y: float, x: Callable[[float], float]) -> Markup:
    weight = "final" if row.strong else "earlier"
    kind = weight if row.style is None else f"c{row.style} final"
    parts = [Markup('<text class="name" x="0" y="{}" dy=".34em">{}</text>').format(y, first_line(row.name, 15))]
    if drawable(row.value):
        if row.low is not None and row.high is not None and drawable(row.low) and drawable(row.high):
            parts.append(
                Markup('<path class="whisker {k}" d="M{a:.1f} {y}H{b:.1f}M{a:.1f} {t}v8M{b:.1f} {t}v8"/>').format(
                    k=kind, a=x(row.low), b=x(row.high), y=y, t=y - 4
                )
            )
        parts.append(Markup('<circle class="point {}" cx="{:.1f}" cy="{}" r="5"/>').format(kind, x(row.value), y))
    parts.append(
        Markup('<text class="value {}" x="{}" y="{}" text-anchor="end" dy=".34em">{}</text>').format(
            weight, WIDTH, y, number(row.value, 3)
        )
    )
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
        f"{bar.name}: " + ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in bar.parts) + "."
        for bar in bars
    )
    table = Table(
        ("stage", *(f"{phase} (s)" for phase in phases)),
        tuple((bar.name, *(dict(bar.parts).get(phase) for phase in phases)) for bar in bars),
    )
    svg = svg_of(line * len(bars) + 10, label, Markup("").join(rows))
    return Chart(title, "seconds", svg, table, slug(title) + ".csv", legend=tuple(drawn))


def _bar(bar: Bar, drawn: Sequence[str], y: float, line: float, scale: float) -> Markup:
    middle = y + line / 2
    parts = [Markup('<text class="name" x="0" y="{}" dy=".34em">{}</text>').format(middle, first_line(bar.name, 15))]
    x = float(NAME_WIDTH)
    for i, phase in enumerate(drawn):
        seconds = sum(s for p, s in bar.parts if p == phase or (phase == OTHER and p not in drawn))
        if seconds > 0:
            parts.append(_segment(x, y + 6, max(seconds * scale - 1, 0.5), line - 12, i))
            x += seconds * scale
    parts.append(
        Markup('<text class="value" x="{:.1f}" y="{}" dy=".34em">{}</text>').format(
            x + 8, middle, duration(sum(s for _, s in bar.parts))
        )
    )
    return Markup("").join(parts)


def _segment(x: float, y: float, width: float, height: float, index: int) -> Markup:
    """A coloured rectangle; every second colour is hatched, so that neighbours differ without colour."""
    box = Markup('x="{:.1f}" y="{}" width="{:.1f}" height="{}"').format(x, y, width, height)
    fill = Markup('<rect class="fill c{}" {}/>').format(index, box)
    return fill + Markup('<rect class="hatch" {} fill="url(#hatch{})"/>').format(box, index % 3) if index % 3 else fill
