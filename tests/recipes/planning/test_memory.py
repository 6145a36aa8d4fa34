"""What a layer keeps, counted by autograd itself and by arithmetic; states; and more of anything never takes less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from strop.batch import Batch
from strop.model.adapter import LoRA, attach
from strop.model.forward import LanguageModel, hidden_states
from strop.model.load import prepare
from strop.recipes.planning import memory
from strop.recipes.planning.counts import Counts
from strop.recipes.planning.exact import count
from strop.train.optim import AdamW, Muon

CPU = memory.kept_in("cpu", False, None)
CARD = memory.kept_in("cuda", True, None)
ADAPTER = LoRA(r=8)


def of_hidden_states(model: LanguageModel, batch: Batch) -> Callable[[], Any]:
    return lambda: hidden_states(model, batch, batch.predictor, batch.seq)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize(("prompt", "answer"), [(100, 20), (10, 100)])
def test_activations_are_those_that_autograd_saves(
    family: str, prompt: int, answer: int, module: Any, batch: Any, saved: Any
) -> None:
    real, row = module(family), batch(prompt, answer)
    model = prepare(real, say=lambda text: None)
    assert model.path == "packed" and model.tail is not None
    found = saved(real, of_hidden_states(model, row))
    told = memory.activations(count(real), CPU, len(row.input_ids), row.num_tokens)
    assert told == pytest.approx(found, rel=0.04)


def test_an_adapter_keeps_its_thin_products_besides(module: Any, batch: Any, saved: Any) -> None:
    real, row = module("llama"), batch(10, 100)
    counts = count(real)
    attach(real, ADAPTER, seed=0)
    model = prepare(real, say=lambda text: None)
    found = saved(real, of_hidden_states(model, row))
    told = memory.activations(counts, CPU, len(row.input_ids), row.num_tokens, adapter=ADAPTER)
    assert told == pytest.approx(found, rel=0.04)


def test_checkpointing_keeps_a_layers_input_alone(module: Any, batch: Any, saved: Any) -> None:
    real, row = module("qwen3"), batch(10, 100)
    counts = count(real)
    model = prepare(real, gradient_checkpointing=True, say=lambda text: None)
    found = saved(real, of_hidden_states(model, row))
    tokens = len(row.input_ids)
    told = memory.activations(counts, CPU, tokens, row.num_tokens, checkpointing=True)
    assert told - tokens * memory.layer(counts, CPU) == pytest.approx(found, rel=0.35)  # and positions and ids
    assert told < 0.5 * memory.activations(counts, CPU, tokens, row.num_tokens)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_mixed_precision_without_fused_norms_as_on_a_card(family: str, module: Any, batch: Any, saved: Any) -> None:
    """The arithmetic of a GPU, counted where there is none: bf16 products over fp32 weights, norms in seven steps."""
    real, row = module(family), batch(10, 100)
    model = replace(prepare(real, say=lambda text: None), autocast=torch.bfloat16, tail=None)
    for part in real.modules():
        vars(part).pop("forward", None)
    found = saved(real, of_hidden_states(model, row))
    counts, tokens = count(real), len(row.input_ids)
    copies = 2 * (counts.active)  # the weights' bf16 copies, which `states` counts
    assert memory.activations(counts, CARD, tokens, tokens) + copies == pytest.approx(found, rel=0.06)


def test_a_trained_weight_takes_sixteen_bytes(module: Any) -> None:
    counts = count(module("qwen3"))
    found = memory.states(counts, AdamW(), CPU, None)
    assert found.weights + found.gradients + found.optimizer == 16 * counts.parameters
    card = memory.states(counts, AdamW(), CARD, None)
    assert card.weights + card.gradients + card.optimizer == 18 * counts.parameters


def test_states_are_those_of_a_real_step(module: Any, batch: Any) -> None:
    """Every optimizer's own tensors, after a step."""
    for settings in (AdamW(), Muon()):
        real = module("llama")
        optimizer = settings(real)
        for parameter in real.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        found = sum(t.nbytes for state in optimizer.state.values() for t in state.values() if t.numel() > 1)
        assert memory.states(count(real), settings, CPU, None).optimizer == found


def test_frozen_weights_under_an_adapter(module: Any) -> None:
    counts = count(module("llama"))
    low = counts.adapted(ADAPTER)
    plain = memory.states(counts, AdamW(), memory.kept_in("cuda", True, ADAPTER), ADAPTER)
    four_bits = replace(ADAPTER, quantize="nf4")
    small = memory.states(counts, AdamW(), memory.kept_in("cuda", True, four_bits), four_bits)
    assert plain.weights == 2 * counts.parameters + 4 * low and plain.optimizer == 8 * low
    linear = 4 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 160 * 64)
    assert plain.weights - small.weights == pytest.approx((2 - 0.55) * linear), "neither embedding nor head"


def test_all_tiles_are_kept_while_they_are_few() -> None:
    few, many = usual(vocabulary=1000), usual(vocabulary=100_000)
    tile = 4 * 300 * 1000
    assert memory.logits(few, 300, trained=True) == tile + 2 * tile + 2 * 4 * 300 * few.width
    assert memory.logits(many, 400, trained=True) == 2 * 4 * 400 * 4096 + 2 * 4 * 400 * many.width


def usual(**more: Any) -> Counts:
    shape = {
        "parameters": 10_000_000, "embedding": 1_000_000, "head": 0, "matrices": 9_000_000, "alike": 4_000_000,
        "active": 9_000_000, "vocabulary": 8000, "width": 256, "layers": 6, "query": 256, "key": 128, "heads": 4,
        "feed": 1024,
    }  # fmt: skip
    return Counts(**{**shape, **more})


def test_more_of_anything_never_takes_less() -> None:
    """Along tokens, positions read, vocabulary, rows, prompt and completion."""
    counts = usual()
    for numbers in (range(1, 4097, 13),):
        acts = [memory.activations(counts, CPU, n, max(1, n // 2)) for n in numbers]
        assert acts == sorted(acts)
        read = [memory.activations(counts, CPU, 4096, n) for n in numbers]
        assert read == sorted(read)
        cached = [memory.cache(counts, CPU, rows=n, prompts=8, prompt=64, completion=100) for n in numbers]
        assert cached == sorted(cached)
        longer = [memory.cache(counts, CPU, rows=8, prompts=8, prompt=n, completion=n) for n in numbers]
        assert longer == sorted(longer)


def test_keys_and_values_of_a_cache() -> None:
    """Two buffers a layer: rows x columns, which double from 64, and prompts x the longest."""
    counts = usual(vocabulary=2, width=1, feed=1, heads=1)
    found = memory.cache(counts, CPU, rows=10, prompts=5, prompt=100, completion=100)
    held = 2 * 6 * 128 * 4 * (10 * 128 + 5 * 100)
    assert held < found < 1.2 * held


def test_stacked_experts_are_not_kept_in_four_bits(module: Any) -> None:
    """bitsandbytes takes linear layers: the experts' own tensors stay in bf16."""
    counts, four_bits = count(module("experts")), replace(ADAPTER, quantize="nf4")
    kept = memory.kept_in("cuda", True, four_bits)
    experts = 4 * 8 * 3 * 48 * 64
    told = memory.states(counts, AdamW(), kept, four_bits).weights - 4 * counts.adapted(four_bits)
    assert told > 2 * (experts + counts.embedding + counts.head)
    assert told < 2 * counts.parameters
