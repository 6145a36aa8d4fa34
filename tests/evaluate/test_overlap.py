"""Judged prompts in training rows, against a search by hand and a set operation by brute force."""

from __future__ import annotations

import random

import pytest

from strop.evaluate.overlap import WORDS, Judged, Overlap, words_of
from strop.types import Completion, Group, Message

LONG = "A farmer has seventeen sheep and buys nine more at the market before he sells eleven of them to a friend."


def row(prompt: str, answer: str = "", origin: str = "train.jsonl:1") -> Group:
    return Group(prompt, (Completion(answer),), origin=origin)


def test_the_same_prompt_is_found_whatever_its_case_and_punctuation() -> None:
    judged = Judged([Group("What is 2 + 3?", origin="test:1"), Group("What is 4 + 4?", origin="test:2")])
    found = judged.overlap([row("what is  2 + 3"), row("What is 2 + 30?")])
    assert (found.prompts, found.rows, found.same, found.shared) == (2, 2, 1, 1)
    assert (found.examples[0].judged, found.examples[0].trained) == ("test:1", "train.jsonl:1")


def test_a_run_of_words_is_found_in_prompts_and_in_answers_of_any_turn() -> None:
    judged = Judged([Group(LONG, origin="test:1")])
    part = " ".join(LONG.split()[2 : 2 + WORDS])
    for trained in (
        row(f"Solve: {part} How many?"),
        row("Write a riddle.", f"Here: {part.upper()}!"),
        Group((Message("user", "hi"), Message("assistant", part), Message("user", "more"))),
    ):
        found = judged.overlap([trained])
        assert (found.same, found.shared) == (0, 1) and found.examples[0].words == " ".join(words_of(part))
    shorter = " ".join(LONG.split()[2 : 1 + WORDS])
    assert judged.overlap([row(f"Solve: {shorter}. How many?")]).shared == 0


def test_short_prompts_inside_longer_texts_are_no_overlap() -> None:
    assert Judged([Group("What is 2 + 3?")]).overlap([row("Tell me, what is 2 + 3? And then?")]).shared == 0


def test_instructions_that_come_with_every_prompt_tell_nothing() -> None:
    told = "Think step by step and put your final answer in a box at the very end of it please. "
    prompts = [Group(f"{told}{LONG}"), *(Group(f"{told}Problem {i} asks what {i} times {i} is.") for i in range(9))]
    trained = [row(f"{told}Something else of no interest here."), row(LONG)]
    found = Judged(prompts).overlap(trained)
    assert (found.prompts, found.shared, found.same) == (10, 1, 0)


def test_a_problem_trained_on_with_many_answers_is_found() -> None:
    assert Judged([Group(LONG)]).overlap([row(LONG, f"answer {i}") for i in range(40)]) == pytest.approx(
        Overlap(1, 40, 1, 1, Judged([Group(LONG)]).overlap([row(LONG)]).examples)
    )


def test_it_finds_what_comparing_all_runs_finds() -> None:
    rng = random.Random(0)

    def text(length: int) -> str:
        return " ".join(rng.choice("ab") for _ in range(length))  # so few words that runs recur by chance

    for _ in range(30):
        prompts = [Group(text(rng.randint(5, 25))) for _ in range(4)]
        rows = [row(text(60), text(40)) for _ in range(60)]
        by_hand = 0
        for group in prompts:
            mine = group.prompt_text.split()
            runs = {tuple(mine[i : i + WORDS]) for i in range(len(mine) - WORDS + 1)}
            theirs = [t.split() for r in rows for t in (r.prompt_text, r.completions[0].text)]
            by_hand += any(tuple(t[i : i + WORDS]) in runs for t in theirs for i in range(len(t) - WORDS + 1))
        assert Judged(prompts).overlap(rows).shared == by_hand


def test_nothing_overlaps_with_nothing() -> None:
    assert Judged([Group("?")]).overlap([row("!")]).same == 0  # no words in either
    assert Judged([Group(LONG)]).overlap([]) == Overlap(1, 0, 0, 0)
