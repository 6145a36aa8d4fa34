"""Instructions on words and letters that a response has, or has not.

Capitals do not count. A wanted keyword counts where a word begins with it ("story" is not in
"history"; "sneakers" has "sneaker"); a forbidden one is found as a whole word. In scripts that put
nothing between words both are found anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from strop.rewards.instructions.held import Held, Relation, counted, quoted
from strop.rewards.texts import plain

_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_LETTER = r"[^\W_]"


def existence(text: str, keywords: Sequence[str]) -> Held:
    """Every keyword is there."""
    missing = [k for k in keywords if not _beginning(k).search(plain(text))]
    return Held(not missing, f"{', '.join(map(quoted, missing))} missing" if missing else "all keywords there")


def frequency(text: str, keyword: str, times: int, relation: Relation) -> Held:
    """The keyword is there so many times."""
    return counted(len(_beginning(keyword).findall(plain(text))), relation, times, f"times {quoted(keyword)}")


def forbidden_words(text: str, forbidden: Sequence[str]) -> Held:
    """None of the words is there."""
    found = [k for k in forbidden if _whole(k).search(plain(text))]
    return Held(not found, f"{', '.join(map(quoted, found))} found" if found else "no forbidden word")


def letter_frequency(text: str, letter: str, times: int, relation: Relation) -> Held:
    """The letter (or other character) is there so many times, small or capital."""
    return counted(text.lower().count(letter.lower()), relation, times, f"times {quoted(letter)}")


@lru_cache(maxsize=1024)
def _beginning(keyword: str) -> re.Pattern[str]:
    return re.compile(_before(keyword) + _spelled(keyword), re.IGNORECASE)


@lru_cache(maxsize=1024)
def _whole(keyword: str) -> re.Pattern[str]:
    keyword = plain(keyword).strip()
    after = rf"(?!{_LETTER})" if keyword[-1:].isalnum() and not _UNSPACED.search(keyword) else ""
    return re.compile(_before(keyword) + _spelled(keyword) + after, re.IGNORECASE)


def _before(keyword: str) -> str:
    keyword = plain(keyword).strip()
    return rf"(?<!{_LETTER})" if keyword[:1].isalnum() and not _UNSPACED.search(keyword) else ""


def _spelled(keyword: str) -> str:
    """The keyword as a pattern: any white space between its words, either apostrophe."""
    parts = [re.escape(part) for part in plain(keyword).replace("’", "'").split()]
    return r"\s+".join(parts).replace("'", "['’]")
