"""Which of a prompt's scored answers are kept: the best, the best and the worst, each of those left.

A choice is a settings object whose call takes groups to (groups, counts): the groups that a later
stage trains on, and how many were left out by reason. Filters, in `filters`, have the same shape, so
a list of both is applied in its order: `[finished, difficulty, best]`.

Ties go to the answer that was sampled first, so a choice is a function of its groups alone.
Unscorable answers (`None`) are never chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from strop.types import Completion, Group

Kept = tuple[list[Group], Counter[str]]
"""Groups in their order, and how many answers or prompts were refused, by reason. Answers that were good
but not chosen (the middle of a group, those beyond the best) are no refusals and are not counted."""

Choice = Callable[[Sequence[Group]], Kept]

ROUNDING = 1e-6
"""Scores that differ by less than this, times the larger of 1 and their size, are the same."""


def kept(groups: Sequence[Group], choices: Sequence[Choice]) -> Kept:
    """What choices leave of groups, one after another, and all their counts."""
    left, counts = list(groups), Counter[str]()
    for choice in choices:
        left, more = choice(left)
        counts += more
    return left, counts


def value_of(completion: Completion, reward: str | None) -> float | None:
    """A completion's score, or one of its rewards by name; `None` where it is unscorable."""
    return completion.score if reward is None else completion.rewards.get(reward)


def check_scored(groups: Sequence[Group], reward: str | None, name: str) -> None:
    """Raises ValueError if no completion was ever scored: the wrong data, not unscorable answers."""
    completions = [c for group in groups for c in group.completions]
    if reward is None and completions and not any(c.rewards or c.score is not None for c in completions):
        raise ValueError(f"{name}: no answer has a score; let a stage of kind score come first, or give its samples")
    if reward is not None and completions and not any(reward in c.rewards for c in completions):
        known = ", ".join(dict.fromkeys(label for c in completions for label in c.rewards)) or "none"
        raise ValueError(f"{name}.reward: no answer has a reward {reward!r}; there are: {known}")


def best_of(values: Sequence[float | None]) -> int | None:
    """The place of the highest value, the first of equals; `None` where nothing is scored."""
    known = [i for i, value in enumerate(values) if value is not None]
    return max(known, key=lambda i: values[i] or 0.0) if known else None


def best_and_worst(values: Sequence[float | None], min_margin: float = 0.0) -> tuple[int, int] | None:
    """The places of the highest and the lowest value, each the first of its equals.

    Returns: `None` where fewer than two are scored, or the two differ by no more than `min_margin` and
        rounding: then which is better is not known. (TRL 1.16 takes the first of a tie as the better.)
    """
    best, worst = best_of(values), best_of([None if value is None else -value for value in values])
    if best is None or worst is None:
        return None
    high, low = values[best] or 0.0, values[worst] or 0.0
    return (best, worst) if high - low > max(min_margin, ROUNDING * max(1.0, abs(high))) else None


def penalised(completion: Completion, reward: str | None, missing_eos_penalty: float) -> float | None:
    """A completion's value, less the penalty if it was cut by the length limit before it ended."""
    value = value_of(completion, reward)
    return value if value is None or completion.finish != "length" else value - missing_eos_penalty


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The answers that score highest, each a row of its own: best-of-n, and what RAFT trains on.

    With one sample a prompt and no filter that is fine-tuning on the model's own samples.
    Dong et al. 2023 (RAFT), arXiv:2304.06767, algorithm 1.

    Attributes: num: how many of a prompt's answers. reward: one of the rewards in place of the score.
    """

    name: Literal["best"] = "best"
    num: int = 1
    reward: str | None = None

    def __post_init__(self) -> None:
        _at_least_one("best.num", self.num)

    def __call__(self, groups: Sequence[Group]) -> Kept:
        check_scored(groups, self.reward, "best")
        rows, counts = list[Group](), Counter[str]()
        for group in groups:
            scored = [(value, c) for c in group.completions if (value := value_of(c, self.reward)) is not None]
            best = sorted(scored, key=lambda pair: -pair[0])[: self.num]  # a stable sort: ties as sampled
            rows += [replace(group, completions=(c,)) for _, c in best]
            if not best:
                counts["prompts without a scored answer"] += 1
        return rows, counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Each:
    """Every answer that is left, each a row of its own: rejection sampling, after a filter such as `correct`.

    Attributes: most: at most so many of a prompt, the first sampled; null for all.
    """

    name: Literal["each"] = "each"
    most: int | None = None

    def __post_init__(self) -> None:
        _at_least_one("each.most", self.most)

    def __call__(self, groups: Sequence[Group]) -> Kept:
        rows = [replace(group, completions=(c,)) for group in groups for c in group.completions[: self.most]]
        return rows, Counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Every scored answer, labelled desirable if it scores more than `above`: for KTO and outcome models.

    Attributes: reward: one of the rewards in place of the score.
    """

    name: Literal["label"] = "label"
    above: float = 0.5
    reward: str | None = None

    def __call__(self, groups: Sequence[Group]) -> Kept:
        check_scored(groups, self.reward, "label")
        rows, counts = list[Group](), Counter[str]()
        for group in groups:
            scored = [(value, c) for c in group.completions if (value := value_of(c, self.reward)) is not None]
            if len(scored) < len(group.completions):
                counts["unscorable answers"] += len(group.completions) - len(scored)
            if scored:
                rows.append(replace(group, completions=tuple(replace(c, label=v > self.above) for v, c in scored)))
        return rows, counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The best and the worst answer of each prompt, best first: preference pairs of the model's own answers.

    Attributes:
        missing_eos_penalty: taken from the score of an answer that was cut by the length limit, before
            they are compared.
        min_margin: pairs whose scores differ by no more are left out, as ties are.
        reward: one of the rewards in place of the score.
    """

    name: Literal["pair"] = "pair"
    missing_eos_penalty: float = 0.0
    min_margin: float = 0.0
    reward: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("missing_eos_penalty", self.missing_eos_penalty), ("min_margin", self.min_margin)):
            if value < 0:
                raise ValueError(f"pair.{name} must not be negative, got {value}")

    def __call__(self, groups: Sequence[Group]) -> Kept:
        check_scored(groups, self.reward, "pair")
        rows, counts = list[Group](), Counter[str]()
        for group in groups:
            values = [penalised(c, self.reward, self.missing_eos_penalty) for c in group.completions]
            found = best_and_worst(values, self.min_margin)
            if found is not None:
                rows.append(replace(group, completions=tuple(group.completions[i] for i in found)))
            elif sum(value is not None for value in values) < 2:
                counts["prompts with fewer than two scored answers"] += 1
            else:
                counts[self._tied] += 1
        return rows, counts

    @property
    def _tied(self) -> str:
        by = f"differ by no more than {self.min_margin:g}" if self.min_margin else "are all the same"
        return f"prompts whose answers' scores {by}"


def _at_least_one(where: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{where} must be at least 1, got {value}")
