"""A reward model's reliability: how sure it was of a side, against how often that side was right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from strop.report.charts import MAX_SERIES, Chart
from strop.report.frame import HEIGHT, Frame, dot, grid, svg_of, whisker
from strop.report.records import Bin
from strop.report.tables import Table, slug
from strop.report.text import number

TITLE = "Calibration"


def reliability_chart(curves: Mapping[str, Sequence[Bin]], stem: str) -> Chart | None:
    """Bins of confidence as points with their intervals, beside the line on which an honest scorer stands."""
    shown = dict(list(curves.items())[:MAX_SERIES])
    every = [b for bins in shown.values() for b in bins]
    if not every:
        return None
    low = min(0.5, *(v for b in every for v in (b.confidence, b.right, b.low) if v is not None))
    frame = Frame(min(0.5, *(b.confidence for b in every)), 1.0, max(0.0, low), 1.0)
    body = [grid(frame), _honest(frame), *(_curve(frame, i, bins) for i, bins in enumerate(shown.values()))]
    label = f"{TITLE}. " + " ".join(f"{name}: {_in_words(bins)}" for name, bins in shown.items())
    rows = tuple((name, b.confidence, b.right, b.low, b.high, b.n) for name, bins in shown.items() for b in bins)
    return Chart(
        title=TITLE,
        unit="share that was right, over how sure the model was; on the line where they agree",
        svg=svg_of(HEIGHT, label, Markup("").join(body)),
        table=Table(("curve", "confidence", "right", "low", "high", "n"), rows),
        filename=slug(f"{stem} {TITLE}") + ".csv",
        legend=tuple(shown),
    )


def _honest(frame: Frame) -> Markup:
    start = max(frame.x_low, frame.y_low)
    ends = frame.x(start), frame.y(start), frame.x(1.0), frame.y(1.0)
    return Markup('<path class="honest" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(*ends)


def _curve(frame: Frame, index: int, bins: Sequence[Bin]) -> Markup:
    d = "L".join(f"{frame.x(b.confidence):.1f} {frame.y(b.right):.1f}" for b in bins)
    parts = [Markup('<path class="line c{} d{}" d="M{}"/>').format(index, index, d)]
    for b in bins:
        parts += [whisker(frame, index, b.confidence, b.low, b.high), dot(frame, index, b.confidence, b.right)]
    return Markup("").join(parts)


def _in_words(bins: Sequence[Bin]) -> str:
    return "; ".join(f"{number(b.confidence, 3)} sure, {number(b.right, 3)} right" for b in bins) + "."
