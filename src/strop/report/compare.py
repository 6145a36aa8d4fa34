"""Two to eight runs side by side: what they differ in, how good each is, their curves and their answers.

The first run is the one that the others are compared with. Differences are paired by prompt where the
runs were evaluated on the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from strop.report.bars import Bar, stacked_bars
from strop.report.charts import MAX_SERIES, Chart, Series, line_chart
from strop.report.curves import kind_of, plots_of
from strop.report.evaluation import Block, block_of, common_headline, row_of, sided
from strop.report.page import Limits, fitted, write
from strop.report.pairs import keyed, value_of
from strop.report.read import read_run
from strop.report.records import Event, Figure, Run, Sampled, StageRun
from strop.report.rounds import Trained, trained
from strop.report.samples import Comparison, compare
from strop.report.settings import Row, differences
from strop.report.speed import phases_of
from strop.report.tables import slug
from strop.report.text import duration, first_line
from strop.report.verdict import Claim, alerts, evaluated, last_evaluated, state_sentence, verdict

FEWEST, MOST = 2, MAX_SERIES
LETTERS = "ABCDEFGH"
LAST = "the last evaluation of each"
MOST_NAME = 120


@dataclass(frozen=True, slots=True)
class Side:
    """One of the runs: its letter, which also stands for its colour and dashes, and what it came to."""

    place: int
    folder: str
    short: str
    run: Run
    claim: Claim
    alerts: tuple[Event, ...]

    @property
    def letter(self) -> str:
        return LETTERS[self.place]

    @property
    def label(self) -> str:
        """What legends say."""
        return f"{self.letter} {first_line(self.short, 34)}"

    @property
    def story(self) -> str:
        """How it ended."""
        return state_sentence(self.run)


@dataclass(frozen=True, slots=True)
class Judged:
    """One evaluation that several runs have, or the last of each.

    Attributes:
        stages: each run's. paired: differences to the first run that has it, on the same prompts.
        other_data: whether it is known that they were not all evaluated on the same rows.
    """

    stage: str
    sides: tuple[Side, ...]
    stages: tuple[str, ...]
    plain: Block
    paired: Block
    other_data: bool


def write_comparison(run_dirs: Sequence[Path], to: Path | None = None) -> Path:
    """Write one page about several runs, beside the first of them unless `to` says where; its path.

    Raises: ValueError if there are fewer than 2 runs or more than 8, one twice, or one is not there.
    """
    if not FEWEST <= len(run_dirs) <= MOST:
        raise ValueError(f"{len(run_dirs)} runs; a comparison is of {FEWEST} to {MOST}")
    folders = [path.resolve() for path in run_dirs]
    if twice := next((path for place, path in enumerate(folders) if path in folders[:place]), None):
        raise ValueError(f"{twice.name} is named twice; name each run once")
    sides = sides_of(run_dirs)
    path = to or folders[0].parent / _file_name([folder.name for folder in folders])
    whole = whole_of(sides)
    return write(path, fitted("compare.html", lambda limits: {**whole, **fitted_of(sides, whole["judged"], limits)}))


def _file_name(names: Sequence[str]) -> str:
    whole = "compare-" + "-vs-".join(names)
    if len(whole) > MOST_NAME:
        whole = f"compare-{names[0][:60]}-and-{len(names) - 1}-more-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return f"{whole}.html"


def sides_of(run_dirs: Sequence[Path]) -> list[Side]:
    """The runs, read."""
    names = [path.resolve().name for path in run_dirs]
    runs = [read_run(path) for path in run_dirs]
    return [
        Side(place, name, short, run, verdict(run), tuple(alerts(run)))
        for place, (name, short, run) in enumerate(zip(names, shortened(names), runs, strict=True))
    ]


def shortened(names: Sequence[str]) -> list[str]:
    """The names without the words that all of them begin with: dpo-20260101-a1 and dpo-20260101-b2 are a1 and b2."""
    words = [name.split("-") for name in names]
    num = 0
    while num < min(map(len, words)) - 1 and len({tuple(parts[: num + 1]) for parts in words}) == 1:
        num += 1
    return ["-".join(parts[num:]) for parts in words]


def whole_of(sides: Sequence[Side]) -> dict[str, Any]:
    """What the template shows however large it gets, under the names it uses."""
    judged = judged_of(sides)
    return {
        "sides": sides,
        "settings": differences([side.run for side in sides]),
        "judged": judged[::-1],
        "hero": _hero(judged[-1]) if judged else None,
        "sources": sources_of(sides),
        "time": _time(sides),
        "facts": facts_of(sides),
        "alerts": (),
    }


def fitted_of(sides: Sequence[Side], judged: Sequence[Judged], limits: Limits) -> dict[str, Any]:
    """What it shows more or less of: curves and answers."""
    names, answers = answers_of(judged[0], limits.prompts) if judged else ((), ())
    return {"stages": charts_of(sides, limits), "answers": answers, "answering": names}


# Evaluation.


def judged_of(sides: Sequence[Side]) -> list[Judged]:
    """Every evaluation that at least two runs have, in order, and at the end the one that each run ends with."""
    found = [{s.name: s for s in evaluated(side.run.stages)} for side in sides]
    order = max(found, key=len)
    shared = [name for name in order if sum(name in one for one in found) > 1]
    judged = [
        _judged(name, [(side, one[name]) for side, one in zip(sides, found, strict=True) if name in one])
        for name in shared
    ]
    ends = [(side, end) for side in sides if (end := last_evaluated(side.run)) is not None]
    if {stage.name for _, stage in ends} == set(shared[-1:]) or len(ends) < FEWEST:
        return judged
    return [*judged, _judged(LAST, ends)]


def _judged(name: str, stages: Sequence[tuple[Side, StageRun]]) -> Judged:
    metrics = dict.fromkeys(m for _, s in stages for m in s.metrics if not m.startswith("delta/"))
    first = common_headline([s for _, s in stages])
    ordered = sorted(metrics, key=lambda m: m != first)
    plain = block_of([row_of(m, [s.metrics.get(m) for _, s in stages]) for m in ordered])
    samples = [side.run.samples.get(stage.name, ()) for side, stage in stages]
    sides, names = tuple(side for side, _ in stages), tuple(stage.name for _, stage in stages)
    rows = {(s.data.sha256, s.data.kept) for _, s in stages if s.data and s.data.sha256}
    return Judged(name, sides, names, plain, _paired(samples), len(rows) > 1)


def _paired(samples: Sequence[Sequence[Sampled]]) -> Block:
    """Each run's rewards less the first one's, prompt by prompt."""
    from strop.evaluate.statistics import paired  # imports numpy, which a report of one run does without

    sides = [keyed(groups) for groups in samples]
    names = dict.fromkeys(name for group in sides[0].values() for answer in group.answers for name in answer.rewards)
    rows = []
    for name in ("score", *names):
        figures: list[Figure | None] = []
        for other in sides[1:]:
            shared = [key for key in sides[0] if key in other]
            values = [[[value_of(a, name) for a in one[key].answers] for key in shared] for one in (other, sides[0])]
            found = paired(values[0], values[1]) if shared else None
            figures.append(Figure(found.value, found.low, found.high, found.n) if found and found.n else None)
        if any(figure is not None for figure in figures):
            rows.append(row_of(name, figures))
    return block_of(rows)


def _hero(judged: Judged) -> Chart | None:
    if not judged.plain.rows:
        return None
    row = judged.plain.rows[0]
    rows = [(side.label, figure, side.place) for side, figure in zip(judged.sides, row.figures, strict=True)]
    return sided(f"{row.name} in {judged.stage}", rows, "comparison")


def answers_of(judged: Judged, limit: int) -> tuple[Sequence[str], tuple[Comparison, ...]]:
    """The runs that kept their answers, and prompts that at least two answered, first where they differ most."""
    samples = {
        side.label: groups
        for side, stage in zip(judged.sides, judged.stages, strict=True)
        if (groups := side.run.samples.get(stage))
    }
    rows = compare(samples, max(map(len, samples.values()), default=0))
    rows = tuple(row for row in rows if sum(cell is not None for cell in row.cells) > 1)
    return list(samples), tuple(sorted(rows, key=_spread, reverse=True)[:limit])


def _spread(row: Comparison) -> float:
    means = [cell.mean for cell in row.cells if cell is not None and cell.mean is not None]
    return max(means) - min(means) if len(means) == len(row.cells) else -1.0


# Where they come from.


def sources_of(sides: Sequence[Side]) -> list[Row]:
    """Hashes of base models, data and what each stage left, where at least two runs have them."""
    found: list[dict[str, str]] = []
    for side in sides:
        hashes = {f"model {e.get('name', '')}": e.get("hash", "") for e in side.run.lineage}
        data = {f"data of {s.name}": s.data.sha256 for s in side.run.stages if s.data and s.data.sha256}
        found.append({**hashes, **data})
    names = dict.fromkeys(name for one in found for name in one)
    return [(n, tuple(one.get(n, "") for one in found)) for n in names if sum(n in one for one in found) > 1]


def facts_of(sides: Sequence[Side]) -> list[Row]:
    """Time, memory, seed, version and command of each run."""
    runs = [side.run for side in sides]
    peaks = [max((s.peak_memory_mb for s in run.stages if s.peak_memory_mb is not None), default=None) for run in runs]
    return [
        ("time", tuple(duration(run.seconds) for run in runs)),
        ("peak memory", tuple("–" if mb is None else f"{mb:,.0f} MB" for mb in peaks)),
        ("tokens a second", tuple(_throughput(run) for run in runs)),
        ("seed", tuple(run.seed or "–" for run in runs)),
        ("version", tuple(run.version or "–" for run in runs)),
    ]


def _throughput(run: Run) -> str:
    """Each stage's median."""
    told = []
    for name, series in run.curves.items():
        speeds = sorted(value for _, value in series.get("tokens_per_s", ()) if value > 0)
        told += [f"{name} {speeds[len(speeds) // 2]:,.0f}"] if speeds else []
    return ", ".join(told) or "–"


def _time(sides: Sequence[Side]) -> Chart | None:
    bars = []
    for side in sides:
        total: dict[str, float] = {}
        for stage in side.run.stages:
            for phase, seconds in phases_of(stage, side.run.curves.get(stage.name, {})):
                total[phase] = total.get(phase, 0.0) + seconds
        bars += [Bar(side.label, tuple(total.items()))] if total else []
    return stacked_bars("Time by phase", bars) if bars else None


# Curves.


@dataclass(frozen=True, slots=True)
class Overlaid:
    """A stage that several runs trained, with one plot a metric and one curve a run."""

    name: str
    charts: tuple[Chart, ...]


def charts_of(sides: Sequence[Side], limits: Limits) -> list[Overlaid]:
    """The stages that at least two runs have, by name."""
    blocks = [{block.name: block for block in trained(side.run)} for side in sides]
    names = dict.fromkeys(name for one in blocks for name in one)
    shared = [name for name in names if sum(name in one for one in blocks) > 1][: limits.stages]
    found = [
        Overlaid(
            name,
            tuple(_overlaid(name, [(s, b[name]) for s, b in zip(sides, blocks, strict=True) if name in b], limits)),
        )
        for name in shared
    ]
    return [one for one in found if one.charts]


def _overlaid(name: str, blocks: Sequence[tuple[Side, Trained]], limits: Limits) -> list[Chart]:
    """One plot for each metric that the method's plots show and two runs have."""
    metrics = {metric: points for _, block in blocks for metric, points in block.series.items()}
    kind = kind_of(blocks[0][1].kind, list(metrics))
    same = all(a.rounds == b.rounds for (_, a), (_, b) in pairwise(blocks))
    charts = []
    for plot, found in plots_of(kind, metrics, MAX_SERIES):
        for metric in found:
            curves = [Series(side.label, b.series[metric], side.place) for side, b in blocks if metric in b.series]
            if len(curves) < FEWEST:
                continue
            title = plot.title if len(found) == 1 else f"{plot.title}: {metric}"
            rounds = blocks[0][1].rounds if same else ()
            stem = slug(f"compare {name}")
            limit = max(20, limits.points * 2 // (1 + len(curves)))
            charts.append(line_chart(title, plot.unit, curves, limit=limit, rounds=rounds, stem=stem))
    return charts[: limits.plots]
