"""Instructions that put several parts together."""

from __future__ import annotations

import re

from strop.rewards.instructions.held import Held
from strop.rewards.texts import has_words, words

_SIX = re.compile(r"(?<!\*)\*{6}(?!\*)")


def repeat_prompt(text: str, prompt: str) -> Held:
    """The response begins with the prompt, word for word, and then answers. Capitals and spacing do not count."""
    said, wanted = " ".join(text.split()).lower(), " ".join(prompt.split()).lower()
    if not said.startswith(wanted):
        return Held(False, "does not begin with the request, word for word")
    return Held(has_words(said[len(wanted) :]), "the request repeated, then " + (said[len(wanted) :][:20] or "nothing"))


def two_responses(text: str) -> Held:
    """Two different responses stand on the two sides of ******."""
    parts = _SIX.split(text)
    while parts and not parts[-1].strip():
        parts.pop()
    while parts and not parts[0].strip():
        parts.pop(0)
    if len(parts) != 2 or not all(map(has_words, parts)):
        return Held(False, f"{sum(map(has_words, parts))} responses between ******, exactly 2 wanted")
    first, second = ([w.lower() for w in words(part)] for part in parts)
    return Held(first != second, "two different responses" if first != second else "the two responses are the same")
