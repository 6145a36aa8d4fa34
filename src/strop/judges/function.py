"""A function of the user's in a judge's place: a rule, an oracle, or a model of their own.

    backend: {name: function, function: my_judge.py:judge}

    def judge(task: str, inputs: dict) -> str: ...

`task` is compare, rank, rate, critique or revise; `inputs` holds `prompt`, `responses` and what else the
question was made of. It answers in a word: "A", "B" or "tie" for compare; letters best first ("B A C") for
rank; a number from 1 to 10 for rate; the text itself for critique and revise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from strop.judges.protocol import Reply, Request
from strop.judges.usage import Usage, usage_of
from strop.judges.verdict import verdict_line
from strop.userfunction import check_place, load_place


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """What the user's function answers. An exception in it, or no fitting answer, is an abstention.

    Attributes:
        function: `package.module:function`, or `file.py:function` relative to the working folder.
    """

    function: str
    name: Literal["function"] = "function"

    def __post_init__(self) -> None:
        check_place(self.function, "function.function")

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        function = _loaded(self.function)
        replies = [_answer(function, request) for request in requests]
        usage_of(self).add(Usage(calls=len(replies), failed=sum(reply.text is None for reply in replies)))
        return replies


@lru_cache(maxsize=64)
def _loaded(place: str) -> Callable[..., Any]:
    return load_place(place, "function.function")


def _answer(function: Callable[..., Any], request: Request) -> Reply:
    try:
        text = function(request.task, dict(request.inputs))
    except Exception as error:  # the user's code may raise anything
        return Reply(text=None, reason=f"the judge's function failed: {type(error).__name__}: {error}"[:300])
    if not isinstance(text, str):
        kind = type(text).__name__
        return Reply(text=None, reason=f"the judge's function returned {kind}, not a text")
    if request.task in _WORDS and request.nonce:
        return _as_verdict(request, text)
    return Reply(text=text)


def _as_verdict(request: Request, text: str) -> Reply:
    """A short answer as the verdict that a model would have written."""
    key, read = _WORDS[request.task]
    value = read(text)
    if value is None:
        return Reply(text=None, reason=f"the judge's function answered {text[:60]!r}, which is no {key}")
    return Reply(text=verdict_line(request.nonce, key, value))


def _letter(text: str) -> str | None:
    word = text.strip()
    return word if word in ("A", "B", "tie") else None


def _letters(text: str) -> list[str] | None:
    return list(re.findall(r"[A-Z]", text)) if re.fullmatch(r"[A-Z](?:[\s,>]*[A-Z])*", text.strip()) else None


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\s*\d{1,3}(?:\.\d{1,12})?\s*", text, re.ASCII) else None


_WORDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "compare": ("better", _letter),
    "rank": ("order", _letters),
    "rate": ("score", _number),
}
"""Of each task with a verdict: its key, and how a word is read."""
