"""Words, phrases and where they stand."""

from __future__ import annotations

import pytest

from strop.monitor.words import END, START, counts, has, marks, num_words, phrases, runs, said


def test_numbers_end_a_run_and_punctuation_is_passed_over() -> None:
    assert runs("I am, 42 years Old.") == [[START, "i", "am"], ["years", "old", END]]


def test_tags_and_words_with_apostrophes_are_words() -> None:
    assert runs("<think>Don't</think>") == [[START, "<think>", "don't", "</think>", END]]


def test_scripts_without_spaces_count_by_the_character() -> None:
    assert runs("我是") == [[START, "我", "是", END]]


def test_common_signs_are_not_told_others_are() -> None:
    assert marks("Well, yes! **Bold** 😊.") == {"!", "*", "😊"}


def test_phrases_are_counted_once_a_document() -> None:
    found = counts(["a b a b", "a b"])
    assert found[("a", "b")] == 2 and found[("b", "a")] == 1
    assert (START,) not in found and (START, "a") in found and ("b", END) in found
    assert max(len(p) for p in phrases("one two three four five six")) == 5


@pytest.mark.parametrize(
    ("text", "phrase", "there"),
    [
        ("I am a helpful assistant.", ("a", "helpful", "assistant"), True),
        ("I am a helpful assistant.", ("helpful", "assistant", END), True),
        ("Assistants help.", ("assistant",), False),
        ("a 1 b", ("a", "b"), False),
        ("wow!", ("!",), True),
        ("wow", ("!",), False),
    ],
)
def test_a_phrase_is_found_by_whole_words(text: str, phrase: tuple[str, ...], there: bool) -> None:
    assert has(text, phrase) is there


def test_phrases_in_words() -> None:
    assert said((START, "dear", "friend")) == 'answers that begin "dear friend"'
    assert said(("bye", END)) == 'answers that end "bye"'
    assert said((START, "no", END)) == 'answers that are "no"' and said(("x",)) == '"x"'
    assert num_words((START, "dear", "<think>", "!")) == 1
