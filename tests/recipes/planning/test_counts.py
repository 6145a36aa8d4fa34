"""Counted without weights: the same numbers as of the model with its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import FalconConfig, MambaConfig

from strop.model.adapter import LoRA, attach
from strop.model.sizes import blank
from strop.recipes.planning.counts import from_config, read_config
from strop.recipes.planning.exact import count, counts_of
from strop.train.optim import split_parameters
from strop.world.model import write_base


def written(module: Any, folder: Path) -> Path:
    module.config.architectures = [type(module).__name__]
    module.config.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["qwen3", "llama", "experts"])
def test_parameters_of_a_config_alone_are_those_of_the_model(
    family: str, module: Callable[..., Any], tmp_path: Path
) -> None:
    real = module(family)
    found = counts_of(str(written(real, tmp_path / family)))
    matrices, _ = split_parameters(real)
    assert found.parameters == sum(p.numel() for p in real.parameters())
    assert found.matrices == sum(p.numel() for p in matrices)
    assert (found.head == 0) == (family == "qwen3") and found.embedding == 300 * 64


def test_a_token_meets_two_of_eight_experts(module: Callable[..., Any]) -> None:
    found = count(module("experts"))
    attention = 4 * (64 * 64 * 2 + 2 * 32 * 64)
    assert found.active == attention + 4 * 2 * 3 * 48 * 64
    assert found.feed == 2 * 48


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj")])
def test_an_adapter_trains_as_many_weights_as_are_counted(targets: Any, module: Callable[..., Any]) -> None:
    real = module("llama")
    wanted = count(real).adapted(LoRA(r=4, targets=targets))
    attach(real, LoRA(r=4, targets=targets), seed=0)
    assert sum(p.numel() for p in real.parameters() if p.requires_grad) == wanted


def test_the_formula_for_usual_blocks_is_exact_for_them(tmp_path: Path) -> None:
    write_base(tmp_path / "base", 0)
    formula, exact = from_config(read_config(tmp_path / "base")), counts_of(str(tmp_path / "base"))
    assert formula is not None and formula.parameters == exact.parameters == 393_984
    names = ("matrices", "alike", "active", "query", "key", "feed", "head_norms", "fused", "positions")
    assert [getattr(formula, n) for n in names] == [getattr(exact, n) for n in names]


def test_the_formula_does_not_guess_at_experts(module: Callable[..., Any], tmp_path: Path) -> None:
    folder = written(module("experts"), tmp_path / "m")
    assert from_config(read_config(folder)) is None


def test_one_head_of_keys_for_all_queries_is_counted_once(tmp_path: Path) -> None:
    """Falcon-7B's, whose config says `multi_query` and names no number."""
    config = FalconConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=300)
    config.save_pretrained(tmp_path)
    assert counts_of(str(tmp_path)).key == 16 and counts_of(str(tmp_path)).query == 64


def test_a_model_without_attention_is_a_sentence(tmp_path: Path) -> None:
    MambaConfig(hidden_size=64, num_hidden_layers=2, vocab_size=300).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a mamba cannot be planned, for its config lacks a number of the usual"):
        counts_of(str(tmp_path))


def test_a_scalar_model_has_a_head_of_one_number(module: Callable[..., Any]) -> None:
    whole = count(module("llama"))
    assert whole.scalar.parameters == whole.parameters - 300 * 64 + 64


def test_a_name_that_would_have_to_be_fetched_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"nobody/nothing-7B: no folder here, and a plan fetches nothing; put its"):
        blank("nobody/nothing-7B")


def test_a_folder_without_a_readable_config_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-family"}))
    with pytest.raises(ValueError, match="config.json cannot be read"):
        blank(str(tmp_path))
