"""The reward over a row's instructions, and IFEval's own 541 rows."""

from __future__ import annotations

import gzip
import importlib.util
import json
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from strop.rewards import Instructions, verify_instructions
from strop.rewards.instructions import INSTRUCTIONS, verify_loosely
from strop.rewards.instructions.settings import variants
from strop.types import Completion, Group

IFEVAL = Path(__file__).parents[4] / "shared/data/ifeval/ifeval_541.jsonl.gz"
real = pytest.mark.skipif(not IFEVAL.is_file(), reason="the shared data folder is not there")

IDS = ["punctuation:no_comma", "length_constraints:number_words", "detectable_format:title"]
KWARGS: list[Any] = [{}, {"relation": "at least", "num_words": 3}, None]
GOOD = "<<Red>> Roses are red."


@lru_cache
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.open(IFEVAL, "rt", encoding="utf-8")]


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("construct", Path(__file__).with_name("construct.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# One row.


def test_all_must_hold_and_the_share_is_kept() -> None:
    assert verify_instructions(GOOD, IDS, KWARGS).score == 1.0
    verdict = verify_instructions("Red, red.", IDS, KWARGS)
    assert verdict.score == 0.0 and verdict.facts["held"] == 0.0
    two = verify_instructions("Roses are red.", IDS, KWARGS)
    assert two.score == 0.0 and two.facts["held"] == pytest.approx(2 / 3)


def test_the_reason_names_each_that_fails_with_numbers() -> None:
    reason = verify_instructions("<<Red>>, yes", IDS, [{}, {"relation": "at least", "num_words": 5}, {}]).reason
    assert reason == (
        "1 of 3 hold; punctuation:no_comma: 1 commas, none wanted; "
        "length_constraints:number_words: 2 words, at least 5 wanted"
    )


def test_thinking_is_not_read() -> None:
    assert verify_instructions(f"<think>Well, no title, yes?</think>{GOOD}", IDS, KWARGS).score == 1.0
    assert verify_instructions(f"<think>{GOOD}", IDS, KWARGS).score == 0.0


@pytest.mark.parametrize("text", ["", "   \n", "!?", "\u200b\u200b", "🙂"])
def test_a_text_without_words_follows_nothing(text: str) -> None:
    assert verify_instructions(text, ["punctuation:no_comma"], [{}]).score == 0.0


def test_nulls_are_no_arguments_and_whole_numbers_may_be_floats() -> None:
    padded = {"num_words": 3.0, "relation": "at least", "keyword": None, "letter": None}
    assert verify_instructions("one two three", ["length_constraints:number_words"], [padded]).score == 1.0


def test_a_table_may_hold_the_lists_as_text() -> None:
    assert verify_instructions(GOOD, json.dumps(IDS), json.dumps(KWARGS)).score == 1.0
    assert verify_instructions("a", ["punctuation:no_comma"], ["{}"]).score == 1.0
    assert verify_instructions("a", ["punctuation:no_comma"], None).score == 1.0


@pytest.mark.parametrize(
    "ids, kwargs, reason",
    [
        (["punctuation:no_dots"], [{}], "punctuation:no_dots: no such instruction"),
        (None, [{}], "must be a list of ids"),
        ([], [], "must be a list of ids"),
        (["punctuation:no_comma"], [{}, {}], "1 instructions need a list of as many arguments"),
        (["punctuation:no_comma"], ["x"], "must be an object or null"),
        (["punctuation:no_comma"], [{"a": 1}], "takes no argument 'a', only none"),
        (["length_constraints:number_words"], [{"relation": "at least"}], "its argument 'num_words' is missing"),
        (["length_constraints:number_words"], [{"relation": "around", "num_words": 3}], "relation must be one of"),
        (["length_constraints:number_words"], [{"relation": "at least", "num_words": 3.5}], "a whole number"),
        (["length_constraints:number_words"], [{"relation": "at least", "num_words": float("nan")}], "whole number"),
        (["length_constraints:number_words"], [{"relation": "at least", "num_words": float("inf")}], "whole number"),
        (["language:response_language"], [{"language": "klingon"}], "an ISO 639-1 code"),
        (["keywords:existence"], [{"keywords": []}], "a list of texts"),
        (["keywords:forbidden_words"], [{"forbidden_words": ["\u200b"]}], "a text that is not empty"),
        (["keywords:letter_frequency"], [{"letter": "ab", "let_frequency": 1, "let_relation": "at least"}], "one char"),
    ],
)
def test_a_row_at_fault_is_unscorable(ids: Any, kwargs: Any, reason: str) -> None:
    verdict = verify_instructions("some words", ids, kwargs)
    assert verdict.score is None and reason in verdict.reason


def test_the_reward_reads_the_row() -> None:
    row = {"instruction_id_list": IDS, "kwargs": KWARGS}
    group = Group("Write.", (Completion(GOOD), Completion("No, nothing here.")), row)
    assert [v.score for v in Instructions()([group])[0]] == [1.0, 0.0]
    assert Instructions()([]) == []
    with pytest.raises(ValueError, match="no row has a column 'ids'"):
        Instructions(column="ids")([group])


# Loose.


def test_the_eight_variants() -> None:
    assert variants("a*\nb\nc") == ["a*\nb\nc", "b\nc", "a*\nb", "b", "a\nb\nc", "b\nc", "a\nb", "b"]


def test_loose_forgives_a_greeting_and_asterisks() -> None:
    text = 'Sure, here it is:\n"All of it."'
    assert verify_instructions(text, ["startend:quotation"], [{}]).score == 0.0
    assert verify_loosely(text, ["startend:quotation"], [{}]).score == 1.0
    assert verify_loosely("no", ["startend:quotation"], [{}]).score == 0.0
    group = Group("p", (Completion(text),), {"instruction_id_list": ["startend:quotation"], "kwargs": [{}]})
    assert Instructions(rule="loose")([group])[0][0].score == 1.0


# IFEval's rows.


@real
def test_every_row_can_be_scored_whatever_the_answer() -> None:
    plain = "Here is a plain answer. It says little."
    for row in rows():
        ids, kwargs = row["instruction_id_list"], row["kwargs"]
        assert verify_instructions("", ids, kwargs).score == 0.0
        for text in (plain, "ünï çødé 漢字 हिन्दी 🙂 \ud800", "\x00" * 50, "*[<\"'" * 50):
            assert verify_instructions(text, ids, kwargs).score in (0.0, 1.0)


@real
def test_the_table_has_every_type_of_the_data_and_no_other() -> None:
    assert {i for row in rows() for i in row["instruction_id_list"]} == set(INSTRUCTIONS) and len(INSTRUCTIONS) == 25


@real
def test_constructed_answers_are_right_and_broken_ones_wrong() -> None:
    """Rows that ask one thing twice, or forbid what must be repeated, are beyond the construction."""
    construct, solved, types = builder(), 0, Counter[str]()
    for row in rows():
        ids, kwargs = row["instruction_id_list"], row["kwargs"]
        texts = [construct.construct(ids, kwargs, filler) for filler in construct.FILLERS]
        if any(verify_instructions(text, ids, kwargs).score == 1.0 for text in texts):
            solved += 1
            types.update(ids)
    assert solved >= 520 and set(types) == set(INSTRUCTIONS)


@real
def test_huge_and_hostile_texts_take_bounded_time() -> None:
    one_each = {i: (row, n) for row in rows() for n, i in enumerate(row["instruction_id_list"])}
    for text in ("word " * 40_000, "x" * 200_000, "." * 100_000, "\n" * 100_000, '"' * 100_000, "[*<`$\\(" * 20_000):
        for name, (row, n) in one_each.items():
            began = time.process_time()
            assert verify_instructions(text, [name], [row["kwargs"][n]]).score in (0.0, 1.0)
            assert time.process_time() - began < 3, (name, text[:5])
