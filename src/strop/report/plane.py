"""Two rewards against the distance from the start: curves over sqrt(KL), each point with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from strop.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Table, slug, svg_of
from strop.report.read import Figure, Look
from strop.report.series import domain, ticks
from strop.report.text import number, short

SHOWN = (("delta/proxy", "training reward"), ("delta/held_out", "held-out reward"))
START = Figure(0.0)


@dataclass(frozen=True, slots=True)
class Point:
    """A change since the start, at a step and a distance from it."""

    step: int
    x: float
    y: Figure


def rewards_by_distance(looks: Sequence[Look], stem: str) -> Chart | None:
    """The training reward's change since the start and the held-out one's, over sqrt(KL); None without both."""
    curves = {title: points for name, title in SHOWN if len(points := _points(looks, name)) > 1}
    if len(curves) < len(SHOWN):
        return None
    every = [p for points in curves.values() for p in points]
    x_low, x_high = domain([p.x for p in every])
    y_low, y_high = domain([v for p in every for v in (p.y.value, p.y.low, p.y.high) if v is not None])
    frame = _Frame(x_low, x_high, y_low, y_high)
    body = [_grid(frame), *(_curve(frame, i, points) for i, points in enumerate(curves.values()))]
    title = "Rewards by distance from the start"
    label = f"{title}. " + " ".join(f"{name}: {_in_words(points)}" for name, points in curves.items())
    return Chart(
        title=title,
        unit="change since the start, 95 % interval; across: √KL, √nats",
        svg=svg_of(HEIGHT, label, Markup("").join(body)),
        table=_table(curves),
        filename=slug(f"{stem} {title}") + ".csv",
        legend=tuple(curves),
    )


def _points(looks: Sequence[Look], name: str) -> list[Point]:
    found = []
    for place, look in enumerate(looks):
        root, change = look.figures.get("sqrt_kl"), START if place == 0 else look.figures.get(name)
        if root is not None and change is not None and math.isfinite(root.value) and math.isfinite(change.value):
            found.append(Point(look.step, root.value, change))
    return found


@dataclass(frozen=True, slots=True)
class _Frame:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def _grid(frame: _Frame) -> Markup:
    parts = []
    for value in ticks(frame.y_low, frame.y_high, 4):
        y = f"{frame.y(value):.1f}"
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(LEFT, y, WIDTH - RIGHT))
        text = Markup('<text class="tick" x="{}" y="{}" text-anchor="end" dy=".32em">{}</text>')
        parts.append(text.format(LEFT - 8, y, short(value)))
    for value in ticks(frame.x_low, frame.x_high, 6):
        text = Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
        parts.append(text.format(frame.x(value), HEIGHT - 9, short(value)))
    return Markup("").join(parts)


def _curve(frame: _Frame, index: int, points: Sequence[Point]) -> Markup:
    """Dots in the order of the steps, joined, each with a whisker."""
    d = "L".join(f"{frame.x(p.x):.1f} {frame.y(p.y.value):.1f}" for p in points)
    parts = [Markup('<path class="line c{} d{}" d="M{}"/>').format(index, index, d)]
    for p in points:
        x = f"{frame.x(p.x):.1f}"
        if p.y.low is not None and p.y.high is not None:
            ends = f"{frame.y(p.y.low):.1f}", f"{frame.y(p.y.high):.1f}"
            parts.append(Markup('<path class="line c{} raw" d="M{} {}V{}"/>').format(index, x, *ends))
        dot = Markup('<circle class="dot c{}" cx="{}" cy="{:.1f}" r="2.6"/>')
        parts.append(dot.format(index, x, frame.y(p.y.value)))
    return Markup("").join(parts)


def _in_words(points: Sequence[Point]) -> str:
    best, last = max(points, key=lambda p: p.y.value), points[-1]
    return (
        f"highest {number(best.y.value)} at distance {number(best.x)} (step {best.step:,}), "
        f"{number(last.y.value)} at distance {number(last.x)} (step {last.step:,})."
    )


def _table(curves: dict[str, list[Point]]) -> Table:
    rows = tuple((name, p.step, p.x, p.y.value, p.y.low, p.y.high) for name, points in curves.items() for p in points)
    return Table(("reward", "step", "√KL", "change", "low", "high"), rows)
