"""Instructions on how long a response is."""

from __future__ import annotations

import re

from strop.rewards.instructions.held import Held, Relation, counted, quoted
from strop.rewards.texts import has_words, paragraphs, sentences, words

_DIVIDER = re.compile(r"(?<!\S)\*{3}(?!\S)")


def number_words(text: str, wanted: int, relation: Relation) -> Held:
    """So many words."""
    return counted(len(words(text)), relation, wanted, "words")


def number_sentences(text: str, wanted: int, relation: Relation) -> Held:
    """So many sentences."""
    return counted(len(sentences(text)), relation, wanted, "sentences")


def number_paragraphs(text: str, wanted: int) -> Held:
    """Exactly so many paragraphs between the dividers ***, none of them empty."""
    parts = [has_words(part) for part in _DIVIDER.split(text.strip())]
    if not all(parts[1:-1]):
        return Held(False, f"an empty paragraph between two dividers ***, {wanted} paragraphs wanted")
    return counted(sum(parts), "exactly", wanted, "paragraphs between dividers ***")


def nth_paragraph_first_word(text: str, wanted: int, nth: int, first_word: str) -> Held:
    """Exactly so many paragraphs between blank lines, and the nth (from 1) begins with the word."""
    parts = paragraphs(text)
    if len(parts) != wanted or not 1 <= nth <= len(parts):
        return Held(False, f"{len(parts)} paragraphs, exactly {wanted} wanted, and a word for number {nth}")
    first = (words(parts[nth - 1]) or [""])[0]
    # A first word such as "well-known" is several of our words.
    begins = words(parts[nth - 1])[: len(words(first_word))]
    holds = [w.lower() for w in begins] == [w.lower() for w in words(first_word)] and bool(begins)
    return Held(holds, f"paragraph {nth} begins with {quoted(first)}, {quoted(first_word)} wanted")
