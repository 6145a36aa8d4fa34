"""Which answers and prompts are left out: duplicates, cut, repetitive, too long, too easy.

Settings whose call takes groups to (groups, counts by reason), as in `choose`. Those that judge
answers leave a group's others together; a group that loses all of them is left out and counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from strop.data.same import normalised, normalised_content
from strop.rewards.answers import compiled
from strop.rewards.language import Part, part_of
from strop.rewards.shape import size_of
from strop.rollout.choose import Kept, check_scored, value_of
from strop.types import Completion, Group

Of = Literal["prompt", "answers", "row"]
Unit = Literal["characters", "words", "tokens"]


# --- by score ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Answers that score more than `above`.

    Attributes: reward: one of the rewards in place of the score, here and below.
    """

    above: float
    name: Literal["threshold"] = "threshold"
    reward: str | None = None

    def __call__(self, groups: Sequence[Group]) -> Kept:
        check_scored(groups, self.reward, "threshold")
        return _by_value(groups, self.reward, lambda v: v > self.above, f"answers that score {self.above:g} or less")


@dataclass(frozen=True, slots=True, kw_only=True)
class Correct:
    """Answers that a verifier calls right: whose reward is 1."""

    name: Literal["correct"] = "correct"
    reward: str | None = None

    def __call__(self, groups: Sequence[Group]) -> Kept:
        check_scored(groups, self.reward, "correct")
        return _by_value(groups, self.reward, lambda v: v >= 1, "answers that are wrong")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """Answers that score at least the q-quantile of all answers' scores; q = 0.9 keeps the best tenth, and ties."""

    q: float
    name: Literal["quantile"] = "quantile"
    reward: str | None = None

    def __post_init__(self) -> None:
        share_in_range("quantile.q", self.q)

    def __call__(self, groups: Sequence[Group]) -> Kept:
        check_scored(groups, self.reward, "quantile")
        values = [v for g in groups for c in g.completions if (v := value_of(c, self.reward)) is not None]
        # A score that stands there, so that equal scores are on one side of it.
        least = sorted(values)[math.ceil(self.q * (len(values) - 1))] if values else 0.0
        return _by_value(groups, self.reward, lambda v: v >= least, f"answers below the {self.q:g}-quantile of scores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """Prompts whose answers' mean score is between two bounds, these included.

    With a verifier's 0 and 1 it is the share of right answers: `low` above 0 leaves out what the model
    never solves, `high` below 1 what it always does.
    """

    low: float
    high: float
    name: Literal["difficulty"] = "difficulty"
    reward: str | None = None

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"difficulty: low {self.low} must not be above high {self.high}")

    def __call__(self, groups: Sequence[Group]) -> Kept:
        check_scored(groups, self.reward, "difficulty")
        return _without_groups(groups, self._fault)

    def _fault(self, group: Group) -> str:
        values = [v for c in group.completions if (v := value_of(c, self.reward)) is not None]
        if not values:
            return "prompts without a scored answer"
        mean = math.fsum(values) / len(values)
        if mean < self.low:
            return f"prompts whose mean score is below {self.low:g}"
        return f"prompts whose mean score is above {self.high:g}" if mean > self.high else ""


# --- by text ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Answers that ended by themselves: one cut by the length limit would be trained on as if it had ended there."""

    name: Literal["finished"] = "finished"

    def __call__(self, groups: Sequence[Group]) -> Kept:
        return without_answers(groups, lambda c: "answers cut by the length limit" if c.finish == "length" else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Answers of at least `least` and at most `most`; `tokens` leaves out what was not sampled."""

    name: Literal["length"] = "length"
    least: int = 1
    most: int | None = None
    unit: Unit = "words"

    def __post_init__(self) -> None:
        if self.least < 0 or (self.most is not None and self.most < self.least):
            raise ValueError(f"length: least {self.least} must be at least 0 and not above most {self.most}")

    def __call__(self, groups: Sequence[Group]) -> Kept:
        return without_answers(groups, self._fault)

    def _fault(self, completion: Completion) -> str:
        size = size_of(completion, self.unit)
        if size is None:
            return f"answers whose number of {self.unit} is not known"
        if size < self.least:
            return f"answers of fewer than {self.least} {self.unit}"
        too_long = self.most is not None and size > self.most
        return f"answers of more than {self.most} {self.unit}" if too_long else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthMatch:
    """Prompts whose longest answer is at most `max_ratio` times their shortest: pairs in which length tells little."""

    name: Literal["length_match"] = "length_match"
    max_ratio: float = 1.5
    unit: Unit = "words"

    def __post_init__(self) -> None:
        if self.max_ratio < 1:
            raise ValueError(f"length_match.max_ratio must be at least 1, got {self.max_ratio}")

    def __call__(self, groups: Sequence[Group]) -> Kept:
        return _without_groups(groups, self._fault)

    def _fault(self, group: Group) -> str:
        sizes = [size for c in group.completions if (size := size_of(c, self.unit)) is not None]
        if len(sizes) < len(group.completions):
            return f"prompts with an answer whose number of {self.unit} is not known"
        far = bool(sizes) and max(sizes) > self.max_ratio * min(sizes)
        return f"prompts whose answers' lengths differ by more than {self.max_ratio:g} times" if far else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """Answers in which at most this share of the runs of `num_words` words repeats an earlier one."""

    name: Literal["repetition"] = "repetition"
    max_share: float = 0.2
    num_words: int = 4

    def __post_init__(self) -> None:
        share_in_range("repetition.max_share", self.max_share)
        if self.num_words < 1:
            raise ValueError(f"repetition.num_words must be at least 1, got {self.num_words}")

    def __call__(self, groups: Sequence[Group]) -> Kept:
        reason = f"answers of which more than {self.max_share:g} repeats itself"
        return without_answers(
            groups, lambda c: reason if repeated_share(c.text, self.num_words) > self.max_share else ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Without:
    """Answers in which a pattern (of Python's `re`) is not found: refusals, boilerplate, code in the thinking.

    Attributes: part: where it is looked for: the thinking, the answer behind it, or all.
    """

    pattern: str
    name: Literal["without"] = "without"
    part: Part = "all"

    def __post_init__(self) -> None:
        compiled(self.pattern, "without.pattern")

    def __call__(self, groups: Sequence[Group]) -> Kept:
        where = "" if self.part == "all" else f" in the {self.part}"
        reason = f"answers with {self.pattern}{where}"
        return without_answers(groups, lambda c: reason if re.search(self.pattern, part_of(c.text, self.part)) else "")


# --- duplicates ---


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupAnswers:
    """Answers unlike the earlier ones to their prompt, white space, case and Unicode's forms aside."""

    name: Literal["dedup_answers"] = "dedup_answers"

    def __call__(self, groups: Sequence[Group]) -> Kept:
        seen: dict[str, set[str]] = defaultdict(set)
        counts, left = Counter[str](), list[Group]()
        for group in groups:
            answers = seen[text_of(group, "prompt")]
            fresh = [c for c in group.completions if _is_new(normalised(c.text), answers)]
            left += _with(group, fresh, counts, "answers that repeat an earlier one to their prompt")
        return left, counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Dedup:
    """Rows unlike every earlier one, white space, case and Unicode's forms aside.

    Attributes: of: what is compared: the prompt, the answers, or the whole row.
    """

    name: Literal["dedup"] = "dedup"
    of: Of = "row"

    def __call__(self, groups: Sequence[Group]) -> Kept:
        seen: set[str] = set()
        reason = f"rows whose {_THING[self.of]} stood before"
        return _without_groups(groups, lambda g: "" if _is_new(text_of(g, self.of), seen) else reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDup:
    """Rows that share less than `threshold` of their shingles with every earlier row that is kept.

    The shingles of a text are its runs of `num_words` words; two texts share |A and B| / |A or B|.
    Exact, not a sketch: rows are compared whose rarest shingles meet (Bayardo et al. 2007, "Scaling
    up all pairs similarity search"), which no pair at the threshold escapes.
    """

    name: Literal["near_dup"] = "near_dup"
    threshold: float = 0.8
    num_words: int = 3
    of: Of = "row"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"near_dup.threshold must be above 0 and at most 1, got {self.threshold}")
        if self.num_words < 1:
            raise ValueError(f"near_dup.num_words must be at least 1, got {self.num_words}")

    def __call__(self, groups: Sequence[Group]) -> Kept:
        near = near_duplicates([shingles(text_of(g, self.of), self.num_words) for g in groups], self.threshold)
        left = [group for group, twin in zip(groups, near, strict=True) if not twin]
        gone = len(groups) - len(left)
        reason = f"rows whose {_THING[self.of]} is nearly that of an earlier one"
        return left, Counter({reason: gone} if gone else {})


_THING = {"prompt": "prompt", "answers": "answers", "row": "text"}


def near_duplicates(sets: Sequence[frozenset[str]], threshold: float) -> list[bool]:
    """Whether each set has a Jaccard similarity of at least the threshold with an earlier one that has not."""
    frequency = Counter(item for s in sets for item in s)
    index: dict[str, list[int]] = defaultdict(list)
    found = []
    for number, items in enumerate(sets):
        rare_first = sorted(items, key=lambda item: (frequency[item], item))
        # Two sets this alike share an item among so many of their rarest: the rest is too small.
        prefix = rare_first[: len(items) - math.ceil(threshold * len(items) - 1e-9) + 1]
        others = {other for item in prefix for other in index[item]}
        twin = any(_jaccard(items, sets[other]) >= threshold - 1e-12 for other in others)
        found.append(twin)
        if not twin:
            for item in prefix:
                index[item].append(number)
    return found


def shingles(text: str, num_words: int) -> frozenset[str]:
    """A text's runs of so many words; a shorter text is one run."""
    words = text.split()
    return frozenset(" ".join(words[i : i + num_words]) for i in range(max(1, len(words) - num_words + 1)))


def repeated_share(text: str, num_words: int = 4) -> float:
    """The share of a text's runs of so many words that repeat an earlier run: 1 - distinct / all; 0 without any."""
    words = text.split()
    runs = [tuple(words[i : i + num_words]) for i in range(len(words) - num_words + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def text_of(group: Group, of: Of) -> str:
    """The normalised words of a group's prompt, of its answers, or of both."""
    answers = [] if of == "prompt" else [normalised_content(c.content) for c in group.completions]
    prompt = [] if of == "answers" else [normalised_content(group.prompt)]
    return "\n".join([*prompt, *answers])


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def _by_value(groups: Sequence[Group], reward: str | None, good: Callable[[float], bool], reason: str) -> Kept:
    def fault(completion: Completion) -> str:
        value = value_of(completion, reward)
        if value is None:
            return "answers that could not be scored"
        return "" if good(value) else reason

    return without_answers(groups, fault)


def without_answers(groups: Sequence[Group], fault: Callable[[Completion], str]) -> Kept:
    """Groups without the answers that have a fault, told by its reason."""
    counts, left = Counter[str](), list[Group]()
    for group in groups:
        faults = [fault(c) for c in group.completions]
        counts.update(reason for reason in faults if reason)
        left += _with(group, [c for c, reason in zip(group.completions, faults, strict=True) if not reason], counts)
    return left, counts


def _without_groups(groups: Sequence[Group], fault: Callable[[Group], str]) -> Kept:
    """Groups that have no fault."""
    faults = [fault(group) for group in groups]
    left = [group for group, reason in zip(groups, faults, strict=True) if not reason]
    return left, Counter(reason for reason in faults if reason)


def _with(group: Group, left: Sequence[Completion], counts: Counter[str], reason: str = "") -> Iterable[Group]:
    """The group with the answers left, or nothing; what is gone is counted."""
    if reason and len(left) < len(group.completions):
        counts[reason] += len(group.completions) - len(left)
    if left:
        return (replace(group, completions=tuple(left)),)
    counts["prompts with no answer left"] += 1
    return ()


def _is_new(text: str, seen: set[str]) -> bool:
    new = text not in seen
    seen.add(text)
    return new


def share_in_range(where: str, value: float) -> None:
    """Refuse a share outside of [0, 1]; `where` names its setting."""
    if not 0 <= value <= 1:
        raise ValueError(f"{where} must be in [0, 1], got {value}")
