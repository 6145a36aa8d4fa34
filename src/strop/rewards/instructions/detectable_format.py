"""Instructions on a response's format."""

from __future__ import annotations

import re

from strop.rewards.instructions.held import Held, counted, quoted
from strop.rewards.shape import read_json
from strop.rewards.texts import has_words

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_BULLET = re.compile(r"^[^\S\n]*[*+-][^\S\n]+\S", re.MULTILINE)
_MARKER = re.compile(r"^[^\S\n]*[*+-][^\S\n]+", re.MULTILINE)
_HIGHLIGHT = re.compile(r"(?<![*\\])(\*{1,3})(?=[^\s*])[^*\n]+(?<=\S)\1(?!\*)")
_TITLE = re.compile(r"<<([^<>\n]+)>>")


def number_bullet_lists(text: str, wanted: int) -> Held:
    """Exactly so many bullet points: lines that begin with *, - or + and a space."""
    return counted(len(_BULLET.findall(text)), "exactly", wanted, "bullet points")


def number_highlighted_sections(text: str, wanted: int) -> Held:
    """At least so many parts between asterisks, such as *this* or **this**; a bullet's asterisk begins none."""
    return counted(len(_HIGHLIGHT.findall(_MARKER.sub("", text))), "at least", wanted, "highlighted parts")


def multiple_sections(text: str, splitter: str, wanted: int) -> Held:
    """At least so many sections that begin with the splitter and a number, each other and with words in it."""
    starts = r"(?:^[^\w\n]{0,9}|(?<=[.!?:;\"”*)])[^\w\n]{1,9})"
    pattern = re.compile(
        rf"{starts}{re.escape(splitter.strip())}[^\S\n]*(\d{{1,9}}|[IVXLC]{{1,9}}(?=\W?$|[.:)*]))", re.MULTILINE
    )
    found = list(pattern.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)]
    numbers = {m[1] for m, end in zip(found, ends, strict=False) if has_words(text[m.end() : end])}
    return counted(len(numbers), "at least", wanted, f"sections {quoted(splitter.strip() + ' X')}")


def title(text: str) -> Held:
    """There is a title in double angular brackets, such as <<title>>."""
    holds = any(has_words(inside) for inside in _TITLE.findall(text))
    return Held(holds, "a title" if holds else "no <<title>>")


def constrained_response(text: str) -> Held:
    """Exactly one of the three answers is given; naming several is no answer."""
    found = [option for option in OPTIONS if option in text]
    return Held(len(found) == 1, f"{len(found)} of the answers {', '.join(map(repr, OPTIONS))}, exactly 1 wanted")


def json_format(text: str) -> Held:
    """The whole response is a JSON object or array, alone or as one fenced block."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and len(text) > 6:
        text = text[3:-3].removeprefix("json").removeprefix("JSON").strip()
    value, reason = read_json(text)
    if reason:
        return Held(False, f"no JSON: {reason}")
    holds = isinstance(value, dict | list)
    return Held(holds, "JSON" if holds else f"JSON of a lone {type(value).__name__}, an object or array wanted")
