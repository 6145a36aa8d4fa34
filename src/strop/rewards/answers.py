"""Rewards for answers that can be compared: exact text, a number, a letter of a choice.

Each is 1 for the right answer and 0 for a wrong or missing one. It is `None` (unscorable) only
where the gold answer is the trouble: absent, or not of the kind. The last answer alone is read
(`extract`), so listing candidates does not win, within one answer neither.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from strop.rewards import extract
from strop.rewards.protocol import check_column, each, gold_of
from strop.rewards.quantity import Quantity, last_number, only_number, parse_number, same_quantity
from strop.types import Group, Verdict

_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"\w")
_LONE_LETTER = re.compile(r"(?<![\w'’])[A-Za-z](?![\w'’])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """1 if the answer's text is the gold's, spaces collapsed.

    Attributes:
        column: the row's column with the gold: a text, a number, or a list of accepted ones.
        casefold: take upper and lower case for the same.
        extract: null compares all that follows the thinking; `answer_tag` the last
            `<answer>...</answer>`; anything else is a regular expression whose last match (its
            first group, if it has one) is the answer.
    """

    name: Literal["exact"] = "exact"
    weight: float = 1.0
    label: str | None = None
    column: str = "answer"
    casefold: bool = True
    extract: str | None = None

    def __post_init__(self) -> None:
        if self.extract is not None and self.extract != "answer_tag":
            compiled(self.extract, "exact.extract")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        check_column(groups, self.column, self.name)
        return each(
            groups,
            lambda c, g: verify_exact(c.text, gold_of(g, self.column), casefold=self.casefold, extract_by=self.extract),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """1 if the last answer is the gold number, compared as exact rationals.

    Attributes:
        column: the row's column with the gold: a number, or a text in which it is marked
            ("#### 72") or stands alone.
        tolerance: relative deviation allowed; 0 is exact equality.
        unmarked: where no answer is marked, take the last number of the text.
    """

    name: Literal["number"] = "number"
    weight: float = 1.0
    label: str | None = None
    column: str = "answer"
    tolerance: float = 0.0
    unmarked: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"number.tolerance: {self.tolerance} is no relative deviation in [0, 1)")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        check_column(groups, self.column, self.name)
        return each(
            groups,
            lambda c, g: verify_number(
                c.text, gold_of(g, self.column), tolerance=self.tolerance, unmarked=self.unmarked
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """1 if the last answer is the gold letter of a multiple choice.

    Attributes:
        column: the row's column with the gold: a letter, or an index from 0 or an option's text
            where `choices` is given.
        choices: the row's column with the list of options; letters beyond it are wrong.
    """

    name: Literal["choice"] = "choice"
    weight: float = 1.0
    label: str | None = None
    column: str = "answer"
    choices: str | None = None

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        for column in (self.column, self.choices):
            if column is not None:
                check_column(groups, column, self.name)
        return each(
            groups,
            lambda c, g: verify_choice(
                c.text,
                gold_of(g, self.column),
                choices=None if self.choices is None else (gold_of(g, self.choices) or ()),
            ),
        )


def compiled(pattern: str, where: str) -> re.Pattern[str]:
    """The compiled pattern. Raises: ValueError with the position of the mistake."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{where}: {pattern!r} is no regular expression: {error}") from None


# --- exact ---


def verify_exact(text: str, gold: Any, *, casefold: bool = True, extract_by: str | None = None) -> Verdict:
    """Whether the answer in a text is the gold text (or one of several), spaces collapsed.

    Returns: 1 or 0; `None` for a gold that is empty or neither text nor number.
    """
    golds = [_normal(g, casefold) for g in _accepted(gold)]
    if not golds or not all(golds):
        return Verdict(None, f"no gold text to compare with: {_shown(gold)}")
    found = extracted(text, extract_by)
    if found is None:
        return Verdict(0.0, f"no answer found by {extract_by!r}")
    if _normal(found, casefold) in golds:
        return Verdict(1.0, "equal", found)
    return Verdict(0.0, f"expected {_shown(gold)}, found {_shown(found)}", found)


def _accepted(gold: Any) -> list[str]:
    if isinstance(gold, list | tuple):
        return [text for g in gold for text in (_accepted(g) or [""])]
    return [str(gold)] if isinstance(gold, str | int | float) else []


def _normal(text: str, casefold: bool) -> str:
    text = " ".join(text.split())
    return text.casefold() if casefold else text


def extracted(text: str, extract_by: str | None) -> str | None:
    """The answer in a text, after its thinking: in its answer tag, by a pattern's last match, or all of it."""
    text = extract.after_think(text)
    if extract_by is None:
        return text.strip()
    text = text[-extract.MAX_CHARS :]
    if extract_by == "answer_tag":
        tag = extract.last_tag(text)
        return None if tag is None or tag.content is None else tag.content.strip()
    match = None
    for match in re.finditer(extract_by, text):  # noqa: B007 - the last one is what is wanted
        pass
    return None if match is None else (match[1] if match.re.groups else match[0])


def _shown(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


# --- number ---


def verify_number(text: str, gold: Any, *, tolerance: float = 0.0, unmarked: bool = True) -> Verdict:
    """Whether the last answer in a text is the gold number, as exact rationals.

    Args: gold: a number or a text, read as answers are. tolerance: relative. unmarked: see `Number`.
    Returns: 1 or 0; `None` for a gold that is no number.
    """
    wanted = gold_number(gold)
    if wanted is None:
        return Verdict(None, f"the gold answer is no number: {_shown(gold)}")
    found = answer_number(text, unmarked=unmarked)
    if isinstance(found, str):
        return Verdict(0.0, found)
    if same_quantity(found, wanted, tolerance):
        return Verdict(1.0, "equal", found.text)
    return Verdict(0.0, f"expected {wanted.text}, found {_shown(found.text)}", found.text)


def gold_number(gold: Any) -> Quantity | None:
    """A gold answer as a number, or None: a number, a text with a marked one, or a text that is one."""
    if isinstance(gold, int | float) and not isinstance(gold, bool):
        return Quantity(Fraction(repr(gold)), False, repr(gold)) if math.isfinite(gold) else None
    if not isinstance(gold, str):
        return None
    text = extract.answer_part(gold)
    answer = extract.last_answer(text, extract.CLAUSE_OR_A, _DIGIT)
    content = text if answer is None else extract.innermost(answer, extract.CLAUSE_OR_A, _DIGIT)
    return None if content is None else parse_number(content)


def answer_number(text: str, *, unmarked: bool = True) -> Quantity | str:
    """The number a text answers, or why there is none."""
    text = extract.answer_part(text)
    answer = extract.last_answer(text, extract.CLAUSE_OR_A, _DIGIT)
    if answer is None:
        *_, rest = re.split(extract.CLAUSE_OR_A, text)  # "The answer is below:" still says where to look
        return parse_number(rest) or _unmarked(rest, unmarked) or "no answer found"
    content = extract.innermost(answer, extract.CLAUSE_OR_A, _DIGIT)
    if content is None:
        return f"the last answer's {answer.kind} is not closed"
    number = parse_number(content, exclaim=answer.kind == "clause")
    if number is None and answer.kind != "box":
        number = only_number(content)
    if number is None and answer.kind == "clause":  # "Answer: first, 2 and 3 ..." opens prose that ends in a number
        number = _unmarked(text[answer.stop :], unmarked)
    return number or f"the answer is not one number: {_shown(content.strip())}"


def _unmarked(text: str, allowed: bool) -> Quantity | None:
    return last_number(text) if allowed else None


# --- choice ---

_OPTION = re.compile(r"\(?\s?([A-Z])\s?(?:[).:]\s?(?P<rest>.*))?", re.DOTALL)
_OPTION_LEAD = re.compile(r"[\s,:=$]*(?:(?:therefore|simply|option|choice|letter|answer)\b[\s:]*){0,2}", re.IGNORECASE)
_HEDGE = re.compile(r"(?:\b(?:or|and|nor)\b|[,/;&|+])\s*(?:both\s|option\s)?\(?([A-Z])\)?(?![\w'’])")
_LOWER = re.compile(r"\(?[a-z]\s?(?:[).:]|$)")
_ANOTHER = re.compile(r"\(?[A-Z](?:[).:,/;]|\s*$)")
_LISTED = re.compile(r"\(([A-Z])\)")


def verify_choice(text: str, gold: Any, *, choices: Sequence[Any] | None = None) -> Verdict:
    """Whether the last answer in a text is the gold letter.

    Args:
        gold: a letter; with `choices` also an index from 0, or one option's text (in this order).
        choices: the options in order. With them an answer may also be an option's whole text.
    Returns: 1 or 0; `None` for a gold that names no option.
    """
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: 26 if choices is None else len(choices)]
    options = [_normal(str(c), True) for c in choices or ()]
    wanted = _gold_letter(gold, letters, options)
    if wanted is None:
        return Verdict(None, f"the gold answer names no option: {_shown(gold)}")
    found = answer_letter(text, letters, options)
    if len(found) != 1:
        return Verdict(0.0, found)
    if found == wanted:
        return Verdict(1.0, "equal", found)
    return Verdict(0.0, f"expected {wanted}, found {found}", found)


def _gold_letter(gold: Any, letters: str, options: list[str]) -> str | None:
    if isinstance(gold, bool) or not isinstance(gold, int | str):
        return None
    if isinstance(gold, str):
        letter = _letter(gold, letters, [])
        if letter is not None:
            return letter
        if options.count(_normal(gold, True)) == 1:
            return letters[options.index(_normal(gold, True))]
        if not re.fullmatch(r"[0-9]{1,2}", gold.strip()):
            return None
    index = int(gold)
    return letters[index] if options and 0 <= index < len(letters) else None


def answer_letter(text: str, letters: str, options: Sequence[str] = ()) -> str:
    """The letter a text answers; more than one character says why there is none."""
    text = extract.answer_part(text)
    wanted = _WORD if options else _LONE_LETTER
    answer = extract.last_answer(text, extract.CLAUSE, wanted)
    if answer is None:
        return _letter(text, letters, options) or _unmarked_letter(text, letters, options) or "no answer found"
    content = extract.innermost(answer, extract.CLAUSE, wanted)
    if content is None:
        return f"the last answer's {answer.kind} is not closed"
    return _letter(content, letters, options) or f"the answer is not one option: {_shown(content.strip())}"


def _letter(text: str, letters: str, options: Sequence[str]) -> str | None:
    """The letter that a whole text names: 'B', '(b)', 'B.', 'B) Paris', 'option B', or an option's text."""
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s?\{([^{}]{0,200})\}", r"\1", text[: extract.MAX_CHARS])
    text = text.replace("$", " ").strip()
    if len(options) and list(options).count(_normal(text.rstrip("."), True)) == 1:
        return letters[list(options).index(_normal(text.rstrip("."), True))]
    lead = _OPTION_LEAD.match(text)
    text = text[lead.end() if lead else 0 :].strip()
    if _LOWER.match(text):
        text = text[:2].upper() + text[2:]
    match = _OPTION.fullmatch(text)
    if match is None or match[1] not in letters or _ANOTHER.match(match["rest"] or ""):
        return None
    return None if any(m[1] in letters for m in (*_HEDGE.finditer(text), *_LISTED.finditer(text, 2))) else match[1]


def _unmarked_letter(text: str, letters: str, options: Sequence[str]) -> str | None:
    """The last line's letter, or the last '(B)' if it is not one of several named together."""
    lines = text.strip().splitlines()
    letter = _letter(lines[-1], letters, options) if lines else None
    if letter is not None:
        return letter
    listed = [m for m in _LISTED.finditer(text) if m[1] in letters]
    if not listed or (len(listed) > 1 and _together(text[listed[-2].end() : listed[-1].start()])):
        return None
    return None if re.search(r"\b(?:not|or|nor)\s*$", text[: listed[-1].start()]) else listed[-1][1]


def _together(gap: str) -> bool:
    return len(gap) <= 40 and bool(re.fullmatch(r"[^.\n]*(?:\b(?:or|and|nor)\b|[,/;&|])[^.\n]*|[ ]*", gap))
