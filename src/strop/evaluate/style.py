"""What answers look like: their words, lists, headings, bold, code, refusals, hedges and repetition.

Of a text's own marks only, so that it can be said of any answer, and of two models' answers to the same prompts.
These are the features that people's and judges' preferences follow besides what is said (length, headings, bold and
lists: Li et al. 2024, lmsys.org/blog/2024-08-28-style-control), and those that training for a reward lets grow.
The phrases of refusals and hedges are a small English list: a change in them is worth a look, their level is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from strop.rewards.extract import after_think
from strop.rollout.filters import repeated_share

_LIST = re.compile(r"^\s{0,8}(?:[-*+•]|\d{1,3}[.)])\s+\S", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_FENCE = re.compile(r"^\s{0,3}```", re.MULTILINE)
_REFUSAL = re.compile(
    r"\bI(?:'|’)?(?:m| am) (?:sorry|unable|not able|afraid)|\bI can(?:no|')t (?:help|assist|do that|provide|comply)"
    r"|\bI (?:cannot|can’t|won(?:'|’)?t|will not|must decline|have to decline)\b|\bas an AI\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:perhaps|possibly|probably|maybe|it seems|it appears|I think|I believe|might be|may be|could be|"
    r"it is important to note|generally speaking|in some cases)\b",
    re.IGNORECASE,
)
REFUSES_WITHIN = 200
"""Characters at the beginning of an answer in which it refuses, if it does; later ones are about something else."""


def words(text: str) -> float:
    """Words of the answer behind its thinking."""
    return float(len(_answer(text).split()))


def thinking_words(text: str) -> float:
    """Words of the thinking, all of them where it never ends."""
    return float(len(text.split()) - len(_answer(text).split())) if "<think>" in text or "</think>" in text else 0.0


def list_items(text: str) -> float:
    """Lines that are items of a list, outside of code."""
    return float(len(_LIST.findall(_prose(text))))


def headings(text: str) -> float:
    """Lines that are headings, outside of code."""
    return float(len(_HEADING.findall(_prose(text))))


def bold(text: str) -> float:
    """Runs of bold words, outside of code."""
    return float(len(_BOLD.findall(_prose(text))))


def code_blocks(text: str) -> float:
    """Fenced blocks of code; one that is not closed counts."""
    return float((len(_FENCE.findall(_answer(text))) + 1) // 2)


def refuses(text: str) -> float:
    """1 if the answer begins with a phrase of refusing, as "I'm sorry" or "I cannot"."""
    return float(bool(_REFUSAL.search(_answer(text)[:REFUSES_WITHIN])))


def hedges(text: str) -> float:
    """Phrases of hedging a hundred words."""
    answer = _answer(text)
    count = len(answer.split())
    return 100 * len(_HEDGE.findall(answer)) / count if count else 0.0


def repetition(text: str) -> float:
    """The share of runs of four words, thinking included, that repeat an earlier one."""
    return repeated_share(text, 4)


FEATURES: Mapping[str, tuple[Callable[[str], float], bool]] = {
    "words": (words, False),
    "thinking_words": (thinking_words, False),
    "list_items": (list_items, False),
    "headings": (headings, False),
    "bold": (bold, False),
    "code_blocks": (code_blocks, False),
    "refusals": (refuses, True),
    "hedges": (hedges, False),
    "repetition": (repetition, True),
}
"""What is measured of each answer, and whether it is a share."""


def distinct_2(texts: Sequence[str]) -> float | None:
    """Different pairs of words over all, in several answers to one prompt; None without a pair.

    1 where no two words follow each other twice; low where the answers are one. Li et al. 2016, arXiv:1510.03055,
    there over a whole corpus; by prompt it does not fall with the number of prompts.
    """
    pairs = list(chain.from_iterable(zip(row, row[1:], strict=False) for row in (text.split() for text in texts)))
    return len(set(pairs)) / len(pairs) if pairs else None


def _answer(text: str) -> str:
    return after_think(text)


def _prose(text: str) -> str:
    """The answer without its code."""
    return "".join(_FENCE.split(_answer(text))[::2])
