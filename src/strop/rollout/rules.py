"""Preferences by rules: the shorter answer, the one with citations, the one that a verifier scores higher.

A rule says 1 (the first answer is better), -1 (the second), 0 (a tie, or inside its dead zone) or
None (it cannot tell). Several stand in an order, each deciding where those before it tie, or are
weighed against each other.

The word lists are small and English; what they miss is for `matches` and for rewards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from strop.rewards.answers import compiled
from strop.rollout.choose import ROUNDING, value_of
from strop.rollout.couples import Couple, Preference, alike
from strop.rollout.filters import repeated_share
from strop.types import Completion, Group

CITATION = re.compile(
    r"\[\d{1,3}(?:\s*[,–-]\s*\d{1,3})*\]"  # [1], [2, 5]
    r"|\([A-Z][\w'’-]+(?:\s+(?:et al\.?|(?:and|&)\s+[A-Z][\w'’-]+))?,?\s+(?:1[5-9]|20)\d\d[a-z]?\)"  # (Mendel, 1866)
    r"|https?://[^\s)>\]]+"
    r"|\bdoi:\s*10\.\d{4,}/\S+",
)
COURTEOUS = re.compile(
    r"\b(?:please|thanks|thank you|you(?:'|’)?re welcome|(?:happy|glad|pleased) to (?:help|explain)|kindly|"
    r"i hope (?:this|that) helps|feel free)\b",
    re.IGNORECASE,
)
RUDE = re.compile(
    r"\b(?:obviously|stupid|idiot(?:ic)?|dumb|moron|shut up|duh|as anyone (?:can see|knows)|how can you not|"
    r"waste of (?:my )?time)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Longer:
    """The longer answer.

    Attributes: share: lengths that differ by no more than this share of the longer one are a tie.
        margin: so are those that differ by no more words, or characters.
    """

    name: Literal["longer"] = "longer"
    unit: Literal["words", "characters"] = "words"
    share: float = 0.1
    margin: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_length(self.name, self.share, self.margin, self.weight)

    def __call__(self, couple: Couple) -> int | None:
        return _by_length(couple, self.unit, self.share, self.margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shorter:
    """The shorter answer; settings as of `longer`."""

    name: Literal["shorter"] = "shorter"
    unit: Literal["words", "characters"] = "words"
    share: float = 0.1
    margin: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_length(self.name, self.share, self.margin, self.weight)

    def __call__(self, couple: Couple) -> int | None:
        return -_by_length(couple, self.unit, self.share, self.margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The answer in which a pattern (of Python's `re`) is found. Attributes: absent: the one in which it is not."""

    pattern: str
    name: Literal["matches"] = "matches"
    absent: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        compiled(self.pattern, "matches.pattern")
        _check_weight(self.name, self.weight)

    def __call__(self, couple: Couple) -> int | None:
        found = _sign(*(float(bool(re.search(self.pattern, c.text))) for c in couple.answers))
        return -found if self.absent else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Cites:
    """The answer with a citation: [1], (Mendel, 1866), a link or a DOI; how many there are makes no difference."""

    name: Literal["cites"] = "cites"
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_weight(self.name, self.weight)

    def __call__(self, couple: Couple) -> int | None:
        return _sign(*(float(bool(CITATION.search(c.text))) for c in couple.answers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Politer:
    """The politer answer: 1 for a courteous phrase, -1 for a rude one."""

    name: Literal["politer"] = "politer"
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_weight(self.name, self.weight)

    def __call__(self, couple: Couple) -> int | None:
        return _sign(*(_manner(c.text) for c in couple.answers))


@dataclass(frozen=True, slots=True, kw_only=True)
class LessRepetitive:
    """The answer that repeats itself less: the share of its runs of `num_words` words that repeat an earlier one."""

    name: Literal["less_repetitive"] = "less_repetitive"
    num_words: int = 4
    margin: float = 0.05
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.num_words < 1:
            raise ValueError(f"less_repetitive.num_words must be at least 1, got {self.num_words}")
        _check_margin(self.name, self.margin)
        _check_weight(self.name, self.weight)

    def __call__(self, couple: Couple) -> int | None:
        first, second = (repeated_share(c.text, self.num_words) for c in couple.answers)
        return -_sign(first, second, self.margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The answer that was not cut by the length limit."""

    name: Literal["finished"] = "finished"
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_weight(self.name, self.weight)

    def __call__(self, couple: Couple) -> int | None:
        return _sign(*(float(c.finish != "length") for c in couple.answers))


@dataclass(frozen=True, slots=True, kw_only=True)
class HigherScore:
    """The answer that scores higher; unknown where one of the two has no score.

    Attributes: reward: one of the rewards in place of their sum. margin: no larger difference is a tie.
    """

    name: Literal["higher_score"] = "higher_score"
    reward: str | None = None
    margin: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_margin(self.name, self.margin)
        _check_weight(self.name, self.weight)

    def __call__(self, couple: Couple) -> int | None:
        first, second = (value_of(c, self.reward) for c in couple.answers)
        return None if first is None or second is None else _sign(first, second, self.margin)


Rule = Longer | Shorter | Matches | Cites | Politer | LessRepetitive | Finished | HigherScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Preferences by rules; a tie where they tie, an abstention where one that is needed cannot tell.

    Attributes:
        rules: in their order.
        combine: "in_order", the first rule that does not tie decides; "weighted", the sign of
            sum weight * sign.
        min_margin: of weighted rules, |sum| / sum |weight| that is no more is a tie.
        confidence: the probability of the better answer; 1 for hard labels.
    """

    rules: tuple[Rule, ...]
    name: Literal["rules"] = "rules"
    combine: Literal["in_order", "weighted"] = "in_order"
    min_margin: float = 0.0
    confidence: float = 1.0

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError("rules.rules is empty; name some, as [cites, shorter]")
        if not 0.5 < self.confidence <= 1:
            raise ValueError(f"rules.confidence must be more than 0.5 and at most 1, got {self.confidence}")
        if not 0 <= self.min_margin < 1:
            raise ValueError(f"rules.min_margin must be at least 0 and less than 1, got {self.min_margin}")

    def __call__(self, couples: Sequence[Couple]) -> list[Preference]:
        said = self._in_order if self.combine == "in_order" else self._weighted
        return [said(couple) for couple in couples]

    def values(self, group: Group) -> list[float | None]:
        """How many of the others each answer beats, less how many beat it; unknown pairs count for none."""
        num = len(group.completions)
        out = [0.0] * num
        couples = [Couple(group=group, first=i, second=j) for i in range(num) for j in range(i)]
        for couple, told in zip(couples, self(couples), strict=True):
            if told.probability is not None and not told.tie:
                won = 1.0 if told.probability > 0.5 else -1.0
                out[couple.first] += won
                out[couple.second] -= won
        return [*out]

    def _in_order(self, couple: Couple) -> Preference:
        for rule in self.rules:
            sign = rule(couple)
            if sign is None:
                return Preference(probability=None, reason=f"abstained: {rule.name} cannot tell")
            if sign:
                return self._decided(sign, 1.0, rule.name)
        return Preference(probability=0.5, margin=0.0, reason="all rules tie", tie=True)

    def _weighted(self, couple: Couple) -> Preference:
        signs = [(rule, rule(couple)) for rule in self.rules]
        unknown = next((rule.name for rule, sign in signs if sign is None), None)
        if unknown is not None:
            return Preference(probability=None, reason=f"abstained: {unknown} cannot tell")
        total = math.fsum(rule.weight * (sign or 0) for rule, sign in signs)
        share = abs(total) / math.fsum(abs(rule.weight) for rule in self.rules)
        said = ", ".join(f"{rule.name} {sign:+d}" for rule, sign in signs if sign)
        if share <= max(self.min_margin, ROUNDING):
            return Preference(probability=0.5, margin=0.0, reason=said or "all rules tie", tie=True)
        return self._decided(1 if total > 0 else -1, share, said)

    def _decided(self, sign: int, margin: float, reason: str) -> Preference:
        probability = self.confidence if sign > 0 else 1 - self.confidence
        return Preference(probability=probability, margin=margin, reason=reason)


def _sign(first: float, second: float, dead_zone: float = 0.0) -> int:
    """1, -1, or 0 for a difference that is no larger than the dead zone, but for rounding."""
    if alike(first, second, dead_zone):
        return 0
    return 1 if first > second else -1


def length_of(completion: Completion, unit: str = "words") -> int:
    """An answer's words, or characters."""
    return len(completion.text.split()) if unit == "words" else len(completion.text)


def _by_length(couple: Couple, unit: str, share: float, margin: float) -> int:
    first, second = (length_of(c, unit) for c in couple.answers)
    return _sign(first, second, max(margin, share * max(first, second)))


def _manner(text: str) -> float:
    return float(bool(COURTEOUS.search(text))) - float(bool(RUDE.search(text)))


def _check_length(name: str, share: float, margin: float, weight: float) -> None:
    if not 0 <= share < 1:
        raise ValueError(f"{name}.share must be at least 0 and less than 1, got {share}")
    _check_margin(name, margin)
    _check_weight(name, weight)


def _check_margin(name: str, margin: float) -> None:
    if not margin >= 0:
        raise ValueError(f"{name}.margin must not be negative, got {margin}")


def _check_weight(name: str, weight: float) -> None:
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"{name}.weight must be a positive number, got {weight}")
