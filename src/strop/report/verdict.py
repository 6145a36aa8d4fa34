"""What a report says first: how the run ended, and what its evaluations show. Pure functions.

A claim of better or worse is made only from an interval that leaves zero out. Without evaluation
nothing is claimed: a falling loss is not a better model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from strop.report.read import Event, Figure, Run, StageRun
from strop.report.text import duration, moment, number, signed

Tone = Literal["better", "worse", "unclear", "none"]

HEADLINES = ("reward", "reward/mean", "win_rate*", "accuracy", "*accuracy", "pass@1", "pass@*", "maj@*", "rewards/*")
"""Metrics a verdict may speak of, the most telling first; of all of them more is better."""

HACKING = ("held_out_falls", "phrase", "length", "test_gap")
"""Alarms that mean reward hacking."""

NOT_HEADLINES = ("*/std", "*_std")


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence about quality, which way it points, and what qualifies it."""

    tone: Tone
    sentence: str
    caveats: tuple[str, ...] = ()


def state_sentence(run: Run) -> str:
    """How the run ended and where it stood."""
    where = _position(run)
    took = f" after {duration(run.seconds)}" if run.seconds is not None else ""
    if run.state == "finished":
        return f"Finished{took}."
    if run.state == "failed":
        return f"Failed{where}{took}."
    if run.state == "interrupted":
        return f"Interrupted{where}{took}; run its directory again to resume."
    if run.state == "running":
        since = f"; last sign of life {moment(run.updated)}" if run.updated is not None else ""
        return f"Marked as running{where}{since}. If no process works on it, it was killed and can be resumed."
    return "How this run ended is not recorded."


def _position(run: Run) -> str:
    step = "" if run.step is None else f" at step {run.step:,}" + (f" of {run.steps:,}" if run.steps else "")
    return f" in stage {run.stage}{step}" if run.stage else step


def verdict(run: Run) -> Claim:
    """The claim about quality, and what qualifies it."""
    claim = _claim(evaluated(run.stages))
    if run.state == "finished" or claim.tone == "none":
        return claim
    return replace(claim, caveats=("The run did not finish; the verdict is on what it had reached.",))


def _claim(stages: Sequence[StageRun]) -> Claim:
    if not stages:
        return Claim("none", "No evaluation was recorded, so nothing is claimed about quality.")
    first, last = stages[0], stages[-1]
    paired = headline({k.removeprefix("delta/"): v for k, v in last.metrics.items() if k.startswith("delta/")})
    if paired:
        return _paired(paired, last)
    name = headline(
        {k: v for k, v in last.metrics.items() if k in first.metrics and math.isfinite(first.metrics[k].value)}
    )
    if not name:
        return Claim("none", f"{last.name} has no figure that a verdict could rest on.")
    if first is last:
        return Claim("none", f"{name} is {with_interval(last.metrics[name])} in {last.name}; there is nothing before.")
    return _unpaired(name, first, last)


def _paired(name: str, stage: StageRun) -> Claim:
    baseline = stage.inputs.get("baseline", "").removeprefix("@") or "its baseline"
    now = stage.metrics.get(name)
    start = f"{name} in {stage.name} is {number(now.value, 3)}, " if now else f"{name} in {stage.name} is "
    return _compared(stage.metrics[f"delta/{name}"], start, f"{baseline} on the same prompts")


def _unpaired(name: str, first: StageRun, last: StageRun) -> Claim:
    delta = difference(first.metrics[name], last.metrics[name])
    start = f"{name} in {last.name} is {number(last.metrics[name].value, 3)}, "
    return _compared(delta, start, f"{first.name} ({number(first.metrics[name].value, 3)})")


def _compared(delta: Figure, start: str, other: str) -> Claim:
    tone = tone_of(delta)
    if tone == "better":
        return Claim(tone, f"Better: {start}{number(delta.value, 3)} above {other} ({_bounds(delta, number)}).")
    if tone == "worse":
        flipped = Figure(-delta.value, -(delta.high or 0.0), -(delta.low or 0.0), delta.n)
        return Claim(tone, f"Worse: {start}{number(flipped.value, 3)} below {other} ({_bounds(flipped, number)}).")
    against = f"{start}{signed(delta.value, 3)} against {other}"
    if tone == "unclear":
        return Claim(tone, f"No difference shown: {against} ({_bounds(delta, signed)}).")
    return Claim(tone, f"Not decided: {against}, and without an interval that shows nothing.")


def evaluated(stages: Sequence[StageRun]) -> list[StageRun]:
    """The evaluate stages that have figures, in run order."""
    return [s for s in stages if s.kind == "evaluate" and s.metrics]


def alerts(run: Run) -> list[Event]:
    """Events that a reader must not miss: errors, alarms (reward hacking first), steps that were not finite.

    Then what a monitor warns of. The error that ended the run is shown by itself and is not among them.
    What a resumed run said again counts once.
    """
    order = ("error", "hacking", "alarm", "nonfinite", "warning")
    found = [(e, _sort_of(e)) for e in run.events if not (e.kind == "error" and e.text == run.error)]
    once = {(e.kind, e.stage, e.step, e.text): (e, sort) for e, sort in found if sort in order}
    return [e for e, _ in sorted(once.values(), key=lambda pair: order.index(pair[1]))]


def _sort_of(event: Event) -> str:
    """An event's kind, told apart by what raised it: warnings are a monitor's only."""
    if event.kind == "alarm" and event.code in HACKING:
        return "hacking"
    return "" if event.kind == "warning" and not event.code else event.kind


def headline(metrics: Mapping[str, Figure]) -> str:
    """The metric to speak of first, or '' if none of them is one where more is better."""
    for pattern in HEADLINES:
        for name, figure in metrics.items():
            is_good = fnmatchcase(name, pattern) and not any(fnmatchcase(name, bad) for bad in NOT_HEADLINES)
            if is_good and math.isfinite(figure.value):
                return name
    return ""


def difference(before: Figure, after: Figure) -> Figure:
    """after - before with an interval from the two intervals, taken as independent.

    L = d - sqrt((a - l_a)^2 + (u_b - b)^2), U = d + sqrt((u_a - a)^2 + (b - l_b)^2), the method of
    variance estimates recovery (Zou and Donner 2008, Statistics in Medicine 27, eq. 3 with its
    upper twin). On the same prompts it is wider than a paired interval, never too sure.
    """
    change = after.value - before.value
    n = None if before.n is None or after.n is None else min(before.n, after.n)
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return Figure(change, n=n)
    down = math.hypot(after.value - after.low, before.high - before.value)
    up = math.hypot(after.high - after.value, before.value - before.low)
    return Figure(change, change - down, change + up, n)


def tone_of(delta: Figure) -> Tone:
    """Which way a difference points: only an interval without zero points anywhere."""
    if delta.low is None or delta.high is None:
        return "none"
    return "better" if delta.low > 0 else "worse" if delta.high < 0 else "unclear"


def with_interval(figure: Figure) -> str:
    """A value with its interval and n, as text."""
    bounds = _bounds(figure, number)
    return f"{number(figure.value, 3)} ({bounds})" if bounds else number(figure.value, 3)


def _bounds(figure: Figure, show: Callable[[float | None, int], str]) -> str:
    parts = []
    if figure.low is not None and figure.high is not None:
        parts.append(f"95\u00a0% interval {show(figure.low, 3)} to {show(figure.high, 3)}")
    if figure.n is not None:
        parts.append(f"n\u00a0=\u00a0{figure.n:,}")
    return ", ".join(parts)
