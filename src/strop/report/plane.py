"""Two rewards against the distance from the start: curves over sqrt(KL), each point with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from strop.report.charts import Chart
from strop.report.frame import HEIGHT, Frame, dot, grid, svg_of, whisker
from strop.report.records import Figure, Look
from strop.report.series import domain
from strop.report.tables import Table, slug
from strop.report.text import number

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
    frame = Frame(x_low, x_high, y_low, y_high)
    body = [grid(frame), *(_curve(frame, i, points) for i, points in enumerate(curves.values()))]
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


def _curve(frame: Frame, index: int, points: Sequence[Point]) -> Markup:
    """Dots in the order of the steps, joined, each with a whisker."""
    d = "L".join(f"{frame.x(p.x):.1f} {frame.y(p.y.value):.1f}" for p in points)
    parts = [Markup('<path class="line c{} d{}" d="M{}"/>').format(index, index, d)]
    for p in points:
        parts += [whisker(frame, index, p.x, p.y.low, p.y.high), dot(frame, index, p.x, p.y.value)]
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
