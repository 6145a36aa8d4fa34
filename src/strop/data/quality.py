"""What a data set's labels are worth, as far as the rows themselves tell: contradictions, ties, bias, balance.

A comparison is two answers to one prompt of which the first is held the better; a ranking of n gives
C(n, 2), without those whose scores are equal. Two texts are the same as `same` has it. A row that the
reading refused (identical sides, all ranks equal) is counted from the reasons it was refused for.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from strop.data.formats import Dataset
from strop.data.same import normalised_content
from strop.types import Completion, Group

REFERENCE_COLUMNS = (
    "answer", "solution", "target", "ground_truth", "reference", "label", "gold", "tests", "test_list", "completion",
)  # fmt: skip
"""Columns that hold what a verifier would compare with, by their usual names."""
IDENTICAL = "chosen == rejected"
TIED = "all completions rank the same"
"""Reasons in `Dataset.dropped`."""


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Answers compared with each other.

    Attributes:
        num: comparisons. identical, tied: rows refused since both sides, or all ranks, are the same.
        twice: pairs of judgements of the same two answers; contradicting: those that disagree.
        longer, unlike: comparisons whose better side is the longer, of those whose lengths differ.
        on_policy: rows that say which rewards scored them, as sampled groups do.
    """

    num: int
    identical: int
    tied: int
    twice: int
    contradicting: int
    longer: int
    unlike: int

    @property
    def longer_share(self) -> float | None:
        """How often the better side is the longer; `None` where lengths never differ."""
        return self.longer / self.unlike if self.unlike else None

    @property
    def flip_rate(self) -> float | None:
        """The share of flipped labels that contradictions point to; `None` where nothing was judged twice.

        Two judgements with flip rate e disagree with chance d = 2e(1 - e), so e = (1 - sqrt(1 - 2d)) / 2.
        """
        if not self.twice:
            return None
        return (1 - math.sqrt(max(0.0, 1 - 2 * self.contradicting / self.twice))) / 2


@dataclass(frozen=True, slots=True)
class Labels:
    """Answers called good or bad.

    Attributes: contradicting: answers that are called both; prompts_with_both: prompts with a good and a bad one.
    """

    desirable: int
    undesirable: int
    contradicting: int
    prompts_with_both: int


@dataclass(frozen=True, slots=True)
class Steps:
    """Solutions whose steps are labelled; `right` and `wrong` count steps, 0.5 and more being right."""

    solutions: int
    right: int
    wrong: int
    unlabelled: int


@dataclass(frozen=True, slots=True)
class Quality:
    """What was found; a part that the rows have nothing of is None.

    Attributes:
        prompts: different prompts. answers, repeated: answers, and those equal to an earlier one to their prompt.
        scored: whether answers carry scores. references: columns that may hold a reference answer.
        numeric: the share of rows whose reference answer is a number, or ends in one after `####`.
    """

    kind: str
    rows: int
    prompts: int
    answers: int
    repeated: int
    scored: bool
    references: tuple[str, ...]
    numeric: float
    comparisons: Comparisons | None
    labels: Labels | None
    steps: Steps | None


def quality(dataset: Dataset) -> Quality:
    """Look at every group once."""
    groups = dataset.groups
    prompts = [normalised_content(g.prompt) for g in groups]
    texts = [[normalised_content(c.content) for c in g.completions] for g in groups]
    distinct = {(p, t) for p, row in zip(prompts, texts, strict=True) for t in row}
    num_answers = sum(map(len, texts))
    references = _references(groups)
    compared = dataset.kind in ("preference", "ranking")
    return Quality(
        kind=dataset.kind,
        rows=len(groups),
        prompts=len(set(prompts)),
        answers=num_answers,
        repeated=num_answers - len(distinct),
        scored=any(c.score is not None or c.rewards for g in groups for c in g.completions),
        references=references,
        numeric=_numeric(groups, references),
        comparisons=_comparisons(dataset, prompts, texts) if compared else None,
        labels=_labels(groups, prompts, texts),
        steps=_steps([c for g in groups for c in g.completions]),
    )


def _comparisons(dataset: Dataset, prompts: Sequence[str], texts: Sequence[Sequence[str]]) -> Comparisons:
    judged: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    num = longer = unlike = 0
    for group, prompt, row in zip(dataset.groups, prompts, texts, strict=True):
        for better, worse in _ordered(group.completions):
            first, second = sorted((row[better], row[worse]))
            judged[prompt, first, second][row[better] == second] += 1
            sizes = len(group.completions[better].text), len(group.completions[worse].text)
            num, longer, unlike = num + 1, longer + (sizes[0] > sizes[1]), unlike + (sizes[0] != sizes[1])
    return Comparisons(
        num=num,
        identical=dataset.dropped.get(IDENTICAL, 0),
        tied=dataset.dropped.get(TIED, 0),
        twice=sum(math.comb(a + b, 2) for a, b in judged.values()),
        contradicting=sum(a * b for a, b in judged.values()),
        longer=longer,
        unlike=unlike,
    )


def _ordered(completions: Sequence[Completion]) -> Iterator[tuple[int, int]]:
    """Places of a better and a worse answer; the first is the better, and equal scores are no comparison."""
    for a, b in combinations(range(len(completions)), 2):
        scores = completions[a].score, completions[b].score
        if scores[0] is None or scores[0] != scores[1]:
            yield a, b


def _labels(groups: Sequence[Group], prompts: Sequence[str], texts: Sequence[Sequence[str]]) -> Labels | None:
    seen: dict[tuple[str, str], set[bool]] = defaultdict(set)
    by_prompt: dict[str, set[bool]] = defaultdict(set)
    counts: Counter[bool] = Counter()
    for group, prompt, row in zip(groups, prompts, texts, strict=True):
        for completion, text in zip(group.completions, row, strict=True):
            if completion.label is not None:
                counts[completion.label] += 1
                seen[prompt, text].add(completion.label)
                by_prompt[prompt].add(completion.label)
    if not counts:
        return None
    both = sum(len(labels) == 2 for labels in by_prompt.values())
    return Labels(counts[True], counts[False], sum(len(labels) == 2 for labels in seen.values()), both)


def _steps(completions: Sequence[Completion]) -> Steps | None:
    found = [c for c in completions if c.step_labels]
    if not found:
        return None
    labels = [label for c in found for label in c.step_labels]
    known = [float(label) for label in labels if label is not None]
    right = sum(label >= 0.5 for label in known)
    return Steps(len(found), right, len(known) - right, len(labels) - len(known))


def _references(groups: Sequence[Group]) -> tuple[str, ...]:
    """The usual columns that at least half of the rows have something in."""
    counts = Counter(name for g in groups for name in REFERENCE_COLUMNS if g.row.get(name) not in (None, "", []))
    return tuple(name for name in REFERENCE_COLUMNS if 2 * counts[name] >= max(1, len(groups)))


def _numeric(groups: Sequence[Group], references: Sequence[str]) -> float:
    if not groups or not references:
        return 0.0
    return sum(_is_number(g.row.get(references[0])) for g in groups) / len(groups)


def _is_number(value: Any) -> bool:
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    if not isinstance(value, str):
        return False
    text = value.rpartition("####")[2].strip().replace(",", "")  # GSM8K ends its solutions with `#### 72`
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
