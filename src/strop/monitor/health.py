"""Signs of a policy that is going to pieces, or of a reward that cannot be relied on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from strop.monitor.alerts import Alert, Severity, examples
from strop.monitor.gains import LENIENT, differences
from strop.monitor.numbers import Change, change
from strop.monitor.samples import Sample, Snapshot, Value, proxy
from strop.monitor.text import repetition
from strop.monitor.view import View, with_bounds

EQUAL = 0.9
"""Share of prompts whose answers all score the same, above which nothing is left to learn from."""


def signs(view: View) -> Iterator[Alert]:
    """Everything that looks wrong beside the rewards themselves."""
    yield from _repetition(view)
    yield from _entropy(view)
    yield from _clipped(view)
    yield from _no_signal(view)
    yield from _test_gap(view)
    yield from _flips(view)
    yield from _disagreement(view)


def repeats(sample: Sample) -> float:
    """The share of an answer's runs of four words that repeat an earlier one."""
    return repetition(sample.text)


def cut(sample: Sample) -> float | None:
    """1 for an answer cut by the length limit, 0 for one that ended; None where it is not known."""
    return None if sample.is_cut is None else float(sample.is_cut)


def entropy(sample: Sample) -> float | None:
    """The mean of -log-prob over an answer's tokens, nats."""
    return sample.entropy


def fact(name: str) -> Value:
    """A fact that a reward stated."""
    return lambda sample: sample.facts.get(name)


def visible_gap(sample: Sample) -> float | None:
    """Visible less hidden tests passed, shares."""
    visible, hidden = sample.facts.get("visible"), sample.facts.get("hidden")
    return None if visible is None or hidden is None else visible - hidden


def mean(now: Snapshot, of: Value) -> float:
    """The mean over prompts; NaN where there is none."""
    values = now.means(of)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def flips(sample: Sample) -> float | None:
    """The share of an answer's judgements that turn with the order."""
    return sample.facts.get("flip_rate", sample.facts.get("flipped"))


def _since_start(view: View, of: Value) -> Change:
    return change(differences(view.now, view.start, of), view.level)


def _places(now: Snapshot, of: Value) -> dict[tuple[int, int], float]:
    """A number of every answer that has it, by prompt and place."""
    rows = enumerate(now.values(of))
    return {(i, j): value for i, row in rows for j, value in enumerate(row) if value is not None}


def _repetition(view: View) -> Iterator[Alert]:
    limit, now = view.thresholds.repetition, mean(view.now, repeats)
    risen = _since_start(view, repeats)
    if not (risen.up and now >= limit):
        return
    bad = now >= (1 + limit) / 2 and not view.rises
    badness = _places(view.now, repeats)
    since = f"{with_bounds(risen, view.level)} since the start"
    what = f"{now:.0%} of an answer's runs of four words repeat earlier ones, {since}."
    cause = "The policy falls into loops: the reward pays for length or for single words, or the steps are too large."
    fix = "Lower optimizer.lr, or add the repetition penalty to the rewards."
    found = {"now": now, "change": risen.value}
    level: Severity = "alarm" if bad else "warning"
    yield Alert("repetition", level, view.now.step, what, cause, fix, "", found, examples(view.now, badness))


def _entropy(view: View) -> Iterator[Alert]:
    now, start = mean(view.now, entropy), mean(view.start, entropy)
    fallen = _since_start(view, entropy)
    if not (fallen.down and start > 0 and now < view.thresholds.entropy * start):
        return
    before = mean(view.history[-2], entropy)
    what = (
        f"Entropy is {now:.3g} nats a token, {now / start:.0%} of the {start:.3g} at the start "
        f"({with_bounds(fallen, view.level)}; {now - before:+.2g} since the last evaluation)."
    )
    cause = "The policy hardly explores any more, so that groups will score alike."
    fix = "Raise the KL's weight or clip higher above than below; if the task is solved, stop."
    level: Severity = "info" if view.rises else "warning"  # so it goes where a task is being solved
    yield Alert("entropy", level, view.now.step, what, cause, fix, "", {"now": now, "start": start})


def _clipped(view: View) -> Iterator[Alert]:
    risen, now = _since_start(view, cut), mean(view.now, cut)
    if not (risen.up and now >= view.thresholds.clipped):
        return
    what = f"{now:.0%} of answers are cut by the length limit, {with_bounds(risen, view.level)} since the start."
    cause = "Answers grow into the limit, and a cut one is scored without its end."
    fix = "Raise sampling.max_completion_length, or penalise answers that do not end."
    badness = {(i, j): s.length for i, row in enumerate(view.now.samples) for j, s in enumerate(row) if s.is_cut}
    found = {"now": now, "change": risen.value}
    yield Alert("clipped", "warning", view.now.step, what, cause, fix, "", found, examples(view.now, badness))


def equal_groups(now: Snapshot) -> float:
    """The share of prompts whose answers all have one score; NaN where none has two scores."""
    rows = [[v for v in row if v is not None] for row in now.values(proxy)]
    several = [len(set(row)) == 1 for row in rows if len(row) > 1]
    return sum(several) / len(several) if several else math.nan


def _no_signal(view: View) -> Iterator[Alert]:
    now = equal_groups(view.now)
    if not now >= EQUAL:
        return
    what = f"In {now:.0%} of prompts all answers score the same, {mean(view.now, proxy):.3g} on average."
    cause = "Group methods learn from differences, and there are hardly any."
    fix = "Take harder or easier prompts, or stop."
    yield Alert("no_signal", "info", view.now.step, what, cause, fix, "", {"now": now})


def _test_gap(view: View) -> Iterator[Alert]:
    risen, now = _since_start(view, visible_gap), mean(view.now, visible_gap)
    if not (risen.up and risen.value >= view.thresholds.gap):
        return
    what = (
        f"Visible tests pass {now:+.0%} more often than hidden ones, {with_bounds(risen, view.level)} since the start."
    )
    hidden = change(differences(view.now, view.start, fact("hidden")), LENIENT)
    cause = "Programs are written for the tests that are shown, not for the task."
    fix = "Reward hidden tests only, and have more of them."
    badness = _places(view.now, visible_gap)
    level: Severity = "warning" if hidden.up else "alarm"
    found = {"now": now, "change": risen.value, "hidden": hidden.value}
    yield Alert("test_gap", level, view.now.step, what, cause, fix, "", found, examples(view.now, badness))


def _flips(view: View) -> Iterator[Alert]:
    now = mean(view.now, flips)
    shown = change(view.now.means(flips) - view.thresholds.flips, view.level)
    if not shown.up:
        return
    what = f"{now:.0%} of the judge's comparisons turn with the order of the answers (n = {shown.n} prompts)."
    cause = "The answers have become too alike for the judge, or it prefers a place."
    fix = "Take a better judge, or let it abstain where the orders disagree."
    yield Alert("judge_flips", "warning", view.now.step, what, cause, fix, "", {"now": now})


def _disagreement(view: View) -> Iterator[Alert]:
    now, start = mean(view.now, fact("std")), mean(view.start, fact("std"))
    risen = _since_start(view, fact("std"))
    if not (risen.up and start > 0 and now >= view.thresholds.disagreement * start):
        return
    what = (
        f"The reward models lie {now:.3g} apart on the policy's answers, {start:.3g} on the start's "
        f"({with_bounds(risen, view.level)})."
    )
    cause = "The policy has left what they were trained on, where their scores mean little."
    fix = "Label fresh pairs of this policy and train the reward models on them, or combine them as their lowest."
    badness = _places(view.now, fact("std"))
    found = {"now": now, "start": start}
    yield Alert("disagreement", "warning", view.now.step, what, cause, fix, "", found, examples(view.now, badness))
