"""The instruction on the language of a response."""

from __future__ import annotations

from strop.rewards.instructions.held import Held
from strop.rewards.languages import LANGUAGES, main_language, share_of

MOST = 0.8
"""So much of the words must be in the language; the rest is left for names and terms."""


def response_language(text: str, language: str) -> Held:
    """The response is in the language (ISO 639-1), and no other beside it.

    Raises: ValueError for a language that is not known.
    """
    share = share_of(text, language)
    if share is None:
        return Held(False, "no words to tell a language by")
    main = LANGUAGES.get(main_language(text) or "", "an unknown language")
    wanted = LANGUAGES[language]
    return Held(share >= MOST, f"{share:.0%} of the words in {wanted}, at least {MOST:.0%} wanted; mostly {main}")
