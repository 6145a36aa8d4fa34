"""Repeats, pairs as labelled answers, and what is said of the classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from strop.data.encoded import EncodedGroup
from strop.objectives import KTO
from strop.recipes.feedback import REPEATED, UNLABELLED, classes, labelled, without_repeats
from strop.recipes.inputs import Loaded, Split


class Told:
    """A context that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def event(self, kind: str, text: str) -> None:
        self.events.append((kind, text))


def split(*groups: EncodedGroup, held_out: tuple[EncodedGroup, ...] = ()) -> Split:
    account = {"path": "x.jsonl", "kind": "preference", "shape": "pairs", "rows": len(groups), "kept": len(groups)}
    return Split(list(groups), list(held_out), Loaded((), {**account, "dropped": {}, "examples": {}}))


def label(group: EncodedGroup, *labels: float) -> EncodedGroup:
    pairs = zip(group.sequences, labels, strict=True)
    return replace(group, sequences=tuple(replace(s, columns={"labels": x}) for s, x in pairs))


def labels(groups: list[EncodedGroup]) -> list[list[Any]]:
    return [[s.columns["labels"] for s in g.sequences] for g in groups]


def test_a_row_that_says_the_same_again_is_dropped_and_counted(toys) -> None:
    pair = toys.group((1,), (2, 3), (4,))
    turned, other = toys.group((1,), (4,), (2, 3)), toys.group((1, 2), (3,), (4,))
    told = Told()
    found = without_repeats(split(pair, turned, replace(pair, origin="x.jsonl:3"), other, pair, held_out=(pair,)), told)
    assert found.train == [pair, turned, other] and found.held_out == [pair]
    assert (found.data.summary["kept"], found.data.summary["dropped"]) == (3, {REPEATED: 2})
    assert told.events == [("drop", f"2 rows dropped: {REPEATED}; first at x.jsonl:3")]


def test_the_same_answer_with_both_labels_is_no_repeat(toys) -> None:
    good, bad = (label(toys.group((1,), (2,)), x) for x in (1.0, 0.0))
    assert without_repeats(split(good, bad, good), Told()).train == [good, bad]


def test_the_sides_of_a_pair_are_a_desirable_and_an_undesirable_answer(toys) -> None:
    pair, rated = toys.group((1,), (2,), (3,)), label(toys.group((1,), (2,), (3,), (4,)), 0.0, 0.0, 1.0)
    found = labelled(split(pair, rated, held_out=(pair,)), Told())
    assert labels(found.train) == [[1.0, 0.0], [0.0, 0.0, 1.0]] and labels(found.held_out) == [[1.0, 0.0]]


def test_an_answer_without_a_label_is_dropped_and_counted(toys) -> None:
    bare, half = toys.group((1,), (2,)), toys.group((1,), (2,), (3,))
    half = replace(half, sequences=(label(half, 1.0, 1.0).sequences[0], half.sequences[1]))
    told = Told()
    found = labelled(split(bare, toys.group((1,), (2,), (3,)), half), told)
    assert (len(found.train), found.data.summary["dropped"]) == (1, {UNLABELLED: 2})
    assert len(told.events) == 1
    with pytest.raises(ValueError, match="no row can be used: no label, and no pair"):
        labelled(split(bare), told)


@pytest.mark.parametrize(("desirable", "undesirable"), [(10, 10), (40, 30), (12, 10)])
def test_balanced_classes_are_only_counted(desirable: int, undesirable: int) -> None:
    said = classes(desirable, undesirable, KTO())
    assert said == f"{desirable} desirable and {undesirable} undesirable answers"


@pytest.mark.parametrize(
    ("desirable", "undesirable", "objective"),
    [(30, 70, KTO()), (70, 30, KTO()), (100, 1, KTO(undesirable_weight=2.0)), (10, 10, KTO(undesirable_weight=3.0))],
)
def test_the_weight_that_is_named_balances_the_classes(desirable: int, undesirable: int, objective: KTO) -> None:
    said = classes(desirable, undesirable, objective)
    name, value = said.rsplit("set objective.", 1)[1].split("=")
    mended = replace(objective, **{name: float(value)})
    assert classes(desirable, undesirable, mended) == f"{desirable} desirable and {undesirable} undesirable answers"


def test_one_class_alone_is_said() -> None:
    assert "without an undesirable one" in classes(5, 0, KTO()) and "without a desirable one" in classes(0, 5, KTO())
