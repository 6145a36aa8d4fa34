"""Where a run's time went, and how fast tokens were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strop.report.bars import OTHER, Bar, stacked_bars
from strop.report.charts import Chart, Series, line_chart
from strop.report.page import Limits
from strop.report.records import Run, StageRun
from strop.report.rounds import Trained

Curves = Mapping[str, Sequence[tuple[int, float]]]

MOST_BARS = 30


@dataclass(frozen=True, slots=True)
class Speed:
    """Where the time went, and how fast tokens were trained on."""

    phases: Chart | None
    throughput: tuple[Chart, ...]


def speed_of(run: Run, blocks: Sequence[Trained], limits: Limits) -> Speed:
    """Time by stage and phase, and tokens a second over the steps of each stage."""
    bars = [Bar(s.name, parts) for s in run.stages if (parts := phases_of(s, run.curves.get(s.name, {})))]
    bars = sorted(sorted(bars, key=_length, reverse=True)[:MOST_BARS], key=bars.index)
    throughput = [
        line_chart(
            f"Throughput of {block.name}",
            "tokens a second",
            [Series("tokens_per_s", points)],
            limit=limits.points // 2,
            rounds=block.rounds,
            stem="speed",
        )
        for block in blocks[: limits.stages]
        if (points := block.series.get("tokens_per_s"))
    ]
    return Speed(stacked_bars("Time by phase", bars) if bars else None, tuple(throughput))


def _length(bar: Bar) -> float:
    return sum(seconds for _, seconds in bar.parts)


def phases_of(stage: StageRun, series: Curves) -> list[tuple[str, float]]:
    """Seconds by phase: the summary's, or the sum over the steps; what no phase covers is 'other'."""
    phases = {name: seconds for name, seconds in stage.phases.items() if seconds > 0}
    if not phases:
        for name, points in series.items():
            if name.startswith("phase/") and (total := sum(v for _, v in points if v > 0)) < 1e150:
                phases[name.removeprefix("phase/").removesuffix("_s")] = total
    rest = (stage.seconds or 0.0) - sum(phases.values())
    parts = [(name, seconds) for name, seconds in phases.items() if seconds > 0]
    return [*parts, (OTHER, rest)] if rest > 0.01 * (stage.seconds or 1.0) else parts
