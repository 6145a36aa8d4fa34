"""A training stage's plots by its method, with its closing figures and what else it recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strop.report.calibration import reliability_chart
from strop.report.charts import MAX_SERIES, Chart, Mark, Series, line_chart
from strop.report.curves import kind_of, plots_of, remaining
from strop.report.page import Limits
from strop.report.plane import rewards_by_distance
from strop.report.records import Event, Points, Run, StageRun
from strop.report.rounds import Trained

MOST_MARKS = 12
WORDS = {
    "sft": "supervised fine-tuning",
    "preference": "preference optimisation",
    "unpaired": "preference optimisation, unpaired",
    "rl": "reinforcement learning",
    "ppo": "reinforcement learning with a critic",
    "reward": "reward model",
    "refresh": "reward model, refreshed",
    "process": "process reward model",
    "online": "online preference optimisation",
}


@dataclass(frozen=True, slots=True)
class Training:
    """A training stage's plots, and those of everything else it recorded.

    Attributes: stages: more than one where they are rounds. special: what is not drawn over the step.
    """

    name: str
    kind: str
    words: str
    stages: tuple[StageRun, ...]
    special: tuple[Chart, ...]
    charts: tuple[Chart, ...]
    others: tuple[Chart, ...]
    not_drawn: tuple[str, ...]

    @property
    def state(self) -> str:
        """How it ended; nothing where rounds ended differently."""
        states = {stage.state for stage in self.stages}
        return states.pop() if len(states) == 1 else ""


def training_of(run: Run, block: Trained, flagged: Sequence[Event], limits: Limits) -> Training:
    """The plots of a stage, or of all its rounds on one axis."""
    series = block.series
    kind = kind_of(block.kind, list(series))
    marks = _marks(block, flagged)

    def chart(title: str, unit: str, names: Sequence[str], limit: int) -> Chart:
        shown = [Series(name, series[name]) for name in names]
        return line_chart(title, unit, shown, limit=limit, marks=marks, rounds=block.rounds, stem=block.name)

    plots = [(plot, names) for plot, names in plots_of(kind, series, MAX_SERIES) if _worth(names, series)]
    charts = [chart(plot.title, plot.unit, names, limits.points) for plot, names in plots[: limits.plots]]
    rest = [name for name in remaining(kind, series) if _worth([name], series)]
    others = [chart(name, "", [name], limits.points // 2) for name in rest[: max(0, limits.plots - len(charts))]]
    left_out = [name for _, names in plots[limits.plots :] for name in names] + rest[len(others) :]
    return Training(
        name=block.name,
        kind=kind,
        words=WORDS.get(kind, kind),
        stages=block.stages,
        special=tuple(special_of(run, block)),
        charts=tuple(charts),
        others=tuple(others),
        not_drawn=tuple(left_out),
    )


def _worth(names: Sequence[str], series: Mapping[str, Points]) -> bool:
    """Whether a plot says more than the closing figures: not of one point, but of a stage that trained one step."""
    return "learning_rate" in series or any(len(series[name]) > 1 for name in names)


def special_of(run: Run, block: Trained) -> list[Chart]:
    """What has another axis than the step, of the last round: rewards over the distance, and the calibration."""
    last = block.stages[-1].name
    found = rewards_by_distance(run.looks.get(last, ()), last), reliability_chart(run.calibration.get(last, {}), last)
    return [chart for chart in found if chart is not None]


def _marks(block: Trained, flagged: Sequence[Event]) -> list[Mark]:
    begins = {
        stage.name: (place, begin) for place, (stage, begin) in enumerate(zip(block.stages, block.begins, strict=True))
    }
    found = []
    for number, event in enumerate(flagged, start=1):
        if event.stage in begins and event.step is not None and event.step >= 0:
            place, begin = begins[event.stage]
            where = f"round {place + 1}, step {event.step:,}" if block.rounds else ""
            found.append(Mark(begin + event.step, number, where))
    return found[:MOST_MARKS]
