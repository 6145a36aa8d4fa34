"""Filters on hand-made groups: which answers go, which prompts, and what is counted."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from strop.rollout.choose import Kept
from strop.rollout.filters import (
    Correct,
    Dedup,
    DedupAnswers,
    Difficulty,
    Finished,
    Length,
    LengthMatch,
    NearDup,
    Quantile,
    Repetition,
    Threshold,
    Without,
    near_duplicates,
    repeated_share,
    shingles,
)
from strop.types import Completion, Group, Message


def scored(*scores: float | None) -> Group:
    return Group("q", tuple(Completion(f"a{i}", score=s, rewards={"r": s}) for i, s in enumerate(scores)))


def said(prompt: str, *answers: str) -> Group:
    return Group(prompt, tuple(map(Completion, answers)))


def texts(found: Kept) -> list[list[str]]:
    return [[c.text for c in g.completions] for g in found[0]]


def test_a_threshold_is_strict_and_what_cannot_be_scored_goes() -> None:
    found = Threshold(above=0.5)([scored(0.5, 0.6, None), scored(0.1)])
    assert texts(found) == [["a1"]]
    assert found[1] == {
        "answers that score 0.5 or less": 2,
        "answers that could not be scored": 1,
        "prompts with no answer left": 1,
    }


def test_correct_keeps_what_a_verifier_calls_right() -> None:
    found = Correct(reward="r")([scored(1.0, 0.0, 1.0, 0.99)])
    assert texts(found) == [["a0", "a2"]] and found[1] == {"answers that are wrong": 2}


def test_a_quantile_is_of_all_answers_and_keeps_ties() -> None:
    groups = [scored(0.0, 1.0, 2.0, 3.0), scored(4.0, 5.0, 6.0, 7.0, 8.0, 9.0)]
    assert texts(Quantile(q=0.9)(groups)) == [["a5"]]
    assert texts(Quantile(q=0.0)(groups)) == [["a0", "a1", "a2", "a3"], ["a0", "a1", "a2", "a3", "a4", "a5"]]
    assert texts(Quantile(q=0.5)([scored(1.0, 1.0, 0.0), scored(1.0)])) == [["a0", "a1"], ["a0"]]
    assert Quantile(q=0.5)([scored(None)])[1]["prompts with no answer left"] == 1


def test_difficulty_is_the_mean_score_with_its_bounds_included() -> None:
    groups = [scored(0.0, 0.0), scored(1.0, 0.0), scored(1.0, 1.0), scored(1.0, None), scored(None)]
    found = Difficulty(low=0.5, high=0.75)(groups)
    assert found[0] == [groups[1]]
    assert found[1] == {
        "prompts whose mean score is below 0.5": 1,
        "prompts whose mean score is above 0.75": 2,
        "prompts without a scored answer": 1,
    }


def test_cut_answers_go_and_given_ones_stay() -> None:
    cut, ended, given = Completion("x", finish="length"), Completion("y", finish="stop"), Completion("z")
    found = Finished()([Group("q", (cut, ended, given)), Group("p", (cut,))])
    assert texts(found) == [["y", "z"]]
    assert found[1] == {"answers cut by the length limit": 2, "prompts with no answer left": 1}


def test_lengths_in_words_characters_and_tokens() -> None:
    groups = [said("q", "", "one", "one two", "one two three four")]
    assert texts(Length(least=1, most=2)(groups)) == [["one", "one two"]]
    assert texts(Length(unit="characters", least=0, most=3)(groups)) == [["", "one"]]
    tokens = Group("q", (Completion("x", token_ids=(1, 2)), Completion("y", token_ids=(1,) * 9), Completion("z")))
    found = Length(unit="tokens", most=5)([tokens])
    assert texts(found) == [["x"]]
    assert found[1] == {"answers of more than 5 tokens": 1, "answers whose number of tokens is not known": 1}


def test_pairs_of_unlike_length_go() -> None:
    groups = [said("q", "a b c", "a b"), said("p", "a b c d", "a b"), said("r", "a", ""), said("s", "", "")]
    found = LengthMatch(max_ratio=1.5)(groups)
    assert found[0] == [groups[0], groups[3]]
    assert found[1] == {"prompts whose answers' lengths differ by more than 1.5 times": 2}


def test_the_share_that_repeats() -> None:
    assert repeated_share("a b c d e f g h") == 0.0
    assert repeated_share("a b c") == 0.0 == repeated_share("")
    assert repeated_share("a " * 10) == pytest.approx(6 / 7)  # 7 runs, one of them new
    assert repeated_share("a b a b", 2) == pytest.approx(1 / 3)
    found = Repetition(max_share=0.2)([said("q", "no no no no no no no", "one two three four five six")])
    assert texts(found) == [["one two three four five six"]]
    assert found[1] == {"answers of which more than 0.2 repeats itself": 1}


def test_a_pattern_that_must_not_be_there() -> None:
    found = Without(pattern="(?i)as an ai")([said("q", "As an AI I cannot.", "Yes.")])
    assert texts(found) == [["Yes."]] and found[1] == {"answers with (?i)as an ai": 1}
    with pytest.raises(ValueError, match="without.pattern: '\\(' is no regular expression"):
        Without(pattern="(")


def test_answers_that_repeat_within_their_prompt_go_also_across_rows() -> None:
    groups = [said("q", "Yes.", "yes. ", "No."), said("p", "Yes."), said("Q ", "no.", "Maybe."), said("q", "YES.")]
    found = DedupAnswers()(groups)
    assert texts(found) == [["Yes.", "No."], ["Yes."], ["Maybe."]]
    assert found[1] == {"answers that repeat an earlier one to their prompt": 3, "prompts with no answer left": 1}


def test_rows_that_stood_before_go() -> None:
    groups = [said("q", "a", "b"), said("q", "a", "c"), said("Q", "A", "b"), said("p", "a", "b")]
    assert Dedup()(groups) == ([groups[0], groups[1], groups[3]], {"rows whose text stood before": 1})
    assert Dedup(of="prompt")(groups) == ([groups[0], groups[3]], {"rows whose prompt stood before": 2})
    assert Dedup(of="answers")(groups)[0] == [groups[0], groups[1]]
    turns = (Message("user", "q"), Message("assistant", "a"))
    assert len(Dedup(of="prompt")([Group(turns), Group(turns), Group(turns[:1])])[0]) == 2


def test_shingles_are_runs_of_words_and_a_short_text_is_one() -> None:
    assert shingles("a b c d", 3) == {"a b c", "b c d"}
    assert shingles("a b", 3) == {"a b"} and shingles("", 3) == {""}


def slow(sets: list[frozenset[str]], threshold: float) -> list[bool]:
    """Every pair compared."""
    found: list[bool] = []
    for number, items in enumerate(sets):
        rest = [sets[i] for i in range(number) if not found[i]]
        found.append(any(len(items & other) / len(items | other) >= threshold for other in rest))
    return found


def test_near_duplicates_are_exactly_those_of_all_comparisons() -> None:
    random = np.random.default_rng(0)
    for threshold in (0.2, 0.5, 0.8, 1.0):
        sets = []
        for _ in range(120):
            size = int(random.integers(1, 12))
            sets.append(frozenset(str(i) for i in random.integers(0, 14, size)))
        found = near_duplicates(sets, threshold)
        assert found == slow(sets, threshold) and any(found) and not all(found)


def test_near_duplicate_rows_go() -> None:
    text = "the quick brown fox jumps over the lazy dog near the old river bank today"
    groups = [said("q", text), said("q", text + " again"), said("q", "something else entirely is said here")]
    found = NearDup()(groups)
    assert found == ([groups[0], groups[2]], {"rows whose text is nearly that of an earlier one": 1})
    assert len(NearDup(threshold=1.0)(groups)[0]) == 3
    assert len(NearDup(of="prompt")(groups)[0]) == 1
    assert NearDup()([]) == ([], {})


def test_thousands_of_rows_are_compared_quickly() -> None:
    random = np.random.default_rng(0)
    words = [f"w{i}" for i in range(2000)]
    groups = [said("q", " ".join(random.choice(words, 60))) for _ in range(2000)]
    began = time.process_time()
    assert len(NearDup(of="answers")([*groups, *groups[:50]])[0]) == 2000
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Quantile(q=1.5), "quantile.q must be in"),
        (lambda: Difficulty(low=0.9, high=0.1), "low 0.9 must not be above high 0.1"),
        (lambda: Length(least=3, most=2), "least 3 must be at least 0 and not above most 2"),
        (lambda: LengthMatch(max_ratio=0.5), "max_ratio must be at least 1"),
        (lambda: Repetition(max_share=-1), "max_share must be in"),
        (lambda: Repetition(num_words=0), "num_words must be at least 1"),
        (lambda: NearDup(threshold=0), "threshold must be above 0"),
    ],
)
def test_settings_say_what_they_cannot_be(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()
