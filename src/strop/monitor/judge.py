"""What an evaluation shows beside those before it: figures, findings, and the alerts that hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.evaluate.statistics import Measure
from strop.monitor.alerts import Alert, confirmed, news, unconfirmed
from strop.monitor.figures import figures
from strop.monitor.hacking import held_out_falls, held_out_lags, unrelated
from strop.monitor.health import signs
from strop.monitor.lengths import length_explains
from strop.monitor.samples import Snapshot
from strop.monitor.settings import Thresholds
from strop.monitor.taken_up import phrases_taken_up
from strop.monitor.uptake import Counted, counted, uptakes
from strop.monitor.view import view


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation as it is recorded.

    Attributes: findings: what it shows by itself. alerts: what it and those before it show, and was not told yet.
    """

    step: int
    figures: Mapping[str, Measure]
    findings: tuple[Alert, ...] = ()
    alerts: tuple[Alert, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "step": self.step,
            "figures": {name: m.to_json() for name, m in self.figures.items()},
            "findings": [a.to_json() for a in self.findings],
            "alerts": [a.to_json() for a in self.alerts],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_json`."""
        return Evaluation(
            int(value["step"]),
            {name: Measure.from_json(m) for name, m in value["figures"].items()},
            tuple(Alert.from_json(a) for a in value["findings"]),
            tuple(Alert.from_json(a) for a in value["alerts"]),
        )


def findings(
    history: Sequence[Snapshot], thresholds: Thresholds, *, seed: int = 0, reference: Counted | None = None
) -> list[Alert]:
    """What the last of some evaluations shows, each finding on its own; of the first, whether rewards agree at all.

    Args: history: of the same prompts, the starting policy's first. reference: its phrases, if counted before.
    """
    start, now = history[0], history[-1]
    if len(history) == 1:
        return unrelated(start)
    seen = view(history, thresholds)
    grown = uptakes(counted(texts(now)), reference or counted(texts(start)), thresholds, paired=True)
    return [
        *held_out_falls(seen),
        *held_out_lags(seen),
        *phrases_taken_up(seen, grown),
        *length_explains(seen, seed=seed),
        *signs(seen),
    ]


def texts(snapshot: Snapshot) -> list[list[str]]:
    """The answers by prompt."""
    return [[sample.text for sample in row] for row in snapshot.samples]


@dataclass(slots=True)
class Watch:
    """All the evaluations of a stage so far.

    Attributes:
        patience: evaluations in a row that must show the same before it is told.
        snapshots: the samples of each evaluation; evaluations: what was made of them.
    """

    thresholds: Thresholds
    patience: int
    seed: int = 0
    snapshots: list[Snapshot] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    _reference: Counted | None = None

    def observe(self, snapshot: Snapshot, *, last: bool = False) -> Evaluation:
        """Take an evaluation in. last: none will follow, so that findings are told unconfirmed, as warnings."""
        self.snapshots.append(snapshot)
        if self._reference is None:
            self._reference = counted(texts(self.snapshots[0]))
        found = findings(self.snapshots, self.thresholds, seed=self.seed, reference=self._reference)
        rows = [list(e.findings) for e in self.evaluations] + [found]
        told = [alert for e in self.evaluations for alert in e.alerts]
        begins = len(self.snapshots) == 1
        held = found if begins else confirmed(rows[1:], self.patience)
        if last and not begins:
            held = [*held, *unconfirmed(rows[1:], self.patience)]
        shown = figures(snapshot, self.snapshots[0], seed=self.seed)
        evaluation = Evaluation(snapshot.step, shown, tuple(found), tuple(news(held, told)))
        self.evaluations.append(evaluation)
        return evaluation

    @property
    def alerts(self) -> list[Alert]:
        """All that was told."""
        return [alert for e in self.evaluations for alert in e.alerts]
