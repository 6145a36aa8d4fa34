"""What the evaluate stages found: a table in which every row reads alike, paired differences, and who won."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strop.report.bars import Interval, interval_chart
from strop.report.charts import Chart
from strop.report.records import Figure, StageRun
from strop.report.text import decimals_of
from strop.report.verdict import compared_with, headline
from strop.report.wins import WinTable, is_of_wins, win_table, wins_of

MOST_ROWS = 200
MOST_SHOWN = 12
"""Stages in the picture at the top; the first and the latest of more."""

Figures = tuple[Figure | None, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric over the stages, with the decimals at which all its figures are shown."""

    name: str
    figures: Figures
    decimals: int


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one table; `n` holds by column the number that most of its figures rest on, None where none is known."""

    rows: tuple[Row, ...]
    n: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics by evaluate stage; `paired` are differences of stages to what each was compared with.

    Attributes: against: by column of `paired`, the stage and what it was compared with.
    """

    stages: tuple[StageRun, ...]
    plain: Block
    against: tuple[tuple[str, str], ...]
    paired: Block
    wins: WinTable


def evaluation_of(stages: Sequence[StageRun]) -> Evaluation:
    """The tables of some evaluate stages, the headline's row first."""
    names = list(dict.fromkeys(name for s in stages for name in s.metrics if not is_of_wins(name)))
    first = common_headline(stages)
    names.sort(key=lambda name: name != first)
    plain = [name for name in names if not name.startswith("delta/")]
    paired = [name for name in names if name.startswith("delta/")]
    both = [s for s in stages if any(name in s.metrics for name in paired)]
    return Evaluation(
        tuple(stages),
        block_of([row_of(name, [s.metrics.get(name) for s in stages]) for name in plain]),
        tuple((s.name, compared_with(s)) for s in both),
        block_of([row_of(name.removeprefix("delta/"), [s.metrics.get(name) for s in both]) for name in paired]),
        win_table([found for s in stages for found in wins_of(s)]),
    )


def block_of(rows: Sequence[Row]) -> Block:
    """A table of at most 200 rows."""
    shown = tuple(rows[:MOST_ROWS])
    return Block(shown, tuple(common_n(column) for column in zip(*(row.figures for row in shown), strict=True)))


def row_of(name: str, figures: Sequence[Figure | None]) -> Row:
    """A row with as many decimals as its largest value asks for, and for counts none."""
    values = [v for f in figures if f is not None for v in (f.value, f.low, f.high) if v is not None]
    whole = all(v == int(v) for v in values if math.isfinite(v)) and any(abs(v) > 1 for v in values)
    return Row(name, tuple(figures), 0 if whole else decimals_of(values))


def common_headline(stages: Sequence[StageRun]) -> str:
    """The metric that tells most of the last stage, of those that the most other stages have too."""
    if not stages:
        return ""
    counts: Mapping[str, int] = {
        name: sum(name in s.metrics for s in stages) for name in stages[-1].metrics if not is_of_wins(name)
    }
    shared = {
        n: stages[-1].metrics[n] for n in counts if counts[n] == max(counts.values()) and not n.startswith("delta/")
    }
    rest = {n: stages[-1].metrics[n] for n in counts if not n.startswith("delta/")}
    rewards = stages[-1].rewards
    return headline(shared, rewards) or headline(rest, rewards)


def hero_of(stages: Sequence[StageRun], chosen: str = "") -> Chart | None:
    """The headline metric over the evaluate stages; the one that was chosen, or the last, stands out."""
    name = common_headline(stages)
    strong = chosen or (stages[-1].name if stages else "")
    rows = [(s.name, s.metrics.get(name)) for s in stages]
    return intervals(name, [_interval(who, f, None, who == strong) for who, f in rows if f], "evaluation")


def intervals(title: str, rows: Sequence[Interval], stem: str) -> Chart | None:
    """Figures of one metric on one axis; None where there is nothing to draw."""
    found = [row for row in rows if math.isfinite(row.value)]
    if len(found) > MOST_SHOWN:
        found = [found[0], *found[1 - MOST_SHOWN :]]
    return interval_chart(title, found, stem=stem) if found else None


def sided(title: str, rows: Sequence[tuple[str, Figure | None, int]], stem: str) -> Chart | None:
    """Figures of several runs on one axis, each in the run's colour."""
    return intervals(title, [_interval(name, f, style, True) for name, f, style in rows if f], stem)


def _interval(name: str, figure: Figure, style: int | None, strong: bool) -> Interval:
    return Interval(name, figure.value, figure.low, figure.high, figure.n, style, strong)


def common_n(figures: Figures) -> int | None:
    """The n that most figures have, the first of equals."""
    known = Counter(f.n for f in figures if f is not None and f.n is not None)
    return known.most_common(1)[0][0] if known else None
