"""A key from the environment, and texts without it."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from urllib.parse import quote

HIDDEN = "[key]"
SHORTEST = 4
"""Shorter keys ("x", for servers that want any) are no secret, and would be found in every text."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A key that does not show: not in `repr`, and not in a text that went through `hide`."""

    value: str = field(repr=False)

    def __repr__(self) -> str:
        return "Secret()"

    def hide(self, text: str) -> str:
        """The text with the key, and its usual encodings, taken out."""
        for form in self._forms():
            text = text.replace(form, HIDDEN)
        return text

    def shows(self, text: str) -> bool:
        """Whether the text holds the key."""
        return self.hide(text) != text

    def _forms(self) -> tuple[str, ...]:
        if len(self.value) < SHORTEST:
            return ()
        whole = base64.b64encode(self.value.encode()).decode()
        return tuple(dict.fromkeys((self.value, quote(self.value, safe=""), whole, self.value[::-1])))


def secret_of(variable: str | None) -> Secret:
    """The key that an environment variable holds; an empty one where no variable is named.

    Raises: ValueError, which never shows the key, if the variable is unset, empty or cannot stand in a header.
    """
    if variable is None:
        return Secret("")
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ValueError(f"http.key_env: the environment variable {variable} is not set; export {variable}=...")
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"http.key_env: what {variable} holds cannot be a key: it has characters that do not print")
    return Secret(value)
