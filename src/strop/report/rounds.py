"""Stages of a repeated block as one: dpo-1, dpo-2, … stand one after the other on one axis."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strop.report.records import Points, Run, StageRun


@dataclass(frozen=True, slots=True)
class Trained:
    """A stage with curves, or all rounds of one.

    Attributes:
        name: the stage's, without its number where there are several rounds.
        series: (step, value) by metric, a round's steps after those of the round before.
        begins: the step at which each stage begins; of a single stage 0.
    """

    name: str
    stages: tuple[StageRun, ...]
    series: Mapping[str, Points]
    begins: tuple[int, ...]

    @property
    def kind(self) -> str:
        return self.stages[0].kind

    @property
    def rounds(self) -> tuple[int, ...]:
        """Where each round begins; nothing where there is one."""
        return self.begins if len(self.stages) > 1 else ()


def trained(run: Run) -> list[Trained]:
    """The stages with curves in the order of the run, rounds of one stage together at the place of the first."""
    blocks: dict[str, list[StageRun]] = {}
    numbered = _numbered([s for s in run.stages if run.curves.get(s.name)])
    for stage in run.stages:
        if run.curves.get(stage.name):
            blocks.setdefault(numbered.get(stage.name, stage.name), []).append(stage)
    return [_joined(name, stages, run.curves) for name, stages in blocks.items()]


def _numbered(stages: Sequence[StageRun]) -> dict[str, str]:
    """The common name of every stage that is a round: two or more of a kind, numbered from 1 without a gap."""
    found: dict[tuple[str, str], dict[int, str]] = {}
    for stage in stages:
        if match := re.fullmatch(r"(.+)-([1-9]\d{0,3})", stage.name):
            found.setdefault((match[1], stage.kind), {})[int(match[2])] = stage.name
    taken = {s.name for s in stages}
    return {
        name: base
        for (base, _), names in found.items()
        if len(names) > 1 and base not in taken and sorted(names) == list(range(1, len(names) + 1))
        for name in names.values()
    }


def _joined(name: str, stages: Sequence[StageRun], curves: Mapping[str, Mapping[str, Points]]) -> Trained:
    if len(stages) == 1:
        return Trained(name, tuple(stages), curves[stages[0].name], (0,))
    begins: list[int] = []
    series: dict[str, list[tuple[int, float]]] = {}
    at = 0
    for stage in stages:
        begins.append(at)
        own = curves[stage.name]
        for metric, points in own.items():
            series.setdefault(metric, []).extend((at + step, value) for step, value in points)
        at += 1 + max(step for points in own.values() for step, _ in points) if own else 0
    merged = {metric: tuple(sorted(dict(points).items())) for metric, points in series.items()}
    return Trained(name, tuple(stages), merged, tuple(begins))
