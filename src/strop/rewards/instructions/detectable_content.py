"""Instructions on parts that can be told by their look: placeholders and a postscript."""

from __future__ import annotations

import re

from strop.rewards.instructions.held import Held, counted, quoted
from strop.rewards.texts import has_words

_BRACKETS = re.compile(r"\[([^\[\]\n]++)\](?!\()")


def number_placeholders(text: str, wanted: int) -> Held:
    """At least so many placeholders in square brackets, such as [address]; links are none."""
    return counted(sum(map(has_words, _BRACKETS.findall(text))), "at least", wanted, "placeholders")


def postscript(text: str, marker: str) -> Held:
    """Behind the response stands a postscript that begins with the marker ("P.S.") and says something."""
    letters = r"\s?".join(re.escape(c) for c in "".join(marker.split()))
    # At the start of a line (Markdown's signs before it are none) or behind a sentence.
    pattern = re.compile(
        rf"(?:^[ \t*_#>\"“-]{{0,9}}|(?<=[.!?)\"”*])\s{{1,9}}[*_]{{0,3}}){letters}", re.IGNORECASE | re.MULTILINE
    )
    found = [match for match in pattern.finditer(text) if has_words(text[: match.start()])]
    if not found:
        return Held(False, f"no postscript {quoted(marker)} behind the response")
    holds = has_words(text[found[-1].end() :])
    return Held(holds, "a postscript" if holds else f"{quoted(marker)} says nothing")
