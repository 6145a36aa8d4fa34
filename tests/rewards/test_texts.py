"""Words, sentences and paragraphs."""

from __future__ import annotations

import time

import pytest

from strop.rewards.texts import has_words, paragraphs, plain, sentences, words


@pytest.mark.parametrize(
    "text, found",
    [
        ("It isn't 3.5", ["It", "isn't", "3", "5"]),
        ("well-known snake_case", ["well", "known", "snake", "case"]),
        ("हिन्दी में", ["हनद", "म"]),
        ("日本 go", ["日", "本", "go"]),
        ("— ! …", []),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


@pytest.mark.parametrize(
    "text, num",
    [
        ("Hello. World!", 2),
        ("i like cats. they are nice.", 2),
        ("Dr. Lee met Mrs. Ray. They spoke.", 2),
        ("J. K. Rowling wrote it.", 1),
        ("So do I. We agree.", 2),
        ("I paid 3.50 dollars.", 1),
        ("Wait... what? Yes… No.", 3),
        ('He said "go!" and left. She stayed.', 2),
        ('"What?" He asked.', 2),
        ("1. One.\n2. Two.", 2),
        ("My answer is no. I mean it.", 2),
        ("See no. 5 there.", 1),
        ("At 5 p.m. we left. At 6 p.m. They came.", 3),
        ("यह है। वह था।", 2),
        ("这是。那是？", 2),
        ("A title\n\nwithout a stop", 1),
        ("! ? .", 0),
        ("", 0),
    ],
)
def test_sentences(text: str, num: int) -> None:
    assert len(sentences(text)) == num, sentences(text)


def test_paragraphs_stand_between_blank_lines() -> None:
    assert paragraphs("a\nb\n\n \n\nc\n") == ["a\nb", "c"]


def test_plain_shows_what_is_hidden() -> None:
    assert plain("ro\u200bck ｒｏｃｋ") == "rock rock"
    assert has_words("ب") and not has_words("!?")


@pytest.mark.parametrize("piece", [".", "a.", '."', "\n", " ", "!a", "。", "Dr. "])
def test_long_texts_are_cheap(piece: str) -> None:
    began = time.process_time()
    sentences(piece * 50_000)
    paragraphs(piece * 50_000)
    assert time.process_time() - began < 1.5
