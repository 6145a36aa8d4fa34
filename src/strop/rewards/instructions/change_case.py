"""Instructions on capital and small letters."""

from __future__ import annotations

from strop.rewards.instructions.held import Held, Relation, counted
from strop.rewards.languages import speaks

_AROUND = "\"'“”‘’«»()[]{}<>*_`#.,;:!?…-–—/|~"


def english_capital(text: str) -> Held:
    """English, and no small letter."""
    small = sum(c.islower() for c in text)
    if small or not any(c.isupper() for c in text):
        return Held(False, f"{small} small letters, all capitals wanted")
    return _english(text)


def english_lowercase(text: str) -> Held:
    """English, and no capital letter."""
    capital = sum(c.isupper() or c.istitle() for c in text)
    if capital or not any(c.islower() for c in text):
        return Held(False, f"{capital} capital letters, all small wanted")
    return _english(text)


def capital_word_frequency(text: str, times: int, relation: Relation) -> Held:
    """So many words are written in capitals throughout ("I" is one)."""
    found = sum(word.strip(_AROUND).isupper() for word in text.replace("—", " ").split())
    return counted(found, relation, times, "words in capitals")


def _english(text: str) -> Held:
    holds = speaks(text.lower(), "en")
    return Held(holds, "English, in the wanted letters" if holds else "not in English")
