"""The reward: the generator's own score, less what anything gets."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from strop.data.formats import load_dataset
from strop.rewards import ReasoningGym
from strop.rewards.gym import resolve_gym
from strop.rewards.gym.settings import answer_of
from strop.types import Completion, Group, Verdict

pytestmark = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs reasoning-gym")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gym")


def group(folder: Path, name: str, *texts: str) -> Group:
    found = load_dataset(resolve_gym(f"gym:{name}?size=3&seed=7", folder, 0)).groups[0]
    answer = found.row.get("answer", "")
    texts = tuple(text.replace("OWN", answer) for text in texts)
    return Group(found.prompt, tuple(map(Completion, texts)), found.row)


def verdicts(reward: ReasoningGym, one: Group) -> list[Verdict]:
    return reward([one])[0]


@pytest.mark.parametrize(
    "text, where, answer",
    [
        ("so <answer> 4\n2 </answer>.", "auto", "4\n2"),
        (r"so \boxed{42}", "auto", "42"),
        (r"<answer>\boxed{42}</answer>", "auto", "42"),
        ("<answer>1</answer> or <answer>2</answer>", "auto", "2"),
        ("<think>7</think> 42 ", "auto", "42"),
        ("<answer>42", "auto", None),
        ("42", "answer_tag", None),
        ("42", "box", None),
        ("<answer>42</answer>", "box", None),
        (" a <answer>42</answer>", "whole", "a <answer>42</answer>"),
        ("<think>never", "auto", ""),
    ],
)
def test_where_the_answer_stands(text: str, where: Any, answer: str | None) -> None:
    assert answer_of(text, where) == answer


def test_right_and_wrong(folder: Path) -> None:
    one = group(folder, "leg_counting", "<answer>OWN</answer>", "OWN", "<answer>-1</answer>", "", "<answer>OWN")
    found = verdicts(ReasoningGym(), one)
    assert [v.score for v in found] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert found[0].facts == {"raw": 1.0} and found[3].reason == "no answer"


def test_an_answer_among_others_is_no_full_score(folder: Path) -> None:
    one = group(folder, "leg_counting", "OWN or 1 or 2 or 3")
    assert verdicts(ReasoningGym(), one)[0].score == 0.0
    partial = verdicts(ReasoningGym(credit="partial"), one)[0].score
    assert partial is not None and 0 < partial < 1


def test_what_anything_gets_is_no_credit(folder: Path) -> None:
    """The scorer of countdown gives 0.01 to any text and 0.05 to any sum."""
    one = group(folder, "countdown", "OWN", "hello", "1+1")
    found = verdicts(ReasoningGym(credit="partial"), one)
    assert [v.score for v in found] == [1.0, 0.0, pytest.approx(0.04 / 0.99)]
    assert found[2].facts["raw"] == 0.05


def test_metadata_keep_their_types(folder: Path) -> None:
    """The scorer of rearc compares with tuples."""
    assert [v.score for v in verdicts(ReasoningGym(), group(folder, "rearc", "OWN", "1 2"))] == [1.0, 0.0]


def test_an_entry_whose_answer_is_wrong_is_unscorable(folder: Path) -> None:
    one = group(folder, "leg_counting", "5")
    entry = {**one.row["gym"]["entry"], "answer": "six", "metadata": {}}
    broken = Group(one.prompt, one.completions, {"gym": {"name": "polynomial_equations", "config": {}, "entry": entry}})
    assert verdicts(ReasoningGym(), broken)[0].score is None


def test_a_hanging_answer_scores_nothing(folder: Path) -> None:
    one = group(folder, "simple_integration", "1e999999999", "OWN")
    found = verdicts(ReasoningGym(timeout_s=3.0), one)
    assert found[0].score == 0.0 and "took more than 3 s" in found[0].reason and found[1].score == 1.0


def test_rows_of_the_library_itself(folder: Path) -> None:
    entry = group(folder, "leg_counting", "").row["gym"]["entry"]
    row = {"question": entry["question"], "answer": entry["answer"], "metadata": entry["metadata"]}
    one = Group("", (Completion(entry["answer"]), Completion("-1")), row)
    assert [v.score for v in verdicts(ReasoningGym(), one)] == [1.0, 0.0]


def test_a_row_without_an_entry_is_unscorable() -> None:
    found = verdicts(ReasoningGym(), Group("p", (Completion("1"),), {"answer": "1"}))
    assert found[0].score is None and "make rows with data gym:NAME" in found[0].reason
