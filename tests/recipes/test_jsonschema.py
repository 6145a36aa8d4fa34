from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from strop.recipes.config import load_recipe
from strop.recipes.jsonschema import json_schema
from strop.recipes.plain import to_plain
from strop.recipes.sources import BUILTIN
from strop.recipes.yaml12 import parse


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", sorted(BUILTIN.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_schema_takes_every_built_in_recipe(validator: Any, path: Any) -> None:
    validator.validate(parse(path.read_text("utf-8")).value)


def test_the_schema_takes_resolved_recipes_and_shorthands(validator: Any) -> None:
    validator.validate(to_plain(load_recipe("grpo", ["model=m", "data=q", "rewards=[number, m.py:f]"])))
    validator.validate({"kind": "preference", "data": ["a", "b"], "objective": "ipo"})
    validator.validate({"name": "x", "stages": [{"kind": "sft", "data": "a.jsonl"}]})


def test_the_schema_takes_what_is_expanded(validator: Any) -> None:
    sft = {"kind": "sft", "name": "sft"}
    peak = {"kind": "best", "among": "@eval*", "metric": "accuracy", "patience": 1}
    block = {"kind": "repeat", "name": "rounds", "times": 2, "first": {"sft": "@x"}, "stages": [sft, peak]}
    written = {"name": "r", "optional": ["sft"], "evaluation": {"data": "t.jsonl"}, "stages": [sft, block]}
    validator.validate(written)
    validator.validate({**written, "evaluation": "t.jsonl"})
    validator.validate({"kind": "sft", "data": "c.jsonl", "evaluation": {"data": "t.jsonl", "rewards": "number"}})


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "r", "stages": [], "evaluation": {"model": "m"}},
        {"name": "r", "stages": [{"kind": "repeat", "stages": []}]},
        {"kind": "repeat", "times": 2},
        {"kind": "preference", "objective": {"name": "dpo", "betta": 1}},
        {"kind": "preference", "objective": "dop"},
        {"kind": "sft", "training": {"steps": "many"}},
        {"kind": "sft", "rewards": "number"},
        {"name": "x"},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(validator: Any, bad: dict[str, Any]) -> None:
    assert not validator.is_valid(bad)


def test_settings_carry_the_words_of_their_docstrings() -> None:
    training = json_schema()["$defs"]["Training"]["properties"]
    assert training["steps"]["description"] == "optimizer steps; null takes `epochs` passes over the data."
    assert training["steps"]["default"] is None
    assert "saved" not in training["batch_size"]["description"]
