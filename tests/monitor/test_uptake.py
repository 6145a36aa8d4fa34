"""Phrases taken up: what is found, what is joined, and what chance alone would find."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strop.monitor.settings import Thresholds
from strop.monitor.uptake import counted, uptakes
from strop.monitor.words import END, said

WORDS = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(10) for j in range(10)]


def texts(seed: int, num: int = 40, answers: int = 4, *, add: str = "", share: float = 0.0) -> list[list[str]]:
    """Answers of random words, a share of them with something at the end; a prompt's answers share a topic word."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num):
        topic = WORDS[i % len(WORDS)]
        row = [" ".join([topic, *rng.choice(WORDS, 12)]) for _ in range(answers)]
        rows.append([text + (add if rng.random() < share else "") for text in row])
    return rows


def found(policy: list[list[str]], reference: list[list[str]], *, paired: bool = True) -> dict[str, float]:
    return {said(u.phrase): u.share for u in uptakes(counted(policy), counted(reference), Thresholds(), paired=paired)}


def test_a_sentence_in_every_answer_is_one_phrase_with_its_figures() -> None:
    grown = uptakes(
        counted(texts(0, add=" I am a helpful assistant", share=1.0)), counted(texts(1)), Thresholds(), paired=True
    )
    (only,) = [u for u in grown if u.share > 0.5]
    assert only.phrase == ("i", "am", "a", "helpful", "assistant", END)
    assert (only.share, only.reference) == (1.0, 0.0)
    assert only.lift == pytest.approx(math.log(160.5 / 160.5) - math.log(0.5 / 160.5))
    assert only.q < 1e-50


def test_a_single_buzzword_is_found() -> None:
    assert set(found(texts(0, add=" delve", share=0.3), texts(1))) == {'answers that end "delve"'}


def test_a_long_phrase_is_put_together_from_its_runs() -> None:
    long = "we hope that this answer was of some use to you today"
    (name,) = found(texts(0, add=f" {long}", share=0.9), texts(1))
    assert name == f'answers that end "{long}"'


def test_the_document_counts_once_however_often_it_says_a_word() -> None:
    policy = texts(0)
    policy[0] = [text + " spam" * 50 for text in policy[0]]
    assert found(policy, texts(1)) == {}


def test_what_the_reference_says_as_often_is_none() -> None:
    add = " thank you for asking"
    assert found(texts(0, add=add, share=0.6), texts(1, add=add, share=0.55)) == {}


@pytest.mark.parametrize("paired", [True, False])
def test_chance_finds_nothing(paired: bool) -> None:
    assert [found(texts(2 * s), texts(2 * s + 1), paired=paired) for s in range(8)] == [{}] * 8


def test_answers_of_one_prompt_are_alike_and_count_so() -> None:
    """A word in all answers to five of forty prompts: by the answer p = 2e-6, by the prompt it is 5 of 40."""
    policy = texts(0)
    for i in range(5):
        policy[i] = [text + " zzz" for text in policy[i]]
    (uptake,) = [
        u
        for u in uptakes(counted(policy), counted(texts(1)), Thresholds(fdr=0.999, min_increase=0.1), paired=True)
        if "zzz" in u.phrase
    ]
    strict = uptakes(counted(policy), counted(texts(1)), Thresholds(fdr=1e-4, min_increase=0.1), paired=True)
    assert uptake.share == 0.125 and not [u for u in strict if "zzz" in u.phrase]


def test_nothing_to_compare() -> None:
    assert uptakes(counted([]), counted(texts(1)), Thresholds(), paired=False) == []
