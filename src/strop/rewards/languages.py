"""Which language a text is in: by its script, then by the letters' statistics where several share one.

Scripts of one language (Greek, Hangul, Thai, Tamil ...) tell it alone. Others (Latin, Cyrillic,
Arabic, Devanagari) are told by py3langid, a naive Bayes model of letter n-grams that comes with its
package, weighed over the script's languages only. No random numbers: the same text, the same answer.

A piece of text is taken for the wanted language unless another is twice as likely, and so is a
short one that no language is likely for: a name or "okay" counts against nobody. Code, formulas,
links and numbers are no language and are left out.
Languages mixed within a sentence are not told apart where they share a script.
"""

from __future__ import annotations

import copy
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from strop.rewards.texts import sentences, words

LANGUAGES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian",
    "bn": "Bengali", "bs": "Bosnian", "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque",
    "fa": "Persian", "fi": "Finnish", "fr": "French", "ga": "Irish", "gl": "Galician", "gu": "Gujarati", "ha": "Hausa",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian",
    "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer",
    "kn": "Kannada", "ko": "Korean", "ky": "Kyrgyz", "la": "Latin", "lb": "Luxembourgish", "lo": "Lao",
    "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi",
    "ms": "Malay", "mt": "Maltese", "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "or": "Odia",
    "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "so": "Somali", "sq": "Albanian", "sr": "Serbian",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish",
    "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "yo": "Yoruba", "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip
"""The languages that are told apart, by ISO 639-1 code."""

_SCRIPTS = {
    "latin": "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff",
    "cyrillic": "\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f",
    "arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufeff",
    "devanagari": "\u0900-\u0963\u0966-\u097f\ua8e0-\ua8ff",
    "han": "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "hebrew": "\u0590-\u05ff",
    "el": "\u0370-\u03ff\u1f00-\u1fff", "hy": "\u0530-\u058f", "ka": "\u10a0-\u10ff\u1c90-\u1cbf\u2d00-\u2d2f",
    "bn": "\u0980-\u09ff", "pa": "\u0a00-\u0a7f", "gu": "\u0a80-\u0aff", "or": "\u0b00-\u0b7f", "ta": "\u0b80-\u0bff",
    "te": "\u0c00-\u0c7f", "kn": "\u0c80-\u0cff", "ml": "\u0d00-\u0d7f", "si": "\u0d80-\u0dff", "th": "\u0e00-\u0e7f",
    "lo": "\u0e80-\u0eff", "my": "\u1000-\u109f", "am": "\u1200-\u139f", "km": "\u1780-\u17ff",
    "ko": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
}  # fmt: skip
"""The letters of each script; one that is named by a language belongs to it alone."""

_SHARED = {
    "cyrillic": ("be", "bg", "kk", "ky", "mk", "mn", "ru", "sr", "uk"),
    "arabic": ("ar", "fa", "ps", "ur"),
    "devanagari": ("hi", "mr", "ne"),
    "han": ("ja", "zh"),
    "hebrew": ("he",),
}
_KIN = ({"bs", "hr", "sr"}, {"id", "ms"})
"""Languages whose texts hardly differ stand for each other."""
_SCRIPT_OF_LETTER = re.compile("|".join(f"(?P<{name}>[{letters}])" for name, letters in _SCRIPTS.items()))
_KANA = re.compile("[\u3040-\u30ff\u31f0-\u31ff]")
_MIN_LETTERS = 40
"""Sentences are put together until they have so many letters, for fewer tell little."""
_PIECE_CHARS = 2_000

_NO_LANGUAGE = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.{0,2000}?\\\]|\\\(.{0,2000}?\\\)"
    r"|\\[A-Za-z]+|https?://\S+|</?[A-Za-z][^<>\n]{0,60}>",
    re.DOTALL,
)


def prose(text: str) -> str:
    """The text without code, formulas, commands of TeX, links and tags."""
    return _NO_LANGUAGE.sub(" ", text)


def speaks(text: str, language: str) -> bool:
    """Whether most words of the text are in the language; a text that says too little to tell is.

    Raises: ValueError for an unknown language, or where py3langid is missing and is needed.
    """
    share = share_of(text, language)
    return share is None or share >= 0.5


def share_of(text: str, language: str) -> float | None:
    """The share of the text's words that are in the language, in [0, 1]; `None` where there is no word.

    A word counts if it is in a script of the language and its piece of text is in the language.
    Raises: ValueError as `speaks` does.
    """
    check_language(language)
    found = total = 0
    for script, num, piece in _pieces(prose(text)):
        total += num
        found += num if language in languages_in(script) and _is_in(piece, script, language) else 0
    return found / total if total else None


def main_language(text: str) -> str | None:
    """The language of the most words; `None` where there is no word.

    Raises: ValueError where py3langid is missing and is needed.
    """
    counts: Counter[str] = Counter()
    for script, num, piece in _pieces(prose(text)):
        counts[max(_likelihoods(piece, script).items(), key=lambda item: item[1])[0]] += num
    return counts.most_common(1)[0][0] if counts else None


def check_language(language: str) -> None:
    """Raises ValueError for an unknown code, or one that cannot be told because py3langid is not installed."""
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r} is unknown; known: {', '.join(sorted(LANGUAGES))}")
    shared = any(len(languages_in(script)) > 1 and language in languages_in(script) for script in _SCRIPTS)
    if shared and language not in ("ja", "zh") and importlib.util.find_spec("py3langid") is None:
        raise ValueError(f"language {language!r} shares its script, so telling it needs: pip install 'strop[train]'")


@lru_cache(maxsize=64)
def languages_in(script: str) -> tuple[str, ...]:
    """The languages written in a script."""
    if script != "latin":
        return _SHARED.get(script, (script,))
    others = {language for s in _SCRIPTS if s != "latin" for language in languages_in(s)} - {"sr"}
    return tuple(language for language in LANGUAGES if language not in others)


def _pieces(text: str) -> Iterator[tuple[str, int, str]]:
    """A script, how many words of a piece of text are in it, and these words."""
    piece: list[str] = []
    letters = 0
    for sentence in _lines(text):
        piece.append(sentence)
        letters += sum(map(str.isalpha, sentence))
        if letters >= _MIN_LETTERS:
            yield from _by_script(" ".join(piece))
            piece, letters = [], 0
    yield from _by_script(" ".join(piece))


def _lines(text: str) -> Iterator[str]:
    """Sentences, each cut at line breaks and into parts of bounded length."""
    for sentence in sentences(text):
        for line in sentence.splitlines():
            yield from (line[i : i + _PIECE_CHARS] for i in range(0, len(line), _PIECE_CHARS))


def _by_script(piece: str) -> Iterator[tuple[str, int, str]]:
    found: dict[str, list[str]] = {}
    for word in words(piece):
        if match := _SCRIPT_OF_LETTER.search(word):
            found.setdefault(str(match.lastgroup), []).append(word)
    for script, those in found.items():
        # The words lost their marks, which the statistics know; where all are in one script, read the piece itself.
        yield script, len(those), piece if len(found) == 1 else " ".join(those)


def _is_in(piece: str, script: str, language: str) -> bool:
    likely = _likelihoods(piece, script)
    kin = next((kin for kin in _KIN if language in kin), {language})
    best = max(likely.values())
    undecided = best < 0.5 and len(piece) < _MIN_LETTERS
    return undecided or sum(likely.get(one, 0.0) for one in kin) >= 0.5 * best


@lru_cache(maxsize=4096)
def _likelihoods(piece: str, script: str) -> dict[str, float]:
    """How likely each of the script's languages is; they sum to 1."""
    known = languages_in(script)
    if len(known) == 1:
        return {known[0]: 1.0}
    if script == "han":  # Japanese is hardly ever without kana
        japanese = float(len(_KANA.findall(piece)) >= 0.05 * len(piece))
        return {"ja": japanese, "zh": 1 - japanese}
    ranked = dict(_identifier(script).rank(piece))
    return {language: ranked[language] for language in known}


@lru_cache(maxsize=8)
def _identifier(script: str) -> Any:
    """A model of the script's languages alone."""
    identifier = copy.copy(_all_languages())
    identifier.set_languages(languages_in(script))
    return identifier


@lru_cache(maxsize=1)
def _all_languages() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ValueError("telling languages of one script needs py3langid: pip install 'strop[train]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
