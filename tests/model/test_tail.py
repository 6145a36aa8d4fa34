"""The last layer on the rows that are read: the same numbers and gradients, and less work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from strop.batch import Batch
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pack import pack
from strop.model import tail
from strop.model.forward import forward, hidden_states
from strop.model.load import prepare

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama, one key head": ("Llama", {"num_key_value_heads": 1}),
    "Qwen2, biases": ("Qwen2", {}),
    "Qwen3, head norms": ("Qwen3", {}),
    "Mistral, window 8": ("Mistral", {"sliding_window": 8}),
    "Gemma": ("Gemma", {}),
    "Gemma3, norms behind the blocks": (
        "Gemma3Text",
        {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "Phi3, one projection": ("Phi3", {"sliding_window": None}),
}


@pytest.fixture
def long_prompts() -> Batch:
    """Prompts longer than a causal block beside answers of a few tokens, some of them untrained."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 89, (length,), generator=generator).tolist())

    def answer(length: int, untrained: int = 0) -> EncodedSequence:
        return EncodedSequence(ids(length), tuple(i >= untrained for i in range(length)))

    groups = [
        EncodedGroup(ids(200), (answer(9), answer(1), answer(6, untrained=3))),
        EncodedGroup(ids(30), (answer(3),)),
        EncodedGroup(ids(40), (answer(2), answer(5))),
    ]
    return pack(groups, max_tokens=1 << 20, read_last=True).batches[0]


@pytest.mark.parametrize("name", KINDS)
def test_numbers_and_gradients_are_those_of_the_whole_layer(
    name: str, long_prompts: Batch, toys, gradients_of, agree
) -> None:
    kind, settings = KINDS[name]
    model = prepare(toys.stock(kind, **settings), say=pytest.fail)
    assert model.tail is not None
    short, whole = (forward(m, long_prompts).logprobs for m in (model, replace(model, tail=None)))
    torch.testing.assert_close(short, whole, rtol=0, atol=1e-5)
    agree(gradients_of(model.module, short), gradients_of(model.module, whole), 1e-4)


def test_one_row_of_each_sequence(long_prompts: Batch, toys) -> None:
    """What a reward model reads."""
    model = prepare(toys.stock("Qwen3"), say=pytest.fail)
    sequences = torch.arange(long_prompts.num_sequences)
    short, whole = (
        hidden_states(m, long_prompts, long_prompts.last, sequences) for m in (model, replace(model, tail=None))
    )
    torch.testing.assert_close(short, whole, rtol=0, atol=1e-5)
    parameters = [p for name, p in model.module.named_parameters() if "lm_head" not in name]
    ours, theirs = (torch.autograd.grad(x.sin().sum(), parameters) for x in (short, whole))
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).norm()) <= 1e-4 * float(b.norm().clamp(min=1e-6))


def test_the_parts_run_on_the_rows_that_are_read(long_prompts: Batch, toys, monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepare(toys.stock("Qwen3"), say=pytest.fail)
    seen: dict[tuple[int, str], int] = {}

    def count(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        seen[names[id(linear)]] = x.shape[1]
        return torch.nn.functional.linear(x, linear.weight, linear.bias)

    monkeypatch.setattr(nn.Linear, "forward", count)
    names = {
        id(part): (i, name.split(".")[-1])
        for i, layer in enumerate(model.module.base_model.layers)
        for name, part in layer.named_modules()
    }
    forward(model, long_prompts)
    last = model.module.config.num_hidden_layers - 1
    everything, read = long_prompts.input_ids.shape[0], len(long_prompts.predictor.unique())
    assert read < 0.2 * everything
    some = {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert seen == {
        (i, name): read if i == last and name in some else everything
        for i in range(last + 1)
        for name in (*some, "k_proj", "v_proj")
    }


def test_where_nearly_all_rows_are_read_none_are_picked(toys) -> None:
    model = prepare(toys.stock("Qwen3"), say=pytest.fail)
    rows = torch.arange(9)
    with tail.only(model.tail, rows, 9):
        assert tail.rows_read(model.module.base_model.layers[-1].self_attn) is None
    with tail.only(model.tail, rows, 90):
        assert tail.rows_read(model.module.base_model.layers[-1].self_attn) is rows
        assert tail.rows_read(model.module.base_model.layers[0].self_attn) is None
    assert tail.rows_read(model.module.base_model.layers[-1].self_attn) is None
