"""The graph beside the list of models: a rail for each line of descent, as version control draws commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from strop.report.lineage import Node

GAP, MIDDLE, RADIUS = 18, 24, 5
MOST_LANES = 10


@dataclass(frozen=True, slots=True)
class Rail:
    """One row's piece of the graph.

    Attributes:
        lane: where the row's own dot stands.
        above: the lane that the parent's line comes down on; None without a parent.
        passing: lanes whose line goes through the row from top to bottom.
        below: whether something comes from this row.
        num_lanes: of the whole graph.
    """

    lane: int
    above: int | None
    passing: tuple[int, ...]
    below: bool
    num_lanes: int


def rails(nodes: Sequence[Node]) -> tuple[Rail, ...]:
    """The lanes of all rows: a child takes its parent's over once it is the last one, else the first that is free."""
    last = {n.parent: n.name for n in nodes if n.parent}
    lanes: list[str] = []
    rows: list[tuple[int, int | None, tuple[int, ...], bool]] = []
    for node in nodes:
        above = lanes.index(node.parent) if node.parent and node.parent in lanes else None
        if above is not None and last.get(node.parent) == node.name:
            lane = above
        else:
            lane = next((i for i, held in enumerate(lanes) if not held), len(lanes))
        passing = tuple(i for i, held in enumerate(lanes) if held and i != lane)
        lanes += [""] * (lane + 1 - len(lanes))
        lanes[lane] = node.name if node.name in last else ""
        rows.append((lane, above, passing, node.name in last))
    num_lanes = min(MOST_LANES, max((row[0] for row in rows), default=0) + 1)
    return tuple(Rail(*row, num_lanes) for row in rows)


def rail_svg(rail: Rail, shape: str) -> Markup:
    """The piece of one row; lines reach to both edges of whatever height it has."""
    width = rail.num_lanes * GAP
    parts = [Markup('<line x1="{0}" y1="0" x2="{0}" y2="100%"/>').format(_x(i)) for i in rail.passing if i < MOST_LANES]
    x = _x(rail.lane)
    if rail.above is not None:
        up = _x(rail.above)
        curve = f"M{up} 0C{up} {MIDDLE - 8} {x} 4 {x} {MIDDLE}" if up != x else f"M{x} 0V{MIDDLE}"
        parts.append(Markup('<path d="{}"/>').format(curve))
    if rail.below:
        parts.append(Markup('<line x1="{0}" y1="{1}" x2="{0}" y2="100%"/>').format(x, MIDDLE))
    parts.append(_dot(x, shape))
    return Markup('<svg class="rail" width="{}" aria-hidden="true">{}</svg>').format(width, Markup("").join(parts))


def _x(lane: int) -> int:
    return min(lane, MOST_LANES - 1) * GAP + GAP // 2


def _dot(x: int, shape: str) -> Markup:
    if shape == "data":
        box = Markup('<rect class="node data" x="{}" y="{}" width="{}" height="{}"/>')
        return box.format(x - RADIUS + 1, MIDDLE - RADIUS + 1, 2 * RADIUS - 2, 2 * RADIUS - 2)
    return Markup('<circle class="node {}" cx="{}" cy="{}" r="{}"/>').format(shape, x, MIDDLE, RADIUS)
