"""Wrong inputs are told before anything runs, all at once, and in a newcomer's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strop.recipes.config import load_recipe
from strop.recipes.preflight import check_inputs, check_model, require_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("pairs", {"prompt": "q", "chosen": "a", "rejected": "b"})
    write("chats", {"prompt": "q", "completion": "a"})
    write("problems", {"prompt": "q", "answer": "1"})
    Path("empty.jsonl").write_text("")
    Path("page.jsonl").write_text("<!DOCTYPE html>\n<html></html>\n")
    for name in ("base", "bare"):
        Path(name).mkdir()
        Path(name, "config.json").write_text("{}")
    Path("base/tokenizer.json").write_text("{}")
    return tmp_path


def write(name: str, row: dict[str, Any]) -> None:
    Path(f"{name}.jsonl").write_text(json.dumps(row) + "\n")


def trouble(recipe: str, *pairs: str) -> str:
    with pytest.raises(ValueError) as caught:
        check_inputs(load_recipe(recipe, pairs))
    return str(caught.value)


def test_what_is_right_passes(folder: Path) -> None:
    check_inputs(load_recipe("dpo", ["model=base", "data=pairs.jsonl"]))
    check_inputs(load_recipe("grpo", ["model=owner/name", "data=problems.jsonl", "rewards=number"]))
    check_inputs(load_recipe("quickstart"))


def test_data_of_the_wrong_kind_or_none(folder: Path) -> None:
    assert "dpo.data: read as prompt_completion" in trouble("dpo", "model=base", "data=chats.jsonl")
    assert "empty.jsonl: empty" in trouble("dpo", "model=base", "data=empty.jsonl")
    assert "none of 2 rows can be used (2 x invalid JSON)" in trouble("sft", "model=base", "data=page.jsonl")
    assert "did you mean pairs.jsonl" in trouble("dpo", "model=base", "data=pears.jsonl")
    assert "has no such column" in trouble("dpo", "model=base", "data=pairs.jsonl", "data.columns.chosen=win")


def test_answers_that_a_stage_would_misread(folder: Path) -> None:
    """Without these a prompt alone, both sides of a pair, or a third answer would be met in the middle of a run."""
    assert "sft.data: read as prompt_only" in trouble("sft", "model=base", "data=problems.jsonl")
    assert "sft.data: read as preference" in trouble("sft", "model=base", "data=pairs.jsonl")
    write("ranked", {"prompt": "q", "completions": ["a", "b", "c"], "ranks": [1, 2, 3]})
    assert "3 answers to a prompt, but this stage compares two" in trouble("dpo", "model=base", "data=ranked.jsonl")
    write("ranked", {"prompt": "q", "completions": ["a", "b"], "ranks": [2, 1]})
    check_inputs(load_recipe("dpo", ["model=base", "data=ranked.jsonl"]))


def test_an_evaluation_without_rewards_needs_answers(folder: Path) -> None:
    base = {"name": "eval", "kind": "evaluate", "model": "base", "data": "problems.jsonl"}
    with pytest.raises(ValueError, match="read as prompt_only .*without rewards"):
        check_inputs(load_recipe(base))
    check_inputs(load_recipe({**base, "data": "chats.jsonl"}))
    check_inputs(load_recipe({**base, "rewards": "number"}))


def test_files_beside_what_an_earlier_stage_leaves_are_looked_at(folder: Path) -> None:
    sample = {"kind": "sample", "name": "sample", "data": "chats.jsonl"}
    rest = {"kind": "select", "name": "select", "data": ["@sample", "gone.jsonl"]}
    with pytest.raises(ValueError, match=r"select.data: .*gone.jsonl"):
        check_inputs(load_recipe({"name": "r", "model": "base", "stages": [sample, rest]}))
    check_inputs(load_recipe({"name": "r", "model": "base", "stages": [sample, {**rest, "data": "@sample"}]}))


def test_a_reward_whose_column_no_row_has(folder: Path) -> None:
    said = trouble("grpo", "model=base", "data=pairs.jsonl", "rewards=number")
    assert said.startswith("grpo.data: reward 'number': no row has a column 'answer' (columns: completion); set the")
    late = "grpo.data=chats.jsonl", "grpo.rewards=math"
    said = trouble("align", "model=base", "dpo.data=pairs.jsonl", *late)
    assert said.startswith("grpo.data: reward 'math': no row has a column 'answer'")
    own = "rewards={name: number, column: completion}"
    check_inputs(load_recipe("grpo", ["model=base", "data=chats.jsonl", own]))
    check_inputs(load_recipe("grpo", ["model=base", "data=problems.jsonl", "eval_data=chats.jsonl", "rewards=number"]))
    Path("mixed.jsonl").write_text('{"prompt": "hello"}\n{"prompt": "q", "answer": "1"}\n')
    check_inputs(load_recipe("grpo", ["model=base", "data=mixed.jsonl", "rewards=number"]))


def test_what_a_model_was_trained_on_may_be_rows_of_any_kind(folder: Path) -> None:
    stage = {"name": "eval", "kind": "evaluate", "model": "base", "data": "pairs.jsonl", "trained_on": "problems.jsonl"}
    check_inputs(load_recipe({"name": "r", "stages": [stage]}))


def test_everything_is_told_at_once(folder: Path) -> None:
    given = ("model=./nowhere", "data=x.jsonl", "rewards=mine.py:f", "reference=bare", "objective.beta=0.1")
    lines = trouble("grpo", *given).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "grpo.model",
        "grpo.reference",
        "grpo.data",
        "grpo.rewards.0.function",
    ]


def test_model_folders(folder: Path) -> None:
    assert check_model("base") == "" and check_model("owner/name") == "" and check_model("gpt2") == ""
    assert check_model("bare") == "bare: has no tokenizer (tokenizer.json); save the tokenizer in the model's folder"
    Path("nothing").mkdir()
    assert "no config.json" in check_model("nothing")
    assert check_model("pairs.jsonl") == "pairs.jsonl: a file; name the folder that it is in"
    assert check_model("runs/x/stages/sft/model") == "runs/x/stages/sft/model: no such folder"
    with pytest.raises(ValueError, match="no tokenizer"):
        require_model("bare")
