"""Exact text and multiple choice: accepts, near misses, hostile texts, real targets."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from strop.rewards import Choice, Exact, after_think, verify_choice, verify_exact
from strop.types import Completion, Group, Message

SHARED = Path(__file__).parents[2] / "../shared"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("no tags", "no tags"),
        ("<think>a</think> b", " b"),
        ("a</think>b", "b"),  # the template opened it
        ("<think>a</think>b</think>c", "c"),
        ("<think>a", ""),
        ("a</think>b<think>c", ""),
        ("", ""),
    ],
)
def test_after_think(text: str, rest: str) -> None:
    assert after_think(text) == rest


EXACT = [
    # gold, text, extract, score
    ("Yes", "yes", None, 1),
    ("Yes", "  Yes\n", None, 1),
    ("] )", "]  )", None, 1),
    ("a b", "a\n\tb", None, 1),
    (["yes", "yep"], "Yep", None, 1),
    (7, "7", None, 1),
    (True, "true", None, 1),
    ("Yes", "<think>No</think>Yes", None, 1),
    ("straße", "STRASSE", None, 1),
    ("Yes", "Yes.", None, 0),
    ("Yes", "Yes and no", None, 0),
    ("] )", "])", None, 0),
    ("Yes", "", None, 0),
    ("Yes", "<think>Yes", None, 0),
    (["yes", "yep"], "yes yep", None, 0),
    ("Yes", "It is <answer> yes </answer> then", "answer_tag", 1),
    ("Yes", "<answer>No</answer> <answer>Yes</answer>", "answer_tag", 1),
    ("Yes", "<answer>Yes</answer> <answer>No</answer>", "answer_tag", 0),
    ("Yes", "<answer>Yes</answer> <answer>No", "answer_tag", 0),
    ("Yes", "<answer>Yes", "answer_tag", 0),
    ("Yes", "Yes", "answer_tag", 0),
    ("Yes", "<think><answer>Yes</answer>", "answer_tag", 0),
    ("Yes", "so: Yes", r"so: (\w+)", 1),
    ("Yes", "so: Yes so: No", r"so: (\w+)", 0),
    ("Yes", "so: No so: Yes", r"so: (\w+)", 1),
    ("yes", "no YES", r"(?i)yes|no", 1),
    ("Yes", "no such thing", r"so: (\w+)", 0),
    ("Yes", "so: ", r"so: (\w+)?", 0),
    ("", "", None, None),
    ("  ", "x", None, None),
    (None, "None", None, None),
    ([], "x", None, None),
    ([None], "None", None, None),
    ({"a": 1}, "x", None, None),
]


@pytest.mark.parametrize(("gold", "text", "extract", "score"), EXACT)
def test_exact(gold: object, text: str, extract: str | None, score: float | None) -> None:
    verdict = verify_exact(text, gold, extract_by=extract)
    assert verdict.score == score, verdict
    assert verdict.reason


def test_exact_can_tell_case_apart() -> None:
    assert verify_exact("yes", "Yes", casefold=False).score == 0.0
    assert verify_exact("Yes ", "Yes", casefold=False).score == 1.0


def test_a_bad_pattern_is_refused_with_its_position() -> None:
    with pytest.raises(ValueError, match=r"exact\.extract: '\(a' .* position 0"):
        Exact(extract="(a")


def test_exact_reads_the_last_assistant_turn() -> None:
    turns = (Message("assistant", "No"), Message("user", "Sure?"), Message("assistant", "Yes"))
    assert Exact()([Group("p", (Completion(turns),), {"answer": "Yes"})])[0][0].score == 1.0


CITIES = ["London", "Paris", "Vitamin C"]

CHOICE = [
    # gold, text, choices, score
    ("B", "B", None, 1),
    ("B", "b", None, 1),
    ("B", "B.", None, 1),
    ("B", "(B)", None, 1),
    ("B", "(b) Paris", None, 1),
    ("B", "B) Paris", None, 1),
    ("B", "B: Paris", None, 1),
    ("B", "B. A city in France", None, 1),
    ("B", r"\boxed{B}", None, 1),
    ("B", r"\boxed{\text{(B)}}", None, 1),
    ("B", r"$\boxed{\textbf{(B) } \frac{1}{2}}$", None, 1),
    ("B", "<answer>B</answer>", None, 1),
    ("B", "<answer>\n(B) Paris\n</answer>", None, 1),
    ("B", "The answer is B.", None, 1),
    ("B", "The answer is (B). A is wrong.", None, 1),
    ("B", "The correct answer is option B", None, 1),
    ("B", "**Answer: B**", None, 1),
    ("B", "Answer:\nB", None, 1),
    ("B", "It is not A, so it must be (B)", None, 1),
    ("B", "A: London\nB: Paris\nThe answer is B", None, 1),
    ("B", "Paris is the capital.\n\nB", None, 1),
    ("B", "<think>The answer is A</think>The answer is B", None, 1),
    ("B", "The answer is A. No, the answer is B.", None, 1),
    ("(B)", "B", None, 1),
    ("B.", "B", None, 1),
    ("Z", "Z", None, 1),
    (1, "B", CITIES, 1),
    ("1", "B", CITIES, 1),
    ("Paris", "B", CITIES, 1),
    ("B", "The answer is Paris.", CITIES, 1),
    ("B", r"\boxed{paris}", CITIES, 1),
    ("C", "(C) Vitamin C", CITIES, 1),
    ("B", "A", None, 0),
    ("B", "", None, 0),
    ("B", "Both", None, 0),
    ("B", "BB", None, 0),
    ("B", "Because", None, 0),
    ("B", "A or B", None, 0),
    ("B", "B or C", None, 0),
    ("B", "B, C", None, 0),
    ("B", "A/B", None, 0),
    ("B", "(A)(B)", None, 0),
    ("A", "(A)(B)", None, 0),
    ("A", "A) B)", None, 0),
    ("A", "A. B. C.", None, 0),
    ("B", "(A) or (B)", None, 0),
    ("B", "It is (A), (B)", None, 0),
    ("B", "The answer is A or B.", None, 0),
    ("B", "The answer is A and B", None, 0),
    ("B", "The answer is B) or C)", None, 0),
    ("B", "The answer is not B", None, 0),
    ("B", "It is not (B)", None, 0),
    ("B", "<answer>A B</answer>", None, 0),
    ("B", r"\boxed{A, B}", None, 0),
    ("B", r"\boxed{B} \boxed{A}", None, 0),
    ("B", "The answer is B. The answer is C.", None, 0),
    ("B", "<think>B", None, 0),
    ("B", "<answer>B", None, 0),
    ("B", "The answer is B</think>The answer is A", None, 0),
    ("B", "The answer is Paris, London", CITIES, 0),
    ("B", "D", CITIES, 0),
    (1, "C", CITIES, 0),
    ("D", "D", CITIES, None),
    (3, "D", CITIES, None),
    (-1, "C", CITIES, None),
    (1, "B", None, None),
    (True, "B", CITIES, None),
    (None, "B", None, None),
    ("", "B", None, None),
    ("Rome", "B", CITIES, None),
    ("Paris", "B", ["Paris", "Paris"], None),
    ("B", "B", [], None),
]


@pytest.mark.parametrize(("gold", "text", "choices", "score"), CHOICE)
def test_choice(gold: object, text: str, choices: list[str] | None, score: float | None) -> None:
    verdict = verify_choice(text, gold, choices=choices)
    assert verdict.score == score, verdict
    assert verdict.reason


def test_choice_is_the_same_for_every_letter_and_wording() -> None:
    wordings = ["%s", "(%s)", "%s.", "%s) word", r"\boxed{%s}", "<answer>%s</answer>", "The answer is %s.",
                "Answer: (%s)", "<think>A or B</think>%s", "I choose option (%s)", "First X.\n%s"]  # fmt: skip
    for gold in "ABCDEFGHIJ":
        for letter in "ABCDEFGHIJ":
            for wording in wordings:
                assert verify_choice(wording % letter, gold).score == float(letter == gold), (wording, letter)


HOSTILE = ["(" * 300_000, "(A)" * 100_000, "A or " * 100_000, "the answer is A " * 50_000, r"\boxed{A " * 50_000,
           "<answer>A" * 50_000, "\n" * 500_000 + "(", "option " * 100_000, " " * 1_000_000 + "A,"]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_wrong_and_cheap(text: str) -> None:
    start = time.perf_counter()
    assert verify_choice(text, "B").score == 0.0
    assert verify_exact(text, "B", extract_by="answer_tag").score == 0.0
    assert time.perf_counter() - start < 2.0


def test_choice_settings_take_options_from_the_row() -> None:
    group = Group("p", (Completion("(B)"), Completion("(C)")), {"label": 1, "options": ["x", "y"]})
    verdicts = Choice(column="label", choices="options")([group])
    assert [v.score for v in verdicts[0]] == [1.0, 0.0]
    with pytest.raises(ValueError, match="no row has a column 'opts'"):
        Choice(column="label", choices="opts")([group])


def test_bbh_targets() -> None:
    folder = SHARED / "data/bbh"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    files = sorted(folder.glob("*.json"))
    assert len(files) == 7
    for file in files:
        targets = [e["target"] for e in json.loads(file.read_text(encoding="utf-8"))["examples"]]
        for target, other in zip(targets, targets[1:], strict=False):
            text = f"<think>{other}</think>I say <answer>{target}</answer>"
            assert verify_exact(target, target).score == 1.0
            assert verify_exact(text, target, extract_by="answer_tag").score == 1.0
            assert verify_exact(text, other, extract_by="answer_tag").score == float(target == other)


def test_bbh_yes_no_as_a_choice() -> None:
    file = SHARED / "data/bbh/navigate.json"
    if not file.exists():
        pytest.skip(f"{file} is absent")
    for example in json.loads(file.read_text(encoding="utf-8"))["examples"]:
        for letter, word in zip("AB", ("Yes", "No"), strict=True):
            right = float(word == example["target"])
            for text in (letter, f"The answer is {word}.", f"({letter}) {word}"):
                assert verify_choice(text, example["target"], choices=["Yes", "No"]).score == right
