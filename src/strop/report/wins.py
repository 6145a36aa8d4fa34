"""Who won against whom: wins, ties and losses as a bar, both orders, and the rate at equal length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from strop.report.charts import Chart
from strop.report.frame import WIDTH, svg_of
from strop.report.records import Figure, StageRun
from strop.report.tables import Table, slug
from strop.report.text import first_line, number

PARTS = ("wins", "ties", "losses")
ASIDE = ("length_controlled", "flip_rate", "position_bias")
"""Names that mean this wherever they stand; the others only beside `win_rate`."""
WORDS = {
    "win_rate": "win rate",
    "length_controlled": "at equal length",
    "wins": "wins",
    "ties": "ties",
    "losses": "losses",
    "flip_rate": "flipped with the order",
    "first": "shown first",
    "second": "shown second",
    "position_bias": "position bias",
    "longer": "ours is longer",
    "abstained": "not decided",
}
FAMILY = tuple(WORDS)
LINE, LEFT = 30, 214


@dataclass(frozen=True, slots=True)
class Wins:
    """One comparison of two models by one measure.

    Attributes:
        by: what decided: a reward's or a judge's name.
        figures: by `FAMILY` name, in its order.
        aside: whether it is a reward that counts for nothing, beside others that do.
    """

    stage: str
    by: str
    figures: dict[str, Figure]
    aside: bool = False

    @property
    def n(self) -> int | None:
        """What the win rate rests on."""
        rate = self.figures.get("win_rate")
        return None if rate is None else rate.n


@dataclass(frozen=True, slots=True)
class WinTable:
    """All comparisons, with the columns that any of them has: the figure's name and its words."""

    rows: tuple[Wins, ...]
    columns: tuple[tuple[str, str], ...]


def win_table(rows: Sequence[Wins]) -> WinTable:
    """The comparisons as a table."""
    return WinTable(tuple(rows), tuple((name, WORDS[name]) for name in FAMILY if any(name in w.figures for w in rows)))


def is_of_wins(name: str) -> bool:
    """Whether a metric tells of wins: `win_rate/X`, `X/ties`, `win_rate/X/flip_rate` and such."""
    return bool(_split(name)[0])


def _split(name: str) -> tuple[str, str]:
    """The figure and what decided it; ('', name) for another metric."""
    parts = name.split("/")
    if "win_rate" not in parts and not any(part in PARTS for part in (parts[0], parts[-1])):
        alone = parts[0] if parts[0] in FAMILY else parts[-1] if parts[-1] in FAMILY else ""
        return (alone, "/".join(p for p in parts if p != alone)) if alone in ASIDE else ("", name)
    found = [part for part in parts if part in FAMILY]
    figure = next((part for part in reversed(found) if part != "win_rate"), "win_rate")
    return figure, "/".join(part for part in parts if part not in found)


def wins_of(stage: StageRun) -> list[Wins]:
    """The comparisons that a stage measured."""
    by: dict[str, dict[str, Figure]] = {}
    for name, figure in stage.metrics.items():
        told, decided = _split(name)
        if told:
            by.setdefault(decided, {})[told] = figure
    counted = any(decided in stage.rewards for decided in by)
    return [
        Wins(
            stage.name,
            decided,
            {name: figures[name] for name in FAMILY if name in figures},
            aside=counted and decided in stage.metrics and decided not in stage.rewards,
        )
        for decided, figures in by.items()
    ]


def wins_chart(found: Sequence[Wins]) -> Chart | None:
    """One bar a comparison, cut into wins, ties and losses; None where nothing says so much.

    Rewards that count for nothing are in the table only.
    """
    rows = [w for w in found if all(part in w.figures for part in PARTS) and _total(w) > 0 and not w.aside]
    if not rows:
        return None
    bars = [_bar(w, 4 + LINE * i) for i, w in enumerate(rows)]
    label = "Wins, ties and losses. " + " ".join(f"{_name(w)}: {_in_words(w)}." for w in rows)
    header = ("stage", "by", *(f"{name}{end}" for name in FAMILY for end in ("", " low", " high", " n")))
    table = Table(header, tuple((w.stage, w.by, *_cells(w)) for w in found))
    svg = svg_of(LINE * len(rows) + 8, label, Markup("").join(bars))
    return Chart("Wins, ties and losses", "share of prompts", svg, table, slug("win rates") + ".csv", legend=PARTS)


def _total(w: Wins) -> float:
    return math.fsum(v for part in PARTS if math.isfinite(v := w.figures[part].value))


def _name(w: Wins) -> str:
    return f"{w.stage} by {w.by}" if w.by else w.stage


def _bar(w: Wins, y: float) -> Markup:
    """Wins from the left, losses to the right, ties between them."""
    left, total = float(LEFT), _total(w)
    parts = [Markup('<text class="name" x="0" y="{}" dy=".34em">{}</text>').format(y + 11, first_line(_name(w), 27))]
    for place, part in enumerate(PARTS):
        share = max(0.0, w.figures[part].value) / total if math.isfinite(w.figures[part].value) else 0.0
        width = share * (WIDTH - LEFT)
        if width > 0:
            box = Markup('x="{:.1f}" y="{}" width="{:.1f}" height="22"').format(left, y, max(width - 1, 0.5))
            parts.append(Markup('<rect class="{}" {}/>').format(("won", "tied", "lost")[place], box))
        if width > 44:
            text = Markup('<text class="in {}" x="{:.1f}" y="{}" text-anchor="middle" dy=".34em">{}</text>')
            words = ("on-won", "on-tied", "on-lost")[place], left + width / 2, y + 11, f"{share:.0%}"
            parts.append(text.format(*words))
        left += width
    return Markup("").join(parts)


def _in_words(w: Wins) -> str:
    return ", ".join(f"{part} {number(w.figures[part].value, 3)}" for part in PARTS)


def _cells(w: Wins) -> list[float | None]:
    figures = [w.figures.get(name) for name in FAMILY]
    return [v for f in figures for v in ((f.value, f.low, f.high, f.n) if f is not None else (None,) * 4)]
