"""The lean decode step: what it is used for, what it must agree with, and when the modules run."""

import math
from dataclasses import replace

import pytest
import torch
import transformers as tf
from tests.rollout.conftest import CONFIGS, PROMPTS, build, ids, run, worst_error

from strop.model.adapter import LoRA, attach, disabled, layers_of
from strop.rollout import lean


def through_modules(model, monkeypatch, **changes):
    with monkeypatch.context() as patch:
        patch.setattr(lean, "recognise", lambda module, num_positions: None)
        return run(model, **changes)


def verdicts(model):
    """What the comparisons of this model said: whether the lean step is used, by dtype."""
    return {kind[0]: asked is not None for kind, asked in lean._agreed.get(model, {}).items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_each_family_samples_as_through_its_modules(name, monkeypatch):
    model = build(name)
    groups, plain = run(model), through_modules(model, monkeypatch)
    assert ids(groups) == ids(plain)
    for group, other in zip(groups, plain, strict=True):
        for s, t in zip(group, other, strict=True):
            assert max(abs(a - b) for a, b in zip(s.logprobs, t.logprobs, strict=True)) < 1e-5
    assert verdicts(model) == ({} if name == "gemma3" else {torch.float32: True})


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ],
)
def test_rotary_embeddings_are_the_models_own(rope):
    model = build("llama", rope_parameters={"rope_theta": 10000.0, **rope})
    assert worst_error(model, PROMPTS, run(model, max_new_tokens=80)) < 1e-5
    assert verdicts(model) == {torch.float32: True}


def test_frequencies_that_change_with_the_length_are_left_to_the_modules():
    model = build("llama", rope_parameters={"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 2.0})
    run(model, max_new_tokens=4)
    assert verdicts(model) == {}


@pytest.mark.parametrize("changes", [{"attention_bias": True, "mlp_bias": True}, {"hidden_act": "gelu"}])
def test_biases_and_other_activations(changes):
    model = build("llama", **changes)
    assert worst_error(model, PROMPTS, run(model, max_new_tokens=8)) < 1e-5
    assert verdicts(model) == {torch.float32: True}


def test_the_comparison_is_made_once_and_the_weights_are_read_anew(monkeypatch):
    model = build("qwen3")
    before = run(model)
    monkeypatch.setattr(lean, "_compare", None)  # not called again
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    groups = run(model)
    assert ids(groups) != ids(before)
    assert worst_error(model, PROMPTS, groups) < 1e-5


def test_a_step_that_differs_is_not_used(monkeypatch, caplog):
    model = build("llama")
    attention = lean.Lean._attention
    monkeypatch.setattr(lean.Lean, "_attention", lambda *arguments: 1.01 * attention(*arguments))
    groups = run(model, max_new_tokens=8)
    assert "LlamaForCausalLM: the lean decode step is off by" in caplog.text
    assert verdicts(model) == {torch.float32: False}
    assert worst_error(model, PROMPTS, groups) < 1e-5


def test_a_soft_cap_of_logits_far_above_them_is_noticed(monkeypatch, caplog):
    model, plain = build("llama"), tf.LlamaForCausalLM.forward

    def capped(self, *args, **kwargs):
        out = plain(self, *args, **kwargs)
        out.logits = 30 * torch.tanh(out.logits / 30)
        return out

    monkeypatch.setattr(tf.LlamaForCausalLM, "forward", capped)
    run(model, max_new_tokens=4)
    assert verdicts(model) == {torch.float32: False} and "off by" in caplog.text


class Adapter(torch.nn.Module):
    """A linear layer and something on top, as adapters are put in."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return self.base(x) + 0.5 * x.mean(-1, keepdim=True)


def test_adapters_hooks_and_other_forwards_are_left_to_the_modules():
    models = [build("qwen2") for _ in range(3)]
    models[0].model.layers[1].self_attn.q_proj = Adapter(models[0].model.layers[1].self_attn.q_proj)
    models[1].model.layers[0].mlp.register_forward_hook(lambda module, args, out: out * 0.5)
    norm = models[2].model.norm
    norm.forward = lambda x: 2 * type(norm).forward(norm, x)
    for model in models:
        assert lean.recognise(model, 64) is None
        assert worst_error(model, PROMPTS, run(model, max_new_tokens=8)) < 1e-5


def test_logits_that_are_not_finite_say_nothing_about_the_step():
    model = build("qwen3")
    weight = model.model.norm.weight
    kept = weight.detach().clone()
    weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="not finite"):
        run(model)
    weight.data.copy_(kept)
    run(model, max_new_tokens=2)
    assert verdicts(model) == {torch.float32: True}


@pytest.mark.parametrize("mixed", [True, False])
def test_bf16_and_autocast(mixed):
    model = build("qwen3", torch.float32 if mixed else torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        groups = run(model)
        assert worst_error(model, PROMPTS, groups) < 0.1
    assert verdicts(model) == {torch.bfloat16: True}


# Under an adapter.


def under_adapter(name, dtype=torch.float32, **settings):
    """A model whose adapter adds about as much as its weights give, and whose paths were compared when it was fresh."""
    pytest.importorskip("peft")
    model = build(name, dtype)
    attach(model, LoRA(r=4, alpha=8, **settings), seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        run(model, max_new_tokens=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in layers_of(model).values():
            layer.lora_B["default"].weight.normal_(std=0.2, generator=generator)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_a_learned_adapter_is_in_the_lean_step(name, monkeypatch):
    model = under_adapter(name)
    groups, plain = run(model), through_modules(model, monkeypatch)
    assert ids(groups) == ids(plain)
    assert worst_error(model, PROMPTS, groups) < 2e-5
    assert verdicts(model) == ({} if name == "gemma3" else {torch.float32: True})
    with disabled(model):
        base = run(model)
        assert worst_error(model, PROMPTS, base) < 2e-5
    assert ids(base) != ids(groups) and ids(run(model)) == ids(groups)


def test_an_adapter_of_some_layers_with_biases_in_bf16(monkeypatch):
    model = under_adapter("qwen2", torch.bfloat16, targets=("q_proj", "down_proj"), use_rslora=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert worst_error(model, PROMPTS, run(model)) < 0.1
    assert verdicts(model) == {torch.bfloat16: True}


def test_dora_is_left_to_the_modules():
    model = under_adapter("llama", use_dora=True)
    assert lean.recognise(model, 64) is None and verdicts(model) == {}
    assert worst_error(model, PROMPTS, run(model)) < 2e-5


def test_a_wrong_scale_of_a_fresh_adapter_is_noticed(monkeypatch, caplog):
    """B is still 0, but it is not while the steps are compared."""
    model = build("llama")
    attach(model, LoRA(r=4, alpha=8), seed=0)
    linear = lean._linear
    monkeypatch.setattr(lean, "_linear", lambda module, dtype: scaled(linear(module, dtype)))
    run(model, max_new_tokens=2)
    assert verdicts(model) == {torch.float32: False} and "off by" in caplog.text


def scaled(layer):
    return replace(layer, up=1.1 * layer.up) if isinstance(layer, lean.Adapted) else layer


@pytest.mark.parametrize("rows", range(1, 8))
@pytest.mark.parametrize("width", [3, 9, 17])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_gives_the_same_for_few_rows_and_many(rows, width, bias, monkeypatch):
    monkeypatch.setattr(lean, "BLOCK", 2)  # 17 columns are more than 8 blocks, the last of them short
    monkeypatch.setattr(lean, "SOME", 6)
    generator = torch.Generator().manual_seed(rows)
    layer = lean.Linear(torch.randn(width, 4, generator=generator).t(), torch.arange(float(width)) if bias else None)
    x = torch.randn(rows, 4, generator=generator)
    want = x.double() @ layer.weight.double() + (layer.bias.double() if bias else 0)
    out = torch.empty(rows, width)
    layer(x, out=out)
    for got in (layer(x), out):
        torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-6)
