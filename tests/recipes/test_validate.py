from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from strop.recipes.config import load_recipe
from strop.recipes.validate import as_text, num_parameters, size, validate


def pairs(folder: Path, num: int) -> str:
    rows = [{"prompt": "p" * 10, "chosen": "c" * 20, "rejected": "r" * 30}] * num + [{"prompt": 1}]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_lengths_and_steps_are_counted(tmp_path: Path) -> None:
    recipe = load_recipe("dpo", ["model=m", f"data={pairs(tmp_path, 100)}", "training.batch_size=8"])
    [stage] = validate(recipe)
    data = stage["data"]["data"]
    assert (data["rows"], data["kept"], data["kind"]) == (101, 100, "preference")
    assert list(data["dropped"].values()) == [1]
    assert data["lengths"]["max"] == 10 + 20 + 30 + 2  # characters, parted by line breaks
    assert stage["steps"] == {
        "steps": 12,
        "rows": 95,
        "held_out": 5,
        "text": "95 rows (5 held out) x 1 passes / 8 = 12 steps",
    }
    assert "unknown" in stage["memory"]["text"]
    assert "101 rows of kind preference" in as_text([stage])


def test_too_few_rows_to_hold_some_out_are_refused_by_the_stage(tmp_path: Path) -> None:
    recipe = load_recipe("dpo", ["model=m", f"data={pairs(tmp_path, 1)}"])
    with pytest.raises(ValueError, match="^dpo: 1 row is too few to hold some out; set training.eval_fraction=0"):
        validate(recipe)


def test_rows_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    with pytest.raises(ValueError, match=r"dpo.data: read as prompt_completion .* takes preference or ranking"):
        validate(load_recipe("dpo", ["model=m", f"data={path}"]))


def test_parameters_are_counted_from_the_shapes(tmp_path: Path) -> None:
    """Llama 3.2 1B: 1,235,814,400 parameters."""
    config = {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert num_parameters(tmp_path) == 1_235_814_400
    assert size(16 * 1_235_814_400) == "18.4 GiB"


def test_the_quickstart_is_looked_at_without_torch() -> None:
    stages = validate(load_recipe("quickstart"))
    first = stages[0]["data"]["data"]
    assert (first["rows"], first["lengths"]["unit"]) == (19_200, "tokens (without the chat template's)")
    assert all("parameters" in stage["memory"] for stage in stages)
    assert "tokenizers" in sys.modules


def test_a_refresh_trains_its_reward_model(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    shape = {"vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 16}
    (base / "config.json").write_text(json.dumps({**shape, "num_attention_heads": 2, "tie_word_embeddings": True}))
    data = pairs(tmp_path, 8)
    refresh = {
        "kind": "refresh",
        "name": "refresh",
        "policy": str(base),
        "data": data,
        "old": data,
        "rewards": "number",
    }
    (stage,) = validate(load_recipe({"name": "r", "model": str(base), "stages": [refresh]}))
    assert stage["memory"]["bytes"] == 16 * num_parameters(base)
    (stage,) = validate(load_recipe({"name": "r", "model": str(base), "stages": [{**refresh, "adapter": "lora"}]}))
    assert stage["memory"]["trained"] > 0


def test_a_model_that_is_picked_or_averaged_has_the_shape_of_those_it_is_of(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    shape = {"vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 16}
    (base / "config.json").write_text(json.dumps({**shape, "num_attention_heads": 2, "tie_word_embeddings": True}))
    data = pairs(tmp_path, 8)
    dpo = {"kind": "preference", "name": "dpo", "data": data}
    peak = {"kind": "best", "name": "peak", "metric": "eval_accuracy"}
    mean = {"kind": "average", "name": "mean", "members": ["@peak", "@dpo"]}
    last = {**dpo, "name": "last", "model": "@mean"}
    recipe = {"name": "r", "model": str(base), "evaluation": data, "stages": [dpo, peak, mean, last]}
    stages = {stage["name"]: stage for stage in validate(load_recipe(recipe))}
    assert stages["last"]["memory"]["parameters"] == stages["dpo"]["memory"]["parameters"] == num_parameters(base)
    assert stages["eval-peak"]["memory"]["parameters"] == num_parameters(base)
    assert stages["peak"]["memory"] == {"text": "no model of its own"}
