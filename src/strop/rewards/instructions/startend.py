"""Instructions on how a response begins and ends."""

from __future__ import annotations

from strop.rewards.instructions.held import Held, quoted

_OPENING, _CLOSING = '"“„«', '"”“»'


def end_checker(text: str, end_phrase: str) -> Held:
    """The last words are the phrase; nothing but quotation marks may follow it. Capitals do not count."""
    end = _folded(text).rstrip(f"{_CLOSING} ")
    phrase = _folded(end_phrase).strip(f"{_OPENING}{_CLOSING} ")
    holds = end.endswith(phrase)
    return Held(holds, "ends as wanted" if holds else f"ends with {quoted(end[-40:])}, {quoted(end_phrase)} wanted")


def quotation(text: str) -> Held:
    """The first and the last character are double quotation marks."""
    text = text.strip()
    holds = len(text) > 2 and text[0] in _OPENING and text[-1] in _CLOSING
    ends = f"begins {quoted(text[:1])} and ends {quoted(text[-1:])}"
    return Held(holds, "in double quotation marks" if holds else f"{ends}, double quotation marks wanted")


def _folded(text: str) -> str:
    return " ".join(text.replace("’", "'").split()).lower()
