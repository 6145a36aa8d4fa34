"""How well a labeller of comparisons agrees with people: accuracy, kappa, alpha, calibration, and what length does.

A verdict on two answers is the chance that the first is better: 1, 0, or 1/2 for a tie; None is
missing (an abstention, a person who was not asked). Which answer is the first should be drawn at
random: where people always prefer the first, chance explains every agreement and kappa is undefined.

Intervals resample prompts, since comparisons of one prompt are alike; shares of independent comparisons
have Wilson's. Accuracies and the Brier score weigh every prompt alike, kappa and alpha every comparison.

Left out: weighted kappa, interval and ratio metrics of alpha, Gwet's AC1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strop.evaluate.calibration import ece, resampled
from strop.evaluate.statistics import Measure, measure

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Verdict = float | None

CATEGORIES = 3
"""The second is better, a tie, the first is better."""
NUM_BUCKETS = 4
"""Of equal size, by the mean length of the two answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One comparison.

    Attributes:
        prompt: whose it is, from 0.
        probability: P(the first is better) by the labeller; None where it abstained.
        people: the verdict of each person, 1, 0, 1/2, or None; the columns of all comparisons are the same people.
        lengths: of the first and the second answer, in words.
        tie: whether the labeller called it a tie, whatever its probability.
    """

    prompt: int
    probability: Verdict
    people: tuple[Verdict, ...]
    lengths: tuple[int, int]
    tie: bool = False


def category(probability: Verdict, tie: bool = False) -> int | None:
    """0 the second, 1 a tie, 2 the first; None where nothing was said."""
    if probability is None or math.isnan(probability):
        return None
    return 1 if tie or probability == 0.5 else 2 * int(probability > 0.5)


def verdict_of(people: Sequence[Verdict]) -> Verdict:
    """The majority's verdict: 1, 0, or 1/2 where as many prefer the one as the other; None where nobody said."""
    known = [p for p in people if p is not None]
    if not known:
        return None
    lead = math.fsum(known) / len(known) - 0.5
    return 0.5 if abs(lead) < 1e-12 else float(lead > 0)


def cohen_kappa(confusion: npt.ArrayLike) -> float:
    """Cohen's kappa of two raters: (p_o - p_e) / (1 - p_e).

    Args: confusion: counts or weights of (first rater's category, second rater's), [C, C].
    Returns: nan where chance explains everything (both always say the same one thing).
    Cohen 1960, Educational and Psychological Measurement 20; nominal categories, no weights.
    """
    table = np.asarray(confusion, np.float64)
    total = table.sum()
    if not total > 0:
        return math.nan
    table = table / total
    observed, expected = float(np.trace(table)), float(table.sum(1) @ table.sum(0))
    return (observed - expected) / (1 - expected) if expected < 1 - 1e-12 else math.nan


def coincidences(ratings: npt.ArrayLike) -> Floats:
    """Each unit's coincidence matrix, [U, C, C]: every ordered pair of its ratings, over m - 1.

    Args: ratings: categories, [U, R], -1 where missing. A unit with one rating is paired with none: all 0.
    Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section B.
    """
    given = np.asarray(ratings, np.int64)
    counts = np.stack([(given == c).sum(1) for c in range(CATEGORIES)], axis=1).astype(np.float64)
    ways = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(CATEGORIES)
    number = counts.sum(1)
    out: Floats = np.where(number[:, None, None] > 1, ways / np.maximum(number - 1, 1)[:, None, None], 0.0)
    return out


def krippendorff_alpha(table: npt.ArrayLike) -> float:
    """Krippendorff's alpha, nominal: 1 - (n - 1) sum_{c != k} o_ck / sum_{c != k} n_c n_k.

    Args: table: the sum of `coincidences` over units, [C, C].
    Returns: 1 for perfect agreement, 0 for chance's; nan where all ratings are one category.
    Krippendorff 2011, section B; any number of raters, ratings may be missing.
    """
    o = np.asarray(table, np.float64)
    by = o.sum(1)
    n = by.sum()
    unlike = float(n * n - (by * by).sum())
    if not unlike > 1e-12:
        return math.nan
    return float(1 - (n - 1) * (n - np.trace(o)) / unlike)


def ceiling(people: Sequence[Verdict]) -> float | None:
    """How often two different people say the same of one comparison; None where fewer than two did."""
    known = [c for p in people if (c := category(p)) is not None]
    pairs = len(known) * (len(known) - 1)
    if not pairs:
        return None
    return sum(known.count(c) * (known.count(c) - 1) for c in range(CATEGORIES)) / pairs


# The report.


def agreement_measures(judged: Sequence[Judged], *, seed: int = 0) -> dict[str, Measure]:
    """How the labeller compares with people, where both said something; empty where they never did.

    Returns:
        accuracy: the share of comparisons that people decided in which the labeller prefers the same answer,
            its ties counting a half.
        kappa, alpha: Cohen's with the majority of people, Krippendorff's over all raters, ties a category.
        ece, brier: of the probability, where people decided.
        accuracy/longer, accuracy/shorter: where people prefer the answer with more words, or with fewer.
        accuracy/words_A-B: by the mean number of words of the two answers, four buckets of equal size.
        people/agree, people/alpha: two people with each other, where several said something: the ceiling.
        n counts comparisons.
    """
    rows = [j for j in judged if category(j.probability) is not None and verdict_of(j.people) is not None]
    if not rows:
        return {}
    count = _Resampler([j.prompt for j in rows], seed)
    decided = np.array([verdict_of(j.people) != 0.5 for j in rows])
    right = np.array([_right(j) for j in rows])
    figures = {
        "accuracy": count.mean(right, decided),
        **_chance_corrected(rows, count),
        **_calibrated(rows, decided, count),
        **_by_length(rows, right, decided, count),
    }
    return {**figures, **_people(judged, seed)}


def _right(judged: Judged) -> float:
    ours, theirs = category(judged.probability, judged.tie), category(verdict_of(judged.people))
    return 0.5 if ours == 1 else float(ours == theirs)


def _chance_corrected(rows: Sequence[Judged], count: _Resampler) -> dict[str, Measure]:
    ours = [category(j.probability, j.tie) for j in rows]
    majority = [category(verdict_of(j.people)) for j in rows]
    confusion = np.zeros((len(rows), CATEGORIES, CATEGORIES))
    confusion[np.arange(len(rows)), np.array(ours, np.int64), np.array(majority, np.int64)] = 1
    everyone = coincidences(_ratings([[*j.people] for j in rows], ours))
    return {
        "kappa": count.of(lambda w: cohen_kappa(np.tensordot(w, confusion, 1))),
        "alpha": count.of(lambda w: krippendorff_alpha(np.tensordot(w, everyone, 1))),
    }


def _calibrated(rows: Sequence[Judged], decided: npt.NDArray[np.bool_], count: _Resampler) -> dict[str, Measure]:
    p = np.array([j.probability for j in rows], np.float64)
    label = np.array([verdict_of(j.people) for j in rows], np.float64)
    with np.errstate(divide="ignore"):
        logit = np.log(p) - np.log1p(-p)

    def error(weight: Floats) -> float:
        # Equal width: bins of equal mass would part the same few probabilities, and find noise.
        return ece(logit[decided], label[decided], weight[decided], equal_mass=False)

    return {
        "ece": count.of(error, int(decided.sum())),
        "brier": count.mean((p - label) ** 2, decided, share=False),
    }


def _by_length(
    rows: Sequence[Judged], right: Floats, decided: npt.NDArray[np.bool_], count: _Resampler
) -> dict[str, Measure]:
    apart = np.array([j.lengths[0] - j.lengths[1] for j in rows])
    label = np.array([verdict_of(j.people) for j in rows], np.float64)
    longer_wins = np.where(label > 0.5, apart, -apart)
    figures = {
        "accuracy/longer": count.mean(right, decided & (longer_wins > 0)),
        "accuracy/shorter": count.mean(right, decided & (longer_wins < 0)),
    }
    words = np.array([sum(j.lengths) / 2 for j in rows])
    for shortest, longest, inside in _buckets(words, decided):
        figures[f"accuracy/words_{shortest:.0f}-{longest:.0f}"] = count.mean(right, inside)
    return {name: figure for name, figure in figures.items() if figure.n}


def _buckets(words: Floats, decided: npt.NDArray[np.bool_]) -> list[tuple[float, float, npt.NDArray[np.bool_]]]:
    """Up to four buckets of equal size, equal lengths together: (shortest, longest, who is inside)."""
    if not decided.any():
        return []
    edges = np.unique(np.quantile(words[decided], np.linspace(0, 1, NUM_BUCKETS + 1)[1:]))
    place = np.searchsorted(edges, words)
    found = [decided & (place == b) for b in range(len(edges))]
    return [(float(words[i].min()), float(words[i].max()), i) for i in found if i.any()]


def _people(judged: Sequence[Judged], seed: int) -> dict[str, Measure]:
    """The ceiling: how far people agree among themselves; nothing where one person at most said something."""
    rows = [(j, said) for j in judged if (said := ceiling(j.people)) is not None]
    if not rows:
        return {}
    count = _Resampler([j.prompt for j, _ in rows], seed)
    everyone = coincidences(_ratings([[*j.people] for j, _ in rows]))
    agreeing = np.array([said for _, said in rows])
    return {
        "people/agree": count.mean(agreeing, np.ones(len(rows), bool)),
        "people/alpha": count.of(lambda w: krippendorff_alpha(np.tensordot(w, everyone, 1))),
    }


def _ratings(people: Sequence[Sequence[Verdict]], ours: Sequence[int | None] = ()) -> Ints:
    """Categories by comparison and rater, -1 where missing; the labeller, if any, is the last rater."""
    most = max(map(len, people))
    table = np.full((len(people), most + bool(ours)), -1, np.int64)
    for place, said in enumerate(people):
        for rater, verdict in enumerate(said):
            found = category(verdict)
            table[place, rater] = -1 if found is None else found
        if ours:
            found = ours[place]
            table[place, -1] = -1 if found is None else found
    return table


class _Resampler:
    """Figures over comparisons, with intervals over resampled prompts."""

    def __init__(self, prompts: Sequence[int], seed: int) -> None:
        _, self._prompt = np.unique(np.asarray(prompts), return_inverse=True)
        self._num_prompts = int(self._prompt.max()) + 1
        self._seed = seed

    def of(self, statistic: Callable[[Floats], float], n: int | None = None) -> Measure:
        """Args: statistic: of how often each comparison counts, [comparisons]. n: what it rests on; null is all."""
        found = resampled(lambda times: statistic(times[self._prompt]), self._num_prompts, self._seed)
        return Measure(found.value, found.low, found.high, len(self._prompt) if n is None else n)

    def mean(self, values: Floats, where: npt.NDArray[np.bool_], *, share: bool = True) -> Measure:
        """The mean over prompts of each one's mean over the comparisons chosen."""
        rows: list[list[float]] = [[] for _ in range(self._num_prompts)]
        for prompt, value in zip(self._prompt[where].tolist(), values[where].tolist(), strict=True):
            rows[prompt].append(value)
        return measure(rows, share=share, seed=self._seed)
