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

from strop.report.pairs import paired_difference
from strop.report.records import Event, Figure, Run, Sampled, StageRun
from strop.report.text import duration, moment, number, signed

Tone = Literal["better", "worse", "unclear", "none"]

HEADLINES = ("reward", "reward/mean", "accuracy", "*accuracy", "pass@1", "pass@*", "maj@*", "rewards/*")
"""Metrics a verdict may speak of where no reward is known, the most telling first; of all of them more is better."""

HACKING = ("held_out_falls", "phrase", "length", "test_gap")
"""Alarms that mean reward hacking."""

SCORERS = ("reward", "refresh", "process")
"""Stages that leave a model which scores."""

HELD_OUT = ("eval_first_error_accuracy", "eval_accuracy", "accuracy")
"""What such a model is worth on held-out rows, the most telling first."""

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
    stages, last = evaluated(run.stages), last_evaluated(run)
    claim = _claim(stages, last, run.samples) if last is not None else _of_scorer(run.stages)
    if last is not None and last.name == chosen_of(run) and last is not stages[-1]:
        taken = f"The run took the model of {last.name}, none of those evaluated after it."
        claim = replace(claim, caveats=(*claim.caveats, taken))
    if run.state == "finished" or claim.tone == "none":
        return claim
    unfinished = "The run did not finish; the verdict is on what it had reached."
    return replace(claim, caveats=(*claim.caveats, unfinished))


def chosen_of(run: Run) -> str:
    """The evaluate stage whose model the run took as the best of several; '' where it took the last."""
    return next((s.chosen for s in reversed(run.stages) if s.chosen), "")


def last_evaluated(run: Run) -> StageRun | None:
    """The evaluation of the model that the run ends with: the chosen one, or the last with a figure to speak of."""
    stages, chosen = evaluated(run.stages), chosen_of(run)
    spoken = [s for s in stages if headline(s.metrics, s.rewards)]
    return next((s for s in stages if s.name == chosen), None) or next(reversed(spoken or stages), None)


def _of_scorer(stages: Sequence[StageRun]) -> Claim:
    """Without an evaluation: what a reward model that the run ends with found on rows it was not trained on."""
    last = stages[-1] if stages else None
    name = next((n for n in HELD_OUT if n in last.metrics and math.isfinite(last.metrics[n].value)), "") if last else ""
    if last is None or last.kind not in SCORERS or not name:
        return Claim("none", "No evaluation was recorded, so nothing is claimed about quality.")
    found = with_interval(last.metrics[name])
    return Claim("none", f"{name} of {last.name} is {found} on held-out rows; no evaluation compares it with another.")


def _claim(stages: Sequence[StageRun], last: StageRun, samples: Mapping[str, Sequence[Sampled]]) -> Claim:
    """From the start to the end, on the same data; where the end is worse than what it began from, that first."""
    changes = {k.removeprefix("delta/"): v for k, v in last.metrics.items() if k.startswith("delta/")}
    paired = headline(changes, last.rewards)
    first, name = _start(stages, last, paired)
    step = _paired(paired, last) if paired else None
    if first is not None and not (paired and _stands_for(compared_with(last), first)):
        whole = _whole(name, first, last, samples)
        if step is None:
            return whole
        lead, other = (step, whole) if step.tone == "worse" else (whole, step)
        return replace(lead, caveats=(*lead.caveats, other.sentence))
    if step is not None:
        return step
    name = headline(last.metrics, last.rewards)
    if not name:
        return Claim("none", f"{last.name} has no figure that a verdict could rest on.")
    return Claim("none", f"{name} is {with_interval(last.metrics[name])} in {last.name}; there is nothing before.")


def _start(stages: Sequence[StageRun], last: StageRun, wanted: str) -> tuple[StageRun | None, str]:
    """The first evaluation on the data of the last one, and the metric to compare: `wanted` if both have it."""
    for stage in stages:
        shared = {
            name: figure
            for name, figure in last.metrics.items()
            if name in stage.metrics and math.isfinite(stage.metrics[name].value)
        }
        name = wanted if wanted in shared else headline(shared, last.rewards)
        if stage is not last and name and _same_data(stage, last):
            return stage, name
        if stage is last:
            break
    return None, ""


def _same_data(a: StageRun, b: StageRun) -> bool:
    """Whether two stages read the same rows, as far as is known."""
    known = a.data is not None and b.data is not None
    if known and a.data and b.data and a.data.sha256 and b.data.sha256:
        return a.data.sha256 == b.data.sha256
    return a.inputs.get("data", "") == b.inputs.get("data", "")


def compared_with(stage: StageRun) -> str:
    """What an evaluate stage was paired with: a model, or an earlier stage's answers."""
    return (stage.inputs.get("baseline") or stage.inputs.get("against") or "").removeprefix("@")


def _stands_for(name: str, stage: StageRun) -> bool:
    """Whether a model's or a stage's name is that of an evaluation, or of the model it measured."""
    return bool(name) and name in (stage.name, stage.inputs.get("model", "").removeprefix("@"))


def _paired(name: str, stage: StageRun) -> Claim:
    other = compared_with(stage) or "its baseline"
    now = stage.metrics.get(name)
    start = f"{name} in {stage.name} is {number(now.value, 3)}, " if now else f"{name} in {stage.name} is "
    return _compared(stage.metrics[f"delta/{name}"], start, f"{other} on the same prompts")


def _whole(name: str, first: StageRun, last: StageRun, samples: Mapping[str, Sequence[Sampled]]) -> Claim:
    """The last evaluation against the first, paired by prompt where the answers of all prompts of both are there."""
    before, after = first.metrics[name], last.metrics[name]
    start, other = f"{name} in {last.name} is {number(after.value, 3)}, ", f"{first.name}’s {number(before.value, 3)}"
    paired = paired_difference(samples.get(first.name, ()), samples.get(last.name, ()), name)
    if paired is not None and paired.n == before.n == after.n:
        return _compared(paired, start, f"{other} on the same prompts")
    return _compared(difference(before, after), start, other)


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


def headline(metrics: Mapping[str, Figure], rewards: Sequence[str] = ()) -> str:
    """The metric to speak of first, or '' if none of them is one where more is better.

    Args: rewards: what the user weighed answers by, in that order; it goes before all names that are known here.
    """
    for pattern in (*rewards, *HEADLINES):
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
