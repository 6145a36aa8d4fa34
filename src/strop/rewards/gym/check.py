"""Whether a generator's scorer can be trusted: it must know its own answer, and refuse others.

Four things are asked of sampled entries: the entry's own answer scores 1; nonsense does not; of the
other entries' answers that differ from the own, most do not; nothing raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from strop.rewards.gym.client import WorkerError, ask
from strop.rewards.gym.entries import unpack

FULL = 0.999
"""From here on a score is full."""
NONSENSE = ("zqx vwk", "-")
_EXAMPLES = ("possible_answer", "example_answer", "example_correct_answer")
"""Where an entry of several right answers may hold one of them."""

Entry = Mapping[str, Any]
"""`question`, `answer` and `metadata`, packed."""


def own_answer(entry: Entry) -> str | None:
    """The entry's own answer, or the example among its metadata; `None` if it has none."""
    found = [entry["answer"], *(entry["metadata"].get(key) for key in _EXAMPLES)]
    answer = next((value for value in found if value is not None), None)
    return answer if answer is None or isinstance(answer, str) else json.dumps(unpack(answer))


def raw_score(name: str, config: Mapping[str, Any], entry: Entry, answer: str, *, timeout_s: float) -> float | str:
    """What the generator's scorer gives, clipped to [0, 1], or why it gives nothing."""
    request = {"op": "score", "name": name, "config": dict(config), "entry": dict(entry), "answer": answer}
    try:
        reply = ask(request, timeout_s=timeout_s)
    except WorkerError as error:
        return f"the scorer {error}"
    if "score" not in reply:
        return f"the scorer raised {reply['error']}" if "error" in reply else str(reply["refused"])
    score = float(reply["score"])
    return min(max(score, 0.0), 1.0) if score == score else "the scorer gave NaN"


def entry_floor(name: str, config: Mapping[str, Any], entry: Entry, *, timeout_s: float) -> float | str:
    """What nonsense scores on an entry whose own answer scores 1, or why the entry cannot be scored."""
    return _floor(name, json.dumps(dict(config)), json.dumps(dict(entry)), timeout_s)


@lru_cache(maxsize=4096)
def _floor(name: str, config_text: str, entry_text: str, timeout_s: float) -> float | str:
    config, entry = json.loads(config_text), json.loads(entry_text)
    own = own_answer(entry)
    if own is None:
        return "the entry has no answer of its own to check the scorer with"
    score = raw_score(name, config, entry, own, timeout_s=timeout_s)
    if isinstance(score, str):
        return f"on the entry's own answer {score}"
    if score < FULL:
        return f"the entry's own answer {own!r:.60} scores {score:.3g}, not 1"
    # What raises on nonsense gives it nothing.
    scores = [raw_score(name, config, entry, text, timeout_s=timeout_s) for text in NONSENSE if text != own]
    floor = max(score for score in (0.0, *scores) if not isinstance(score, str))
    return floor if floor < FULL else "nonsense scores 1"


def self_check(name: str, config: Mapping[str, Any], entries: Sequence[Entry], *, timeout_s: float) -> str:
    """What is wrong with a generator's scorer by these entries; empty where nothing is."""
    for number, entry in enumerate(entries):
        floor = entry_floor(name, config, entry, timeout_s=timeout_s)
        if isinstance(floor, str):
            return f"entry {number}: {floor}"
    taken = tried = 0
    for entry, other in zip(entries, [*entries[1:], *entries[:1]], strict=True):
        own, foreign = own_answer(entry), own_answer(other)
        if own is None or foreign is None or own.split() == foreign.split() or entry["question"] == other["question"]:
            continue
        tried += 1
        score = raw_score(name, config, entry, foreign, timeout_s=timeout_s)
        taken += not isinstance(score, str) and score >= FULL
    return f"{taken} of {tried} answers to other entries score 1" if tried > 2 and taken > tried / 2 else ""
