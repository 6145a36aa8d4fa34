"""Texts cut into words, sentences and paragraphs, by rules small enough to read.

A word is a run of letters and digits; an apostrophe inside it does not end it ("don't" is one), a
hyphen does. Each Chinese or Japanese character is a word, for nothing stands between them.

A sentence ends at . ! ? … or their like in other scripts, with closing quotes and brackets, before
white space or the text's end. It does not end behind titles ("Dr."), initials, the numbers of a list,
abbreviations that go on in lower case, and a quoted question that goes on so. A line break alone ends
none: otherwise empty lines would make sentences.
"""

from __future__ import annotations

import re
import unicodedata

_CHARACTER = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CHARACTER}]|[^\W_{_CHARACTER}]+(?:['’][^\W_{_CHARACTER}]+)*")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")

_CLOSING = "\"'”’»)\\]}*_」』）】"
_SPACED, _ALONE = ".!?…‽؟۔", "。！？।॥፧።"
_END = re.compile(
    rf"(?<![{_SPACED}{_ALONE}])(?P<mark>[{_SPACED}{_ALONE}]++)(?P<closing>[{_CLOSING}]*+)"
    rf"(?:(?=(?P<space>\s++)|$)|(?<=[{_ALONE}]))"
)
_LAST_WORD = re.compile(r"[^\s\"'“‘(\[{*_]+$")
_TITLES = frozenset(
    {
        "mr", "mrs", "ms", "mx", "dr", "prof", "rev", "hon", "sr", "jr", "st", "mt", "gov", "sen", "rep", "gen",
        "col", "lt", "sgt", "capt", "cmdr", "vs", "approx",
    }
)  # fmt: skip
_ABBREVIATIONS = frozenset(
    {
        "e.g", "i.e", "etc", "cf", "al", "inc", "ltd", "corp", "a.m", "p.m", "u.s", "u.k", "ph.d", "b.c", "a.d",
        "fig", "figs", "vol", "dept", "est", "ed", "eds", "pp", "jan", "feb", "apr", "aug", "sept", "oct",
        "nov", "dec",
    }
)  # fmt: skip
_BEFORE_NUMBERS = frozenset(
    {
        "no", "nos", "nr", "p", "pg", "ch", "sec", "art", "eq",
    }
)  # fmt: skip


def plain(text: str) -> str:
    """The text in compatibility form (NFKC), without invisible characters: what is hidden so is found."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")


def words(text: str) -> list[str]:
    """The words of a text; marks over letters are taken off, so that they cut no word in two."""
    if not text.isascii():
        text = "".join(c for c in text if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cf"))
    return _WORD.findall(text)


def has_words(text: str) -> bool:
    """Whether there is any letter or digit."""
    return any(c.isalnum() for c in text)


def paragraphs(text: str) -> list[str]:
    """The parts between blank lines, empty ones left out."""
    return [part.strip() for part in _BLANK_LINE.split(text) if part.strip()]


def sentences(text: str) -> list[str]:
    """The sentences of a text; what has no letter or digit is none."""
    found, start = [], 0
    for end in _END.finditer(text):
        if _ends(text, start, end):
            found.append(text[start : end.end()].strip())
            start = end.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if has_words(sentence)]


def _ends(text: str, start: int, end: re.Match[str]) -> bool:
    after = text[end.end("space") : end.end("space") + 1] if end["space"] else ""
    mark, closing = end["mark"], end["closing"]
    if mark in ("...", "…") or (closing.strip("*_") and mark[0] in ".!?"):
        return not after.islower()  # a pause, or a quotation that the sentence goes on behind
    return mark != "." or not _is_abbreviated(text, start, end, after)


def _is_abbreviated(text: str, start: int, end: re.Match[str], after: str) -> bool:
    """Whether the full stop belongs to the word before it."""
    before = text[max(start, end.start() - 20) : end.start()]
    match = _LAST_WORD.search(before)
    if match is None or not after:
        return False
    word = match[0]
    if word.isdigit() and len(word) <= 3:  # 1. begins an item of a list
        line = text[text.rfind("\n", 0, end.start()) + 1 : end.start()]
        return line.strip("#*>_- \t") == word
    low = word.lower()
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    return (
        is_initial
        or low in _TITLES
        or (low in _BEFORE_NUMBERS and after.isdigit())
        or (low in _ABBREVIATIONS and not after.isupper())
    )
