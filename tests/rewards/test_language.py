"""The language-consistency reward."""

from __future__ import annotations

import pytest

from strop.rewards import Language, verify_language
from strop.rewards.language import part_of
from strop.types import Completion, Group

THOUGHT = "First we compute the whole sum, and then we divide it by two."
ANSWER = "Die Antwort auf die Frage ist natürlich zweiundvierzig."


def test_parts() -> None:
    text = f"<think>{THOUGHT}</think>{ANSWER}"
    assert part_of(text, "thinking").strip() == THOUGHT and part_of(text, "answer") == ANSWER
    assert part_of("<think>never ends", "answer") == "" and "never" in part_of("<think>never ends", "thinking")
    assert part_of(f"{THOUGHT}</think>{ANSWER}", "thinking").strip() == THOUGHT
    assert part_of(ANSWER, "thinking") == ""


def test_each_part_has_its_share() -> None:
    text = f"<think>{THOUGHT}</think>{ANSWER}"
    assert verify_language(text, "en", part="thinking").score == 1.0
    assert verify_language(text, "en", part="answer").score == 0.0
    assert verify_language(text, "en").score == pytest.approx(13 / 21)
    assert verify_language(text, "en").reason == "62% of the words in English, mostly English"


def test_no_words_are_unscorable() -> None:
    assert verify_language("42", "en").score is None
    assert verify_language(ANSWER, "en", part="thinking").reason == "the thinking part is empty"


def test_formulas_alone_may_be_given_a_score() -> None:
    group = Group(
        "p", (Completion("<think>1 + 1 = 2</think>2"), Completion(f"<think>{ANSWER}</think>2"), Completion("2"))
    )
    reward = Language(target="en", part="thinking", wordless=1.0)
    assert [v.score for v in reward([group])[0]] == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="language.wordless: 2 is no share of words"):
        Language(wordless=2)


def test_the_reward() -> None:
    group = Group("p", (Completion(THOUGHT), Completion(ANSWER), Completion("1 + 1")))
    assert [v.score for v in Language(target="en")([group])[0]] == [1.0, 0.0, None]
    with pytest.raises(ValueError, match="language.target: 'english' is unknown"):
        Language(target="english")
