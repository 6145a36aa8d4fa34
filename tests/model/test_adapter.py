"""Adapters: exact at the start, seen by every path, and the only thing that trains."""

from __future__ import annotations

import builtins
import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from strop.batch import Batch
from strop.model import adapter
from strop.model.adapter import LoRA, attach, disabled, find_targets, layers_of, require, shaken
from strop.model.forward import LanguageModel, forward
from strop.model.load import prepare
from strop.train.optim import AdamW, Muon, split_parameters

pytest.importorskip("peft")

KINDS = {
    "LoRA": LoRA(r=4, alpha=8),
    "rsLoRA": LoRA(r=4, alpha=8, use_rslora=True),
    "DoRA": LoRA(r=4, alpha=8, use_dora=True),
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", {}),
    "Llama, tied embeddings": ("Llama", {"tie_word_embeddings": True}),
    "Qwen3": ("Qwen3", {}),
    "Mistral, window 8": ("Mistral", {"sliding_window": 8}),
    "Gemma": ("Gemma", {}),
    "Phi3, fused projections": ("Phi3", {"sliding_window": None}),
    "GPTNeoX": ("GPTNeoX", {}),
    "Falcon, padded": ("Falcon", {"ffn_hidden_size": 48}),
}


def learned(module: Any, seed: int = 1) -> Any:
    """As after training: every trainable tensor moved, B far from 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def by_hand(module: Any) -> Any:
    """A stock model with every adapted weight written out from the papers' formulas, in float64."""
    module = copy.deepcopy(module).double()
    for name, layer in layers_of(module).items():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        weight = layer.base_layer.weight + layer.scaling["default"] * b @ a
        if layer.lora_magnitude_vector:
            weight = weight / weight.norm(dim=1, keepdim=True) * layer.lora_magnitude_vector["default"].weight[:, None]
        plain = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=layer.base_layer.bias is not None).double()
        with torch.no_grad():
            plain.weight.copy_(weight)
            if plain.bias is not None:
                plain.bias.copy_(layer.base_layer.bias)
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, plain)
    return module


# What an adapter is.


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing(kind: str, toys, batch: Batch) -> None:
    stock = toys.stock("Llama")
    module = copy.deepcopy(stock)
    attach(module, KINDS[kind], seed=0)
    with torch.no_grad():
        want = forward(LanguageModel(stock, path="padded"), batch).logprobs
        got = forward(LanguageModel(module, path="padded"), batch).logprobs
    limit = 1e-5 if kind == "DoRA" else 0.0  # DoRA divides by the norm it multiplies by
    torch.testing.assert_close(got, want, rtol=0, atol=limit)


@pytest.mark.parametrize(("kind", "scale"), [("LoRA", 2.0), ("rsLoRA", 4.0), ("DoRA", 2.0)])
def test_scale_and_start(kind: str, scale: float, toys) -> None:
    module = toys.stock("Llama")
    attach(module, KINDS[kind], seed=3)
    layer = layers_of(module)["model.layers.1.mlp.down_proj"]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (a.shape, b.shape, layer.scaling["default"]) == ((4, 48), (32, 4), scale)
    assert not b.any() and 0.9 * 48**-0.5 < float(a.abs().max()) <= 48**-0.5
    if kind == "DoRA":
        magnitude = layer.lora_magnitude_vector["default"].weight
        torch.testing.assert_close(magnitude, layer.base_layer.weight.norm(dim=1))


def test_the_start_is_a_function_of_the_seed_alone(toys) -> None:
    def start(seed: int) -> dict[str, Tensor]:
        module = toys.stock("Llama")
        attach(module, LoRA(r=2), seed=seed)
        return {name: p.clone() for name, p in module.named_parameters() if p.requires_grad}

    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first = start(5)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was touched"
    torch.manual_seed(12)
    again, other = start(5), start(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_only_the_adapter_and_named_heads_train(toys) -> None:
    import transformers

    config = transformers.LlamaConfig(**{**toys.SIZES, "num_labels": 1})
    module = transformers.LlamaForSequenceClassification(config)
    attach(module, LoRA(r=2), seed=0, heads=("score",))
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert "score.weight" in trained and not isinstance(module.score, torch.nn.ModuleDict)
    assert all(".lora_" in name for name in trained - {"score.weight"})
    assert len(trained) == 1 + 2 * 7 * 2  # two matrices for each of seven layers in two blocks


def test_optimizers_see_the_adapter_only(toys) -> None:
    module = toys.stock("Llama")
    attach(module, LoRA(r=2, use_dora=True), seed=0)
    matrices, others = split_parameters(module)
    assert {p.ndim for p in matrices} == {2} and {p.ndim for p in others} == {1}  # magnitudes are no matrices
    trained = {id(p) for p in module.parameters() if p.requires_grad}
    for settings in (AdamW(), Muon()):
        held = {id(p) for group in settings(module).param_groups for p in group["params"]}
        assert held == trained


# Numbers.


@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_are_those_of_the_written_out_weights(kind: str, toys, batch: Batch) -> None:
    module = toys.stock("Llama")
    attach(module, KINDS[kind], seed=0)
    learned(module)
    with torch.no_grad():
        want = forward(LanguageModel(by_hand(module), path="padded", plain_head=False), batch).logprobs
        got = forward(LanguageModel(module, path="padded"), batch).logprobs
    torch.testing.assert_close(got, want.float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_path_is_each_sequence_alone(
    name: str, kind: str, toys, batch: Batch, groups, plain, gradients_of, agree
) -> None:
    """Packed, with its tail and fused norms, padded and stock: same log-probs and the adapter's same gradients."""
    family, settings = FAMILIES[name]
    module = toys.stock(family, **settings)
    attach(module, KINDS[kind], seed=0)
    learned(module)
    stock = copy.deepcopy(module)
    model = prepare(module, say=lambda text: None)
    assert model.path == ("padded" if "padded" in name else "packed")
    assert (model.tail is None) == (family in ("GPTNeoX", "Falcon"))
    spelled = plain(stock, groups)
    packed = forward(model, batch).logprobs
    torch.testing.assert_close(packed, spelled, rtol=0, atol=3e-5)
    ours = {n: g for n, g in gradients_of(module, packed).items() if g is not None}
    theirs = {n: g for n, g in gradients_of(stock, spelled).items() if g is not None}
    assert ours and all(".lora_" in n for n in ours)
    agree(ours, theirs, 2e-4)


def test_gradient_checkpointing_gives_the_same_gradients(toys, batch: Batch, gradients_of, agree) -> None:
    module = toys.stock("Llama")
    attach(module, LoRA(r=4), seed=0)
    learned(module)
    other = copy.deepcopy(module)
    models = [prepare(module), prepare(other, gradient_checkpointing=True)]
    found = [gradients_of(model.module, forward(model, batch).logprobs) for model in models]
    kept = [{n: g for n, g in gradients.items() if g is not None} for gradients in found]
    agree(kept[1], kept[0], 1e-5)


# Off, and shaken.


@pytest.mark.parametrize("kind", KINDS)
def test_switched_off_it_is_the_base_model_bit_for_bit(kind: str, toys, batch: Batch) -> None:
    stock = toys.stock("Llama")
    module = copy.deepcopy(stock)
    attach(module, KINDS[kind], seed=0)
    learned(module)
    base, model = prepare(stock), prepare(module)
    with torch.no_grad():
        want, on = forward(base, batch).logprobs, forward(model, batch).logprobs
        with disabled(module):
            off = forward(model, batch).logprobs
        again = forward(model, batch).logprobs
    assert torch.equal(off, want) and torch.equal(on, again)
    assert float((on - want).abs().max()) > 0.1
    assert all(p.requires_grad == (".lora_" in name) for name, p in module.named_parameters())


def test_switching_off_amid_a_step_leaves_its_gradients_alone(toys, batch: Batch) -> None:
    """The reference is asked between a policy's forward and its backward."""
    module = toys.stock("Llama")
    attach(module, LoRA(r=4), seed=0)
    model = prepare(learned(module))

    def gradient(between: bool) -> dict[str, Tensor]:
        module.zero_grad(set_to_none=True)
        logprobs = forward(model, batch).logprobs
        if between:
            with torch.no_grad(), disabled(module):
                forward(model, batch)
        logprobs.sum().backward()
        return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}

    plain, asked = gradient(False), gradient(True)
    assert plain.keys() == asked.keys() and all(torch.equal(plain[name], asked[name]) for name in plain)


def test_after_an_error_the_adapter_is_on_again(toys) -> None:
    module = toys.stock("Llama")
    attach(module, LoRA(r=2), seed=0)
    with pytest.raises(KeyError), disabled(module):
        raise KeyError
    assert not any(layer.disable_adapters for layer in layers_of(module).values())
    with pytest.raises(AssertionError, match="off already"), disabled(module), disabled(module):
        pass
    with pytest.raises(AssertionError, match="no adapter"), disabled(toys.stock("Llama")):
        pass


def test_the_probe_sees_a_fresh_adapter_and_leaves_no_trace(toys, batch: Batch) -> None:
    module = toys.stock("Llama")
    attach(module, LoRA(r=4), seed=0)
    model = prepare(module)
    with torch.no_grad():
        before = forward(model, batch).logprobs
        with shaken(module):
            during = forward(model, batch).logprobs
        after = forward(model, batch).logprobs
        learned(module)
        kept = {name: p.clone() for name, p in module.named_parameters()}
        with shaken(module):
            assert all(torch.equal(p, kept[name]) for name, p in module.named_parameters())
    assert torch.equal(before, after)
    assert float((during - before).abs().mean()) > 0.1
    with shaken(toys.stock("Llama")):
        pass


# Targets.


def test_all_linear_is_the_trunk_without_embeddings_and_heads(toys) -> None:
    names = find_targets(toys.stock("Llama"), "all-linear")
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    parts += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert names == sorted(f"model.layers.{i}.{part}" for i in range(2) for part in parts)


def test_one_layer_may_be_named_alone(toys) -> None:
    module = toys.stock("Llama")
    attach(module, LoRA(r=2, targets=("model.layers.1.self_attn.v_proj", "k_proj")), seed=0)
    assert sorted(layers_of(module)) == [
        "model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.k_proj", "model.layers.1.self_attn.v_proj",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("q_prj", "q_prj is no layer of LlamaForCausalLM; its linear layers: down_proj, gate_proj"),
        ("lm_head", "lm_head is an embedding or output head; log-probs are computed from its weight directly"),
        ("embed_tokens", "embed_tokens is an embedding or output head"),
        ("input_layernorm", "input_layernorm is no linear layer"),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_targets_that_cannot_be_adapted(target: str, said: str, tied: bool, toys) -> None:
    with pytest.raises(ValueError, match=said):
        attach(toys.stock("Llama", tie_word_embeddings=tied), LoRA(targets=("v_proj", target)), seed=0)


def test_a_second_adapter_is_refused(toys) -> None:
    module = toys.stock("Llama")
    attach(module, LoRA(r=2), seed=0)
    with pytest.raises(ValueError, match="has an adapter already; merge it first"):
        attach(module, LoRA(r=2), seed=0)


# Settings.


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"r": 0}, "r is 0; the rank must be at least 1"),
        ({"alpha": 0.0}, "alpha is 0.0; it must be positive"),
        ({"targets": ()}, "targets is empty"),
        ({"dropout": 0.05}, "dropout is 0.05; it must be 0, since log-probs of two forwards are compared"),
        ({"use_dora": True, "quantize": "nf4"}, "use_dora needs unquantised weights"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LoRA(**settings)


def test_four_bits_need_a_gpu() -> None:
    with pytest.raises(ValueError, match="quantize=nf4 needs a GPU .device is cpu.; set adapter.quantize=null"):
        require(LoRA(quantize="nf4"), "cpu")
    require(LoRA(), "cpu")


def test_without_peft_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "peft" or name.startswith("peft."):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r"not installed: pip install 'strop\[lora\]'"):
        require(LoRA(), "cpu")
    with pytest.raises(ValueError, match="pip install"):
        adapter.peft()
