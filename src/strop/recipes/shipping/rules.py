"""Whether a figure lets a model pass: the rule of the gate, for one reward on one set of prompts.

With d the mean difference to the other model over prompts, oriented so that more is better, [low, high] its
95 % interval and m the margin:

- pass: low >= -m. A loss of more than the margin is excluded, at 97.5 %.
- fail: low < -m and high < 0. The model is shown to be worse, and by how much is not bounded by the margin.
- unclear: low < -m and high >= 0. The prompts are too few to say.

For a floor f and the model's own mean: pass where low >= f, fail where high < f, unclear between.

The interval is the bootstrap's over prompts (both ends of it as far out as what would remain if z^2 = 3.84 more
prompts had each come out worst, or best, which is Wilson's end where all agree): five prompts on which nothing
changed do not show that nothing changes. The worst change is the loss of the whole range, the worst figure the
range's lower end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from strop.evaluate.statistics import CONFIDENCE, Measure, Value, bootstrap, measure
from strop.recipes.words import brief

Verdict = Literal["pass", "fail", "unclear"]
Floats = npt.NDArray[np.float64]

Z2 = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) ** 2
"""Of a 95 % interval: 3.84."""
MISSING = 0.1
"""Share of prompts that may lack a score before a comparison says nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the gate found of one reward on one set of prompts.

    Attributes:
        of: the set. metric: the reward, "-name" where less is better.
        verdict: see above. why: a sentence with the figures, n and the interval.
        ours, theirs, change: as they are measured (less may be better); null where there is nothing to compare with.
        limit: the margin, in the reward's own units, or the floor; null where nothing could be judged.
    """

    of: str
    metric: str
    rule: Literal["margin", "floor", "evidence", "watched"]
    verdict: Verdict
    why: str
    ours: Measure | None = None
    theirs: Measure | None = None
    change: Measure | None = None
    limit: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        measures = {"ours": self.ours, "theirs": self.theirs, "change": self.change}
        said = {"set": self.of, "metric": self.metric, "rule": self.rule, "verdict": self.verdict, "why": self.why}
        return {**said, "limit": self.limit, **{key: m.to_json() if m else None for key, m in measures.items()}}


@dataclass(frozen=True, slots=True)
class Scores:
    """One reward's values by prompt; prompts in one order for both sides.

    Attributes:
        less: whether less is better. judged: whether it decides, or is only shown.
        theirs: null where there is nothing to compare with.
    """

    of: str
    metric: str
    less: bool
    ours: Sequence[Sequence[Value]]
    theirs: Sequence[Sequence[Value]] | None = None
    judged: bool = True

    @property
    def name(self) -> str:
        """The reward, "-name" where less is better."""
        return f"-{self.metric}" if self.less else self.metric


def against_margin(scores: Scores, margin: float, seed: int) -> Outcome:
    """Whether the loss against the other model stays within the margin.

    Args: margin: in units of the reward's range: 1 for values in [0, 1], else the range of the other model's.
    """
    assert scores.theirs is not None
    pairs = [(a, b) for a, b in zip(map(_mean, scores.ours), map(_mean, scores.theirs), strict=True)]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    least, most = _range([*scores.ours, *scores.theirs])
    spread, unit = most - least, _unit(scores.ours, scores.theirs)
    changes = np.array([a - b for a, b in both])
    ours, theirs = (measure([[pair[side]] for pair in both], seed=seed) for side in (0, 1))
    change = _interval(changes, (-spread, spread), seed)
    limit = margin * unit
    verdict, why = _margin_verdict(change, limit, scores.less)
    if verdict == "unclear":
        why += _enough(-changes if scores.less else changes, -limit, -spread)
    if not both or (verdict != "fail" and len(both) < (1 - MISSING) * len(pairs)):
        verdict, why = "unclear", f"only {len(both)} of {len(pairs)} prompts have a score on both sides"
    share = f" ({margin:g} of the range {unit:.3g})" if unit != 1 else ""
    figures = f"{brief(theirs.value)} -> {brief(ours.value)}, {_told(change)}" if both else "unscored"
    told = f"{scores.metric} {figures}, margin {limit:.3g}{share}"
    return Outcome(scores.of, scores.name, "margin", verdict, f"{told}: {why}", ours, theirs, change, limit)


def above_floor(scores: Scores, floor: float, seed: int) -> Outcome:
    """Whether the model's own figure reaches the floor, or where less is better stays below it."""
    found = [_mean(values) for values in scores.ours]
    means = np.array([value for value in found if value is not None])
    ends = _range(scores.ours)
    ours = _interval(means, ends, seed)
    verdict, why = _floor_verdict(ours, floor, scores.less)
    if verdict == "unclear":
        why += _enough(-means, -floor, -ends[1]) if scores.less else _enough(means, floor, ends[0])
    if not len(means) or (verdict != "fail" and len(means) < (1 - MISSING) * len(found)):
        verdict, why = "unclear", f"only {len(means)} of {len(found)} prompts have a score"
    word = "at most" if scores.less else "at least"
    figure = _told(ours, signed=False) if len(means) else "unscored"
    told = f"{scores.metric} {figure}, {word} {floor:g}: {why}"
    return Outcome(scores.of, scores.name, "floor", verdict, told, ours, None, None, floor)


def watched(scores: Scores, seed: int) -> Outcome:
    """The figures of a reward that decides nothing."""
    if scores.theirs is None:
        return Outcome(scores.of, scores.name, "watched", "pass", "", measure(scores.ours, seed=seed))
    found = against_margin(scores, 0.0, seed)
    return replace(found, rule="watched", verdict="pass", why="", limit=None)


def nothing_to_judge(of: str, why: str) -> Outcome:
    """An outcome that says that there is no evidence."""
    return Outcome(of, "", "evidence", "unclear", why)


def _margin_verdict(change: Measure, limit: float, less: bool) -> tuple[Verdict, str]:
    low, high = _oriented(change, less)
    if low >= -limit:
        return "pass", "no loss beyond the margin"
    if high < 0:
        return "fail", "worse" + (", and beyond the margin" if high < -limit else ", perhaps beyond the margin")
    return "unclear", "a loss beyond the margin is not excluded"


def _floor_verdict(ours: Measure, floor: float, less: bool) -> tuple[Verdict, str]:
    low, high = _oriented(ours, less)
    wanted = -floor if less else floor
    if low >= wanted:
        return "pass", "reached"
    if high < wanted:
        return "fail", "missed"
    return "unclear", "neither reached nor missed for sure"


def _enough(values: Floats, wanted: float, worst: float) -> str:
    """How many prompts would settle it, were they like these; of values of which more is better.

    The bootstrap's end is about z sd / sqrt(n) below the mean, the other one (n mean + z^2 worst) / (n + z^2).
    """
    if not len(values):
        return ""
    room = float(values.mean()) - wanted
    if room <= 0:
        return "; as it looks, more prompts would show it"
    by_draws = Z2 * float(values.var()) / room**2
    by_few = Z2 * (wanted - worst) / room
    return f"; of prompts like these, about {math.ceil(max(by_draws, by_few)):,} would settle it"


def _oriented(found: Measure, less: bool) -> tuple[float, float]:
    """The interval's ends, so that more is better; without one everything is possible."""
    if found.low is None or found.high is None:
        return -math.inf, math.inf
    return (-found.high, -found.low) if less else (found.low, found.high)


def _interval(values: Floats, ends: tuple[float, float], seed: int) -> Measure:
    """The mean of one value a prompt with the gate's interval; n counts prompts.

    Args: ends: the worst and the best that a prompt may come out.
    """
    n = len(values)
    if not n:
        return Measure(math.nan, None, None, 0)
    mean = float(values.mean())
    worst, best = ((n * mean + Z2 * end) / (n + Z2) for end in ends)
    drawn = None if (values == values[0]).all() else bootstrap(values, seed=seed)
    low, high = drawn or (mean, mean)
    return Measure(mean, min(low, worst), max(high, best), n)


def _range(rows: Sequence[Sequence[Value]]) -> tuple[float, float]:
    """0 and 1 for values in [0, 1], else the least and the most that is seen; of one value only, from 0 on."""
    seen = _scored(rows)
    if _is_share(seen):
        return 0.0, 1.0
    least, most = min(seen), max(seen)
    return (least, most) if least < most else (min(least, 0.0), max(most, 0.0))


def _unit(ours: Sequence[Sequence[Value]], theirs: Sequence[Sequence[Value]]) -> float:
    """What a margin is a share of: 1 for values in [0, 1], else the range of theirs, which ours cannot widen."""
    everything, known = _scored([*ours, *theirs]), _scored(theirs)
    if _is_share(everything) or not known:
        return 1.0
    least, most = (min(known), max(known)) if min(known) < max(known) else _range([everything])
    return most - least


def _scored(rows: Sequence[Sequence[Value]]) -> list[float]:
    return [float(v) for row in rows for v in row if v is not None and math.isfinite(v)]


def _is_share(values: Sequence[float]) -> bool:
    return all(0 <= value <= 1 for value in values)


def _mean(values: Sequence[Value]) -> float | None:
    scored = _scored([values])
    return sum(scored) / len(scored) if scored else None


def _told(found: Measure, *, signed: bool = True) -> str:
    """Value [low, high] (n=..)."""
    sign = "+" if signed else ""
    value = f"{found.value:{sign}.3f}"
    interval = "" if found.low is None or found.high is None else f" [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
    return f"{value}{interval} (n={found.n})"
