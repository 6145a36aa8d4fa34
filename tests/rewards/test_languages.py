"""Telling languages: by script, by statistics, and what is no language."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from strop.rewards import languages
from strop.rewards.languages import LANGUAGES, languages_in, main_language, prose, share_of, speaks

GERMAN = "Zuerst rechnen wir die Summe aus und teilen sie dann durch zwei."
ENGLISH = "First we compute the whole sum, and then we divide it by two."


def test_shares_are_of_words() -> None:
    assert share_of(ENGLISH, "en") == 1.0 and share_of(ENGLISH, "de") == 0.0
    mixed = share_of(f"{ENGLISH} {GERMAN}", "en")
    assert mixed == pytest.approx(13 / 25)


def test_words_of_another_script_are_not_in_the_language() -> None:
    assert share_of("First we compute 总和 and then divide it 两", "en") == pytest.approx(7 / 10)
    assert share_of("这是一个很长的句子", "zh") == 1.0 and share_of("これは長い文です", "ja") == 1.0
    assert share_of("これは長い文です", "zh") == 0.0


def test_code_formulas_and_links_are_no_language() -> None:
    text = (
        f"{ENGLISH} ```\nfor wort in woerter: drucke(wort)\n``` $\\alpha x$ \\[ y \\] https://ein.langer.link/hier <b>"
    )
    assert prose(text).split() == ENGLISH.split()
    assert share_of("```python\nx = 1\n```", "en") is None and share_of("12 + 3", "en") is None


def test_short_texts_get_the_benefit_of_the_doubt() -> None:
    assert all(speaks(text, "en") for text in ("okay", "John Smith", "yes.", ""))
    assert not speaks(GERMAN, "en") and main_language(GERMAN) == "de"


def test_near_relatives_stand_for_each_other() -> None:
    text = "Ovo je kratka rečenica koju pišem svom prijatelju u gradu, i nadam se da je dobro."
    assert share_of(text, "hr") == share_of(text, "bs") == share_of(text, "sr") == 1.0


def test_every_language_has_a_script() -> None:
    written = {language for script in languages._SCRIPTS for language in languages_in(script)}
    assert written == set(LANGUAGES)


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ValueError, match="'xx' is unknown"):
        share_of("text", "xx")


def test_without_the_library_scripts_still_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def absent(name: str, *rest: Any) -> Any:
        return None if name == "py3langid" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert share_of("ಇದು ಒಂದು ಸಣ್ಣ ವಾಕ್ಯ", "kn") == 1.0 and share_of("这是一个短句", "zh") == 1.0
    with pytest.raises(ValueError, match="pip install 'strop\\[train\\]'"):
        share_of(ENGLISH, "en")


def test_the_same_text_gives_the_same_answer() -> None:
    first = share_of(f"{ENGLISH} {GERMAN} okay", "en")
    languages._likelihoods.cache_clear()
    assert share_of(f"{ENGLISH} {GERMAN} okay", "en") == first
