"""The packed forward is the stock model's: each sequence alone, unpadded, gives the same numbers and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers

from strop.batch import Batch
from strop.data.pack import pack
from strop.model import attention
from strop.model.forward import LanguageModel, forward, unroll
from strop.model.load import prepare

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama, grouped heads": ("Llama", {}),
    "Llama, as many key heads": ("Llama", {"num_key_value_heads": 4}),
    "Llama, one key head": ("Llama", {"num_key_value_heads": 1}),
    "Llama, tied embeddings": ("Llama", {"tie_word_embeddings": True}),
    "Qwen2": ("Qwen2", {}),
    "Qwen3": ("Qwen3", {}),
    "Mistral, window 8": ("Mistral", {"sliding_window": 8}),
    "Gemma": ("Gemma", {}),
    "Gemma3, window 8 in one layer": (
        "Gemma3Text",
        {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "Phi3": ("Phi3", {"sliding_window": None}),
    "Phi3, window 8": ("Phi3", {"sliding_window": 8}),
    "GPTNeoX": ("GPTNeoX", {}),
}
PADDED: dict[str, tuple[str, dict[str, Any]]] = {
    "Falcon": ("Falcon", {"ffn_hidden_size": 48}),
    "Bloom": ("Bloom", {}),
    "Gemma2, soft-capped": ("Gemma2", {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}),
    "Granite, scaled": ("Granite", {"logits_scaling": 8.0}),
    "Cohere, scaled": ("Cohere", {"logit_scale": 0.25}),
    "GptOss, sinks": (
        "GptOss",
        {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 8},
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_is_each_sequence_alone(name: str, batch: Batch, groups, toys, plain, gradients_of, agree) -> None:
    kind, settings = FAMILIES[name]
    stock = toys.stock(kind, **settings).eval()
    model = prepare(copy.deepcopy(stock), say=pytest.fail)
    assert (model.path, model.plain_head, model.why) == ("packed", True, "")
    want = plain(stock, groups)
    assert float(want.detach().std()) > 0.3, "the model says almost the same everywhere: nothing is compared"
    got = forward(model, batch).logprobs
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    agree(gradients_of(model.module, got), gradients_of(stock, want), 1e-4)


@pytest.mark.parametrize("name", PADDED)
def test_what_cannot_be_packed_is_padded_and_says_so(
    name: str, batch: Batch, groups, toys, plain, gradients_of, agree
) -> None:
    kind, settings = PADDED[name]
    stock = toys.stock(kind, **settings).eval()
    said: list[str] = []
    model = prepare(copy.deepcopy(stock), say=said.append)
    assert model.path == "padded" and said == [f"{type(stock).__name__}: {model.why}"] and "padded" in model.why
    assert model.module.config._attn_implementation == stock.config._attn_implementation
    want, got = plain(stock, groups), forward(model, batch).logprobs
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5)
    agree(gradients_of(model.module, got), gradients_of(stock, want), 1e-4)


@pytest.mark.parametrize("kind", ["Llama", "Gemma2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_temperature_entropy_and_first_choice(kind: str, temperature: float, batch: Batch, toys) -> None:
    """By our head (Llama) and by the model's own (Gemma 2)."""
    stock = toys.stock(kind).eval()
    model = prepare(copy.deepcopy(stock), say=lambda text: None)
    got = forward(model, batch, temperature=temperature, wants={"entropy", "correct"})
    ids, mask, column_of = unroll(batch)
    row, column = batch.seq, column_of[batch.seq, batch.predictor]
    logits = stock(input_ids=ids, attention_mask=mask).logits[row, column] / temperature
    want = logits.log_softmax(-1)
    torch.testing.assert_close(got.logprobs, want.gather(-1, batch.target[:, None])[:, 0], rtol=0, atol=2e-5)
    torch.testing.assert_close(got.entropy, -(want.exp() * want).sum(-1), rtol=0, atol=2e-5)
    assert torch.equal(got.correct, (logits.argmax(-1) == batch.target).float())


def test_only_what_is_wanted_is_given(batch: Batch, toys) -> None:
    model = prepare(toys.stock("Llama"))
    assert forward(model, batch).entropy is None and forward(model, batch).correct is None
    only = forward(model, batch, wants={"entropy"})
    assert only.entropy is not None and only.correct is None


@pytest.mark.parametrize("kind", ["Qwen3", "Falcon", "Gemma2"])
def test_checkpointing_changes_no_gradient(kind: str, batch: Batch, toys, gradients_of, agree) -> None:
    """It runs each layer twice, and must hand the layout to both."""
    settings = {"ffn_hidden_size": 48} if kind == "Falcon" else {}
    models = [
        prepare(toys.stock(kind, **settings), gradient_checkpointing=on, say=lambda text: None) for on in (False, True)
    ]
    calls = []
    layers = [m for m in models[1].module.modules() if type(m).__name__.endswith(("MLP", "Mlp"))]
    layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    found = [gradients_of(m.module, forward(m, batch).logprobs) for m in models]
    assert len(calls) == 2, "checkpointing is off: the layer ran once"
    agree(found[1], found[0], 1e-6)


def test_nothing_is_random_in_training_mode(batch: Batch, toys) -> None:
    """Dropout hides in modules, in numbers of a layer, and in the config."""
    families = {
        "Llama": {"attention_dropout": 0.5},
        "Phi3": {"attention_dropout": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5},
        "GPTNeoX": {"attention_dropout": 0.5, "hidden_dropout": 0.5},
        "Falcon": {"attention_dropout": 0.5, "hidden_dropout": 0.5, "ffn_hidden_size": 48},
        "Bloom": {"attention_dropout": 0.5, "hidden_dropout": 0.5},
        "Mixtral": {"attention_dropout": 0.5, "router_jitter_noise": 0.5, "num_local_experts": 2},
    }
    for kind, settings in families.items():
        stock = toys.stock(kind, **settings)
        model = prepare(copy.deepcopy(stock), say=lambda text: None)
        assert model.module.training
        with torch.no_grad():
            first, second = (forward(model, batch).logprobs for _ in range(2))
            quiet = prepare(copy.deepcopy(stock), say=lambda text: None)
            quiet.module.eval()
            third = forward(quiet, batch).logprobs
        assert torch.equal(first, second), f"{kind} still drops at random"
        torch.testing.assert_close(first, third, rtol=0, atol=1e-5)


def test_bf16_gives_fp32_log_probs_near_fp32s(batch: Batch, toys) -> None:
    """Weights in bf16 (a frozen model) and fp32 weights under autocast (a trained one)."""
    stock = toys.stock("Qwen3", initializer_range=0.1)
    exact = forward(prepare(copy.deepcopy(stock), say=pytest.fail), batch).logprobs
    frozen = prepare(copy.deepcopy(stock).to(torch.bfloat16), say=pytest.fail)
    assert frozen.path == "packed" and frozen.precision_name == "bf16"
    mixed = prepare(copy.deepcopy(stock), say=pytest.fail)
    mixed = LanguageModel(mixed.module, autocast=torch.bfloat16)
    assert mixed.precision_name == "bf16" and mixed.module.dtype == torch.float32
    for model in (frozen, mixed):
        got = forward(model, batch).logprobs
        assert got.dtype == torch.float32
        error = (got - exact).detach().abs()
        assert float(error.mean()) < 0.02 and float(error.max()) < 0.15
        got.sum().backward()
        assert all(p.grad.dtype == p.dtype and bool(p.grad.isfinite().all()) for p in model.module.parameters())


def test_log_probs_are_finer_than_bf16(batch: Batch, toys) -> None:
    """bf16 numbers near -5 stand 1/32 apart; rounded there, a ratio of 1.003 could not be told from 1."""
    model = prepare(toys.stock("Qwen3").to(torch.bfloat16), say=pytest.fail)
    logprobs = forward(model, batch).logprobs
    assert float((logprobs != logprobs.bfloat16().float()).float().mean()) > 0.9


def test_a_packed_model_runs_the_packed_attention_in_every_layer(batch: Batch, toys, monkeypatch) -> None:
    seen = []
    model = prepare(toys.stock("Llama"), say=pytest.fail)
    attend = attention.attend
    registry = transformers.AttentionInterface
    registry.register(attention.NAME, lambda *a, **k: seen.append(k["strop_plan"]) or attend(*a, **k))
    try:
        forward(model, batch)
    finally:
        registry.register(attention.NAME, attend)
    assert len(seen) == 2 and seen[0] is seen[1] is not None


def test_unroll_spells_every_sequence_out(batch: Batch, groups) -> None:
    ids, mask, column_of = unroll(batch)
    row, column = batch.seq, column_of[batch.seq, batch.predictor]
    sequences = [(g.prompt_ids, s) for g in groups for s in g.sequences]
    for s, (prompt, sequence) in enumerate(sequences):
        whole = (prompt + sequence.ids)[:-1]
        assert mask[s].tolist() == [1] * len(whole) + [0] * (ids.shape[1] - len(whole))
        assert ids[s, : len(whole)].tolist() == list(whole)
        own = row == s
        places = [len(prompt) + i for i, t in enumerate(sequence.trained) if t and len(prompt) + i > 0]
        assert column[own].tolist() == [p - 1 for p in places]
        assert batch.target[own].tolist() == [(prompt + sequence.ids)[p] for p in places]


@pytest.mark.parametrize("max_tokens", [1, 120])
def test_micro_batches_give_the_same_log_probs(max_tokens: int, groups, batch: Batch, toys) -> None:
    model = prepare(toys.stock("Qwen3"), say=pytest.fail)
    with torch.no_grad():
        whole = forward(model, batch).logprobs
        found = {}
        for part in pack(groups, max_tokens=max_tokens, splittable=True).batches:
            logprobs = forward(model, part).logprobs
            found.update({n: logprobs[part.seq == s] for s, n in enumerate(part.sequence_ids)})
    joined = torch.cat([found[n] for n in range(len(found))])
    torch.testing.assert_close(joined, whole, rtol=0, atol=1e-5)


def test_temperature_reaches_the_gradient(batch: Batch, toys, gradients_of, agree, plain, groups) -> None:
    stock = toys.stock("Llama").eval()
    model = prepare(copy.deepcopy(stock), say=pytest.fail)
    ids, mask, column_of = unroll(batch)
    row, column = batch.seq, column_of[batch.seq, batch.predictor]
    want = (stock(input_ids=ids, attention_mask=mask).logits[row, column] / 0.6).log_softmax(-1)
    want = want.gather(-1, batch.target[:, None])[:, 0]
    agree(gradients_of(model.module, forward(model, batch, temperature=0.6).logprobs), gradients_of(stock, want), 1e-4)
