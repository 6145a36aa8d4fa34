"""How good a judge is: how far it agrees with people, and with itself when the answers change places.

Everything that is told of agreement is in `agreement`; here stand the figures that need no gold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from strop.evaluate.agreement import Judged, agreement_measures
from strop.evaluate.statistics import Measure, measure
from strop.judges import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One comparison that a judge made, and what is known of it.

    Attributes: prompt: whose it is, from 0. people: verdicts, 1 where the first is better. lengths: words of both.
    """

    prompt: int
    comparison: Comparison
    people: tuple[float | None, ...]
    lengths: tuple[int, int]


def judge_measures(trials: Sequence[Trial], *, seed: int = 0) -> dict[str, Measure]:
    """A judge's figures, each with its interval and n.

    Returns:
        those of `agreement_measures` where people said something: accuracy, kappa, alpha, ece, brier, by length;
        position_bias: mean |P(first better) shown first - shown second|, over what was judged in both orders;
        flip_rate: the share of those in which the two verdicts name different answers;
        longer_preferred: how often the longer answer wins, of those that differ in length and were decided;
        ties, of what has a probability; abstained, of all.
    """
    asked = [t for t in trials if t.comparison.flipped is not None or t.comparison.probability is None]
    figures = {
        "position_bias": _mean(asked, _position_bias, seed),
        "flip_rate": _mean(asked, lambda t: t.comparison.flipped, seed),
        "longer_preferred": _mean(asked, _longer, seed),
        "ties": _mean(trials, lambda t: None if t.comparison.probability is None else t.comparison.tie, seed),
        "abstained": _mean(trials, lambda t: t.comparison.probability is None, seed),
    }
    told = [
        Judged(
            prompt=t.prompt,
            probability=t.comparison.probability,
            people=t.people,
            lengths=t.lengths,
            tie=t.comparison.tie,
        )
        for t in trials
    ]
    shown = {name: figure for name, figure in figures.items() if figure.n}
    return {**agreement_measures(told, seed=seed), **shown}


def _mean(trials: Sequence[Trial], of: Callable[[Trial], float | None], seed: int) -> Measure:
    """The mean over prompts of each one's mean."""
    rows: dict[int, list[float | None]] = {}
    for trial in trials:
        value = of(trial)
        rows.setdefault(trial.prompt, []).append(None if value is None else float(value))
    return measure(list(rows.values()), share=True, seed=seed)


def _position_bias(trial: Trial) -> float | None:
    forward, backward = trial.comparison.forward, trial.comparison.backward
    return None if forward is None or backward is None else abs(forward - backward)


def _longer(trial: Trial) -> float | None:
    p, apart = trial.comparison.probability, trial.lengths[0] - trial.lengths[1]
    if p is None or p == 0.5 or apart == 0:
        return None
    return float((p > 0.5) == (apart > 0))
