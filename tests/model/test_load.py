"""Loading: the weights of a folder or of a seed, a choice of path that is right and said, and errors that help."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from strop.model import attention
from strop.model.forward import LanguageModel, forward
from strop.model.load import choose_device, choose_path, dtype, load, load_tokenizer, prepare


@pytest.fixture
def folder(tmp_path: Path, toys) -> Path:
    toys.stock("Llama").save_pretrained(tmp_path)
    return tmp_path


def weights(model: LanguageModel) -> dict[str, torch.Tensor]:
    return dict(model.module.state_dict())


def equal(a: LanguageModel, b: LanguageModel) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_weights_are_those_of_the_folder(folder: Path, toys) -> None:
    said: list[str] = []
    model = load(str(folder), say=said.append)
    assert said == [] and model.path == "packed" and model.precision_name == "fp32"
    stock = toys.stock("Llama").state_dict()
    assert all(torch.equal(tensor, stock[name]) for name, tensor in weights(model).items())


def test_without_weights_they_are_a_function_of_the_seed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    said: list[str] = []
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = load(str(folder), seed=5, say=said.append)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was touched"
    torch.manual_seed(7)
    again, other = load(str(folder), seed=5, say=said.append), load(str(folder), seed=6, say=said.append)
    assert equal(first, again) and not equal(first, other)
    assert said[0] == f"{folder} has a config and no weights: starting from random weights (seed 5)"


def test_precision(folder: Path) -> None:
    """A trained model keeps fp32 weights and computes in bf16; one that only scores has bf16 weights."""
    frozen = load(str(folder), precision="bf16", say=pytest.fail)
    trained = load(str(folder), precision="bf16", trainable=True, say=pytest.fail)
    assert (frozen.module.dtype, frozen.autocast, frozen.precision_name) == (torch.bfloat16, None, "bf16")
    assert (trained.module.dtype, trained.autocast, trained.precision_name) == (torch.float32, torch.bfloat16, "bf16")
    plain = load(str(folder), precision="auto", trainable=True, say=pytest.fail)
    assert (plain.module.dtype, plain.autocast) == (torch.float32, None)
    assert dtype("cpu", "auto") == torch.float32 and dtype("cpu", "bf16") == torch.bfloat16


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch sees no GPU; use device=cpu or device=auto"):
            choose_device("cuda:0")


def spoil(folder: Path, how: str) -> None:
    """Break a model's folder in one of the ways folders break."""
    config = json.loads((folder / "config.json").read_text())
    file = folder / "model.safetensors"
    if how == "empty folder":
        file.unlink()
        (folder / "config.json").unlink()
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "no json":
        (folder / "config.json").write_text("{")
    elif how == "unknown family":
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch"}))
    elif how == "no family":
        (folder / "config.json").write_text("{}")
    elif how == "cut off":
        file.write_bytes(file.read_bytes()[:-1000])
    elif how == "no safetensors":
        file.write_bytes(b"not tensors")
    elif how == "other sizes":
        (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    elif how == "weights missing":
        tensors = load_file(file)
        del tensors["lm_head.weight"]
        save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "how",
    [
        "empty folder", "no config", "no json", "unknown family", "no family", "cut off", "no safetensors",
        "other sizes", "weights missing",
    ],
)  # fmt: skip
def test_a_broken_folder_is_a_value_error_that_names_it(how: str, folder: Path) -> None:
    spoil(folder, how)
    with pytest.raises(ValueError, match="cannot load a causal language model from") as caught:
        load(str(folder), say=lambda text: None)
    assert str(folder) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    if how == "other sizes":
        assert "lm_head.weight: [89, 32] in the file, [89, 64] by the config" in str(caught.value)
    if how == "weights missing":
        assert "no lm_head.weight in the files" in str(caught.value)


def test_tied_embeddings_are_not_missing(tmp_path: Path, toys) -> None:
    toys.stock("Llama", tie_word_embeddings=True).save_pretrained(tmp_path)
    model = load(str(tmp_path), say=pytest.fail)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert model.module.get_output_embeddings().weight is model.module.get_input_embeddings().weight


@pytest.mark.parametrize("name", ["no/such/folder", "nonesuch-model"])
def test_a_name_that_is_nothing_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"cannot load a causal language model from '{name}'"):
        load(name)
    with pytest.raises(ValueError, match=f"cannot load a tokenizer from '{name}'"):
        load_tokenizer(name)


def test_a_folder_without_a_tokenizer_is_a_value_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="cannot load a tokenizer from .* Save the tokenizer in the model's folder"):
        load_tokenizer(str(folder))


# The choice of a path.


def test_a_scale_a_bias_and_a_soft_cap_are_each_found(toys) -> None:
    heads: dict[str, tuple[str, dict[str, Any], bool]] = {
        "plain": ("Gemma2", {"final_logit_softcapping": None, "attn_logit_softcapping": None}, True),
        "soft cap of 30": ("Gemma2", {"final_logit_softcapping": 30.0, "attn_logit_softcapping": None}, False),
        "scaled down": ("Granite", {"logits_scaling": 8.0}, False),
        "unscaled": ("Granite", {"logits_scaling": 1.0}, True),
        "scaled": ("Cohere", {"logit_scale": 0.0625}, False),
    }
    for name, (kind, settings, plain) in heads.items():
        model = choose_path(toys.stock(kind, **settings).eval())
        assert model.plain_head == plain, name
        assert bool(model.why) != plain, name
    biased = toys.stock("Phi", intermediate_size=48)
    with torch.no_grad():
        biased.lm_head.bias.fill_(0.5)
    assert not choose_path(biased.eval()).plain_head


def test_small_weights_hide_nothing(toys) -> None:
    """With almost flat logits both paths give the same numbers; a family without the hook is padded all the same."""
    for kind, settings in {"Falcon": {"ffn_hidden_size": 48}, "Bloom": {}}.items():
        model = choose_path(toys.stock(kind, initializer_range=1e-3, **settings).eval())
        assert model.path == "padded" and "does not take its attention from transformers' interface" in model.why


def test_a_model_that_passes_its_backbone_by_still_loads(toys) -> None:
    """OPT calls its decoder, not its backbone: our head cannot be used, its own can."""
    stock = toys.stock("OPT", ffn_dim=48, word_embed_proj_dim=32, init_std=0.2, dropout=0.5).eval()
    model = prepare(copy.deepcopy(stock), say=lambda text: None)
    assert (model.path, model.plain_head) == ("padded", False)
    batch = toys.one_batch(toys.ragged(0, vocab=80))
    with torch.no_grad():
        assert torch.equal(forward(model, batch).logprobs, forward(model, batch).logprobs)
        want = forward(LanguageModel(stock, path="padded", plain_head=False), batch).logprobs
        torch.testing.assert_close(forward(model, batch).logprobs, want, rtol=0, atol=1e-5)


def test_packed_numbers_that_differ_send_the_model_to_the_padded_path(toys, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a family would whose layers add something the plan does not know."""
    import transformers

    wrong = lambda *a, **k: (attention.attend(*a, **k)[0] * 1.5, None)  # noqa: E731
    transformers.AttentionInterface.register(attention.NAME, wrong)
    try:
        said: list[str] = []
        model = prepare(toys.stock("Llama"), say=said.append)
    finally:
        transformers.AttentionInterface.register(attention.NAME, attention.attend)
    assert model.path == "padded" and "packed and padded log-probs differ" in said[0]
    assert model.module.config._attn_implementation != attention.NAME


def test_the_probe_leaves_no_trace(toys) -> None:
    stock = toys.stock("Qwen3")
    before = copy.deepcopy(stock.state_dict())
    rng = torch.random.get_rng_state()
    model = prepare(stock, say=pytest.fail)
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert all(torch.equal(t, before[name]) for name, t in model.module.state_dict().items())
    assert all(p.grad is None for p in model.module.parameters())
    assert not stock.base_model._forward_hooks
