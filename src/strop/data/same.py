"""When two texts count as the same: white space, case and Unicode's forms aside."""

from __future__ import annotations

import unicodedata

from strop.types import Content


def normalised(text: str) -> str:
    """A text in Unicode's NFKC form, without case, and with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def normalised_content(content: Content) -> str:
    """The normalised words of a text, or of turns with their roles, a line each."""
    turns = [content] if isinstance(content, str) else [f"{m.role}: {m.content}" for m in content]
    return "\n".join(map(normalised, turns))
