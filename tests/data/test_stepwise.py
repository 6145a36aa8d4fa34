"""Step-labelled rows of every habit: which steps, which labels, and what is dropped with which reason."""

from __future__ import annotations

import copy
import gzip
import json
from typing import Any

import pytest

from strop.data.formats import load_dataset
from strop.types import Completion, Group, Message, group_from_json, group_to_json


@pytest.fixture
def load(tmp_path):
    def load(*rows: dict[str, Any], **options: Any):
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_dataset(str(path), **options)

    return load


def solution(*steps_and_labels: tuple[str, bool | float | None]) -> Completion:
    steps, labels = zip(*steps_and_labels, strict=True)
    return Completion((Message("assistant", "\n".join(steps)),), steps=steps, step_labels=labels)


# TRL's columns.


def test_labels_may_be_soft(load) -> None:
    (group,) = load(
        {"prompt": "p", "completions": ["x", "y", "z", "v", "w"], "labels": [1, 0.25, None, 0.0, "true"]}
    ).groups
    assert group.completions[0].step_labels == (True, 0.25, None, False, True)
    assert [type(label) for label in group.completions[0].step_labels] == [bool, float, type(None), bool, bool]
    assert group_from_json(json.loads(json.dumps(group_to_json(group)))) == group


@pytest.mark.parametrize("label", [1.5, -0.25, 100.5])
def test_a_label_outside_0_and_1_is_no_label(load, label: float) -> None:
    with pytest.raises(ValueError, match=f"label out of range: {label} is not in"):
        load({"prompt": "p", "completions": ["x"], "labels": [label]})


# PRM800K.


def place(*candidates: tuple[str, int | None], chosen: int | None = 0, human: Any = None) -> dict[str, Any]:
    completions = [{"text": said, "rating": rating, "flagged": None} for said, rating in candidates]
    return {"completions": completions, "human_completion": human, "chosen_completion": chosen}


def line(*places: dict[str, Any], finish: str = "solution", whole: list[str] | None = None) -> dict[str, Any]:
    question = {"problem": "What is 2+2?", "ground_truth_answer": "4", "pre_generated_steps": whole}
    return {"labeler": "l", "question": question, "label": {"steps": list(places), "finish_reason": finish}}


def test_prm800k_stops_at_the_first_error(load) -> None:
    """Phase 2: the last labelled step is wrong and nothing was chosen; its alternatives are further solutions."""
    row = line(
        place(("a", 1)),
        place(("b", 0)),
        place(("c", -1), ("d", 1), ("e", None), ("f", -1), chosen=None),
        finish="found_error",
        whole=["a", "b", "c", "later", "answer"],
    )
    data = load(row)
    assert (data.kind, data.shape, data.num_dropped) == ("stepwise", "PRM800K", 0)
    (group,) = data.groups
    assert group.prompt == (Message("user", "What is 2+2?"),)
    assert group.row["question"]["ground_truth_answer"] == "4" and "label" not in group.row
    assert group.completions == (
        solution(("a", True), ("b", True), ("c", False), ("later", None), ("answer", None)),
        solution(("a", None), ("b", None), ("d", True)),
        solution(("a", None), ("b", None), ("f", False)),
    )


def test_prm800k_goes_on_from_the_chosen_candidate_or_the_one_a_person_wrote(load) -> None:
    """Phase 1."""
    row = line(
        place(("a", -1), ("b", 1), chosen=1),
        place(("c", -1), ("d", -1), chosen=None, human={"text": "h", "rating": None}),
        place(("e", 1)),
        whole=None,
    )
    (group,) = load(row).groups
    assert group.completions == (
        solution(("b", True), ("h", True), ("e", True)),
        solution(("a", False)),
        solution(("b", None), ("c", False)),
        solution(("b", None), ("d", False)),
    )
    as_text = copy.deepcopy(row)
    as_text["label"]["steps"][1]["human_completion"] = "h"
    assert load(as_text).groups == load(row).groups


def test_prm800k_labels_nothing_behind_an_error(load) -> None:
    (group,) = load(line(place(("a", -1)), place(("b", 1), ("c", -1)))).groups
    assert group.completions == (solution(("a", False)),)


def test_prm800k_neutral_is_right_unless_the_strict_kind_is_asked_for(load) -> None:
    row = line(place(("a", 0)), place(("b", 1), ("c", 0)))
    lenient, strict = load(row), load(row, kind="stepwise_strict")
    assert [c.step_labels for c in lenient.groups[0].completions] == [(True, True), (None, True)]
    # An error ends the annotation, so nothing behind it is labelled.
    assert [c.step_labels for c in strict.groups[0].completions] == [(False,)]
    assert strict.shape == "PRM800K, neutral is wrong" and load(row, kind="stepwise").groups == lenient.groups


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (line(place(("a", 1)), finish="bad_problem"), "bad problem"),
        (line(place(("a", None))), "null label"),
        (line(), "empty steps"),
        (line(place(("a", 1), chosen=3)), "no such step"),
        (line(place(chosen=None)), "no such step"),
    ],
)
def test_prm800k_rows_that_say_nothing_are_dropped(load, row: dict[str, Any], reason: str) -> None:
    data = load(line(place(("a", 1))), row)
    assert data.dropped == {reason: 1} and len(data.groups) == 1


def test_a_question_with_another_label_is_no_prm800k(load) -> None:
    assert load({"question": "u", "label": "easy"}).kind == "prompt_only"


# Math-Shepherd.

SOLVED = "How many? Is it 5?  Step 1: 2+2 = 4. ки\nStep 2: 4-1 + 0 = 3. ки\nStep 3: The answer is: 3 ки"


def test_math_shepherd_reads_signs_where_the_tags_stand(load) -> None:
    judged = SOLVED.replace("ки", "+", 1).replace("ки", "-")
    data = load({"input": SOLVED, "label": judged, "task": "GSM8K"})
    assert (data.kind, data.shape) == ("stepwise", "Math-Shepherd")
    (group,) = data.groups
    assert group.prompt == (Message("user", "How many? Is it 5?"),) and group.row == {"task": "GSM8K"}
    steps = ("Step 1: 2+2 = 4.", True), ("Step 2: 4-1 + 0 = 3.", False), ("Step 3: The answer is: 3", False)
    assert group.completions == (solution(*steps),)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"input": SOLVED, "label": SOLVED}, "label does not follow input"),
        ({"input": SOLVED, "label": SOLVED.replace("ки", "+").replace("4-1", "4-2")}, "label does not follow input"),
        ({"input": SOLVED, "label": SOLVED.replace("ки", "+", 2)}, "label does not follow input"),
        ({"input": "no tag", "label": "no tag"}, "no step tag"),
        ({"input": "Just this. ки", "label": "Just this. +"}, "no first step"),
    ],
)
def test_math_shepherd_rows_that_do_not_match_are_dropped(load, row: dict[str, str], reason: str) -> None:
    good = {"input": SOLVED, "label": SOLVED.replace("ки", "+")}
    data = load(good, good, row)
    assert data.dropped == {reason: 1} and len(data.groups) == 2


def test_other_data_with_input_and_label_is_not_taken_for_math_shepherd(load) -> None:
    with pytest.raises(ValueError, match="no known kind of row"):
        load({"input": "a text", "label": "positive"})


# PRMBench.


def test_prmbench_columns_are_known(load) -> None:
    row = {"question": "u", "original_process": ["a"], "modified_process": ["a", "b", "c"], "error_steps": [2, 3]}
    data = load(row)
    assert (data.kind, data.shape) == ("stepwise", "PRMBench")
    assert data.groups[0].completions == (solution(("a", True), ("b", False), ("c", False)),)
    assert data.groups[0].prompt == (Message("user", "u"),)


def test_real_prmbench(shared) -> None:
    data = load_dataset(str(shared / "prmbench"))
    assert (data.shape, data.num_rows) == ("PRMBench", 394) and data.num_dropped < 20
    labels = [label for g in data.groups for c in g.completions for label in c.step_labels]
    with gzip.open(next((shared / "prmbench").glob("*.jsonl.gz")), "rt") as file:
        rows = [json.loads(line) for line in file]
    assert all(isinstance(label, bool) for label in labels) and len(labels) > 5000
    for group in data.groups[:50]:
        assert isinstance(group, Group)
        row = rows[int(group.origin.rsplit(":", 1)[1]) - 1]
        wrong = [k for k, label in enumerate(group.completions[0].step_labels, start=1) if not label]
        assert wrong == sorted(row["error_steps"]) and list(group.completions[0].steps) == row["modified_process"]
