"""Texts as runs of words, and which phrases stand in how many answers.

Words are lower case; tags (`<think>`) are words; numbers are none and end a run, since answers differ
in them; punctuation is passed over. Scripts without spaces count each character as a word. Beginning
and end of an answer are words of their own, so that a stock opening is a phrase as any other. Signs
that stand alone (an exclamation mark, an asterisk, an emoji) are phrases of one word each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

Phrase = tuple[str, ...]

START, END = "⟦", "⟧"
"""Where an answer begins and ends."""
LONGEST = 5
"""Words in the longest run that is counted; longer phrases are put together from such runs."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
_TOKEN = re.compile(
    rf"(?P<tag></?[A-Za-z][\w-]*>)|(?P<number>\d[\d.,:]*)|(?P<sign>[{_CJK}])"
    rf"|(?P<word>[^\W\d_{_CJK}]+(?:['’-][^\W\d_{_CJK}]+)*)|(?P<mark>[^\w\s])"
)
_COMMON = frozenset(".,:;'\"()’“”")
"""Signs of ordinary writing: nobody needs to be told of them."""


def runs(text: str) -> list[list[str]]:
    """The words of a text in runs that numbers end; the first run opens with START, the last closes with END."""
    found: list[list[str]] = [[START]]
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "number":
            found.append([])
        elif match.lastgroup != "mark":
            found[-1].append(match[0].lower())
    found[-1].append(END)
    return [run for run in found if run]


def marks(text: str) -> set[str]:
    """The signs in a text that are not those of ordinary writing."""
    return {match[0] for match in _TOKEN.finditer(text) if match.lastgroup == "mark"} - _COMMON


def phrases(text: str) -> set[Phrase]:
    """Every run of one to five words in a text, and its signs; ends alone are none."""
    found: set[Phrase] = {(mark,) for mark in marks(text)}
    for run in runs(text):
        for n in range(1, LONGEST + 1):
            found.update(tuple(run[i : i + n]) for i in range(len(run) - n + 1))
    return found - {(START,), (END,), (START, END)}


def counts(texts: Iterable[str]) -> Counter[Phrase]:
    """In how many of the texts each phrase stands."""
    found: Counter[Phrase] = Counter()
    for text in texts:
        found.update(phrases(text))
    return found


@lru_cache(maxsize=1 << 16)
def written(text: str) -> str:
    """The words of a text with a space around each, and a bar between runs, so that phrases can be looked for."""
    return " " + " | ".join(" ".join(run) for run in runs(text)) + " "


def has(text: str, phrase: Phrase) -> bool:
    """Whether a phrase of any length stands in a text."""
    return phrase[0] in text if is_mark(phrase) else f" {' '.join(phrase)} " in written(text)


@lru_cache(maxsize=1 << 12)
def is_mark(phrase: Phrase) -> bool:
    """Whether a phrase is a sign that stands alone."""
    return len(phrase) == 1 and phrase[0] in marks(phrase[0])


def said(phrase: Phrase) -> str:
    """A phrase in words for people."""
    text = " ".join(word for word in phrase if word not in (START, END))
    if phrase[0] == START and phrase[-1] == END:
        return f'answers that are "{text}"'
    if phrase[0] == START:
        return f'answers that begin "{text}"'
    return f'answers that end "{text}"' if phrase[-1] == END else f'"{text}"'


def num_words(phrase: Phrase) -> int:
    """How many words of letters a phrase has."""
    return sum(word[0].isalpha() for word in phrase)
