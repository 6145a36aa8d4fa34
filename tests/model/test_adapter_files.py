"""Adapters in files: what peft and plain transformers read back is what was trained."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from strop.batch import Batch, step_totals, weighted_loss
from strop.data.encoded import EncodedGroup
from strop.data.pack import pack
from strop.model.adapter import LoRA, WithoutAdapter, attach, base_of, disabled, is_adapter, layers_of
from strop.model.adapter_files import folded, merge, restore, save_adapter
from strop.model.forward import forward
from strop.model.load import load, load_tokenizer, prepare
from strop.objectives import DPO
from strop.train.annotate import sequence_logprobs, spread

peft = pytest.importorskip("peft")

KINDS = {
    "LoRA": LoRA(r=4, alpha=8),
    "rsLoRA": LoRA(r=4, alpha=8, use_rslora=True),
    "DoRA": LoRA(r=4, alpha=8, use_dora=True),
    "two targets": LoRA(r=4, targets=("v_proj", "down_proj")),
}
IDS = torch.arange(24).remainder(11).add(3)[None]


def learned(module: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def scorer(toys) -> Any:
    config = transformers.LlamaConfig(**{**toys.SIZES, "num_labels": 1})
    torch.manual_seed(0)
    return transformers.LlamaForSequenceClassification(config)


@torch.no_grad()
def logits(module: Any) -> torch.Tensor:
    return module(input_ids=IDS).logits


@pytest.fixture
def base(tmp_path: Path, toys) -> Path:
    toys.stock("Llama", tie_word_embeddings=True).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def read(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_peft_loads_what_was_saved_and_computes_the_same(kind: str, base: Path, tmp_path: Path) -> None:
    module = read(base)
    attach(module, KINDS[kind], seed=0)
    learned(module)
    save_adapter(module, tmp_path / "adapter", str(base))
    other = peft.PeftModel.from_pretrained(read(base), tmp_path / "adapter")
    assert type(other).__name__ == "PeftModelForCausalLM"
    assert torch.equal(logits(other), logits(module))
    automatic = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(automatic), logits(module))
    assert is_adapter(str(tmp_path / "adapter")) and base_of(str(tmp_path / "adapter")) == str(base)
    assert not is_adapter(str(base)) and not is_adapter("a/hub-name")


def test_a_score_head_goes_with_the_adapter(toys, tmp_path: Path) -> None:
    module = scorer(toys)
    stock = copy.deepcopy(module)
    attach(module, LoRA(r=4), seed=0, heads=("score",))
    learned(module)
    save_adapter(module, tmp_path / "adapter", "base")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["modules_to_save"] == ["score"]
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(stock), tmp_path / "adapter")
    assert torch.equal(logits(wrapped), logits(module))
    again = copy.deepcopy(stock)
    restore(again, str(tmp_path / "adapter"), LoRA(r=4))
    assert torch.equal(logits(again), logits(module)) and again.score.weight.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_merged_it_is_a_plain_model_with_the_same_logits(kind: str, base: Path, tmp_path: Path, capsys) -> None:
    module = read(base)
    names = set(module.state_dict())
    attach(module, KINDS[kind], seed=0)
    learned(module)
    before = logits(module)
    difference = merge(module)
    assert difference <= 1e-5 * max(1.0, float(before.abs().max()))
    torch.testing.assert_close(logits(module), before, rtol=0, atol=1e-5 * float(before.abs().max()))
    assert set(module.state_dict()) == names and not layers_of(module)
    module.save_pretrained(tmp_path / "merged")
    assert set(load_file(tmp_path / "merged" / "model.safetensors")) == set(load_file(base / "model.safetensors"))
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert torch.equal(logits(read(tmp_path / "merged")), logits(module))
    attach(module, KINDS[kind], seed=0)  # nothing of the old adapter is in the way


def test_a_packed_model_is_merged_in_place_and_still_runs(base: Path, batch: Batch) -> None:
    module = read(base)
    attach(module, LoRA(r=4), seed=0)
    model = prepare(learned(module))
    with torch.no_grad():
        want = forward(model, batch).logprobs
        merge(module)
        torch.testing.assert_close(forward(model, batch).logprobs, want, rtol=0, atol=2e-5)
    assert model.path == "packed" and model.tail is not None


def test_bf16_weights_are_merged_in_fp32(base: Path) -> None:
    """In bf16 a small change of a weight would be rounded away."""
    module = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    attach(module, LoRA(r=4), seed=0)
    stock = {name: p.float() for name, p in module.named_parameters() if "base_layer" in name}
    with torch.no_grad():
        for layer in layers_of(module).values():
            layer.lora_B["default"].weight.fill_(1e-5)
            assert layer.lora_A["default"].weight.dtype == torch.float32
    deltas = {name: layer.get_delta_weight("default").detach() for name, layer in layers_of(module).items()}
    merge(module)
    assert module.dtype == torch.float32
    for name, delta in deltas.items():
        change = module.get_submodule(name).weight - stock[f"{name}.base_layer.weight"]
        torch.testing.assert_close(change, delta, rtol=0, atol=float(delta.abs().max()) / 20)


def test_a_fold_that_changes_numbers_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = read(base)
    attach(module, LoRA(r=4), seed=0)
    learned(module)
    monkeypatch.setattr(peft.tuners.lora.Linear, "get_delta_weight", lambda self, name: 0 * self.base_layer.weight)
    with pytest.raises(RuntimeError, match="folding the adapter into the model changed a logit by"):
        merge(module)


# Going on from a folder.


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_is_trained_on_or_folded_in(kind: str, base: Path, tmp_path: Path) -> None:
    module = read(base)
    attach(module, KINDS[kind], seed=0)
    learned(module)
    path = tmp_path / "adapter"
    save_adapter(module, path, str(base))
    again = read(base)
    restore(again, str(path), KINDS[kind])
    ours, theirs = dict(module.named_parameters()), dict(again.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) and ours[n].requires_grad == theirs[n].requires_grad for n in ours)
    plain = folded(read(base), str(path))
    assert type(plain).__name__ == "LlamaForCausalLM" and all(p.requires_grad for p in plain.parameters())
    torch.testing.assert_close(logits(plain), logits(module), rtol=0, atol=2e-5)
    plain.save_pretrained(tmp_path / "plain")
    assert torch.equal(logits(read(tmp_path / "plain")), logits(plain))


def test_dropout_of_a_foreign_adapter_is_off(base: Path, tmp_path: Path) -> None:
    wrapped = peft.get_peft_model(read(base), peft.LoraConfig(r=4, target_modules=["q_proj"], lora_dropout=0.5))
    wrapped.save_pretrained(tmp_path / "foreign")
    settings = tmp_path / "foreign" / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": str(base)}))
    module = read(base)
    restore(module, str(tmp_path / "foreign"), LoRA(r=4, alpha=8, targets=("q_proj",)))
    dropouts = [part for part in module.modules() if isinstance(part, torch.nn.Dropout)]
    assert layers_of(module) and not dropouts


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (LoRA(r=8), "made with r=4, the stage says 8; set adapter.r=4, or adapter=null to fold it in"),
        (LoRA(r=4, alpha=16), "made with alpha=32, the stage says 16; set adapter.alpha=32"),
        (LoRA(r=4, use_dora=True), "made with use_dora=False"),
        (LoRA(r=4, targets=("q_proj",)), "it adapts down_proj, gate_proj, k_proj.*; set adapter.targets to the same"),
    ],
)
def test_other_settings_than_the_adapters_are_refused(settings: LoRA, said: str, base: Path, tmp_path: Path) -> None:
    module = read(base)
    attach(module, LoRA(r=4), seed=0)
    save_adapter(module, tmp_path / "adapter", str(base))
    with pytest.raises(ValueError, match=said):
        restore(read(base), str(tmp_path / "adapter"), settings)


def spoil(folder: Path, how: str) -> None:
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    if how == "no weights":
        weights.unlink()
    elif how == "no safetensors":
        weights.write_bytes(b"not tensors")
    elif how == "no base":
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}))
    elif how == "another kind":
        config.write_text(json.dumps({**json.loads(config.read_text()), "peft_type": "IA3"}))
    elif how == "ranks by layer":
        config.write_text(json.dumps({**json.loads(config.read_text()), "rank_pattern": {"q_proj": 2}}))
    elif how == "a tensor short":
        save_file(dict(list(tensors.items())[1:]), weights)
    elif how == "one too many":
        save_file({**tensors, "base_model.model.model.norm.lora_A.weight": torch.zeros(4, 4)}, weights)
    elif how == "another model's head":
        save_file({**tensors, "base_model.model.score.weight": torch.zeros(1, 32)}, weights)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no weights", "adapter_model.safetensors cannot be read"),
        ("no safetensors", "adapter_model.safetensors cannot be read"),
        ("no base", "names no base model; write it under base_model_name_or_path"),
        ("another kind", "a IA3 adapter cannot be trained on here, only LORA"),
        ("ranks by layer", "its rank_pattern cannot be trained on here; set adapter=null to fold it in"),
        ("a tensor short", "its weights and its config do not belong together"),
        ("one too many", "its weights and its config do not belong together"),
        ("another model's head", r"it holds score.weight \[1, 32\], which does not fit the base model"),
    ],
)
def test_a_broken_folder_is_a_value_error_that_names_it(how: str, said: str, base: Path, tmp_path: Path) -> None:
    module = read(base)
    attach(module, LoRA(r=4), seed=0)
    folder = tmp_path / "adapter"
    save_adapter(module, folder, str(base))
    spoil(folder, how)
    with pytest.raises(ValueError, match=said) as caught:
        restore(read(base), str(folder), LoRA(r=4))
    assert str(folder) in str(caught.value)


def test_the_adapter_of_another_model_is_refused(base: Path, tmp_path: Path, toys) -> None:
    module = read(base)
    attach(module, LoRA(r=4), seed=0)
    save_adapter(module, tmp_path / "adapter", str(base))
    said = "the adapter does not fit its base model: size mismatch for .*q_proj.lora_A"
    with pytest.raises(ValueError, match=said):
        folded(toys.stock("Llama", hidden_size=64), str(tmp_path / "adapter"))
    with pytest.raises(ValueError, match=said):
        restore(toys.stock("Llama", hidden_size=64), str(tmp_path / "adapter"), LoRA(r=4))


# Loading.


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """The folder of an adapter that has learned something, four ranks on every layer."""
    module = read(base)
    attach(module, LoRA(r=4), seed=0)
    save_adapter(learned(module), tmp_path / "adapter", str(base))
    return tmp_path / "adapter"


def test_an_adapters_folder_loads_as_a_plain_model_unless_it_is_trained_on(
    adapter: Path, base: Path, batch: Batch
) -> None:
    whole = load(str(adapter), say=pytest.fail)
    beside = load(str(adapter), trainable=True, adapter=LoRA(r=4), say=pytest.fail)
    full = load(str(adapter), trainable=True, say=pytest.fail)
    start = load(str(base), say=pytest.fail)
    assert [len(layers_of(m.module)) for m in (whole, beside, full)] == [0, 14, 0]
    assert [m.path for m in (whole, beside, full)] == ["packed"] * 3
    assert all(p.requires_grad for p in full.module.parameters())
    with torch.no_grad():
        want = forward(whole, batch).logprobs
        for model in (beside, full):
            torch.testing.assert_close(forward(model, batch).logprobs, want, rtol=0, atol=3e-5)
        with disabled(beside.module):
            assert torch.equal(forward(beside, batch).logprobs, forward(start, batch).logprobs)
    assert float((want - forward(start, batch).logprobs).abs().max()) > 0.1


def test_precision_under_an_adapter(adapter: Path, base: Path) -> None:
    """Frozen weights need no fp32; what trains does, and a bf16 adapter is folded in before weights are rounded."""
    model = load(str(base), precision="bf16", trainable=True, adapter=LoRA(r=4), say=pytest.fail)
    kinds = {p.requires_grad: p.dtype for p in model.module.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    assert (model.autocast, model.precision_name) == (torch.bfloat16, "bf16")
    assert WithoutAdapter(model).precision_name == "bf16-weights"
    fp32 = load(str(base), trainable=True, adapter=LoRA(r=4), say=pytest.fail)
    assert (fp32.autocast, WithoutAdapter(fp32).precision_name) == (None, "fp32")
    read(base).to(torch.bfloat16).float().save_pretrained(base)  # what bf16 can hold, as most base models are
    whole, rounded = (load(str(adapter), precision=kind, say=pytest.fail).module for kind in ("fp32", "bf16"))
    ours, theirs = whole.state_dict(), rounded.state_dict()
    assert all(torch.equal(ours[name].bfloat16(), theirs[name]) for name in ours)


def test_a_quantised_reference_has_a_cache_of_its_own(base: Path) -> None:
    model = load(str(base), trainable=True, adapter=LoRA(r=4), say=pytest.fail)
    model.module.is_quantized = True
    assert WithoutAdapter(model).precision_name == "fp32-nf4"


def test_an_adapter_without_a_tokenizer_has_its_bases(adapter: Path, base: Path) -> None:
    from strop.world.tokenizer import write_tokenizer

    write_tokenizer(base)
    assert load_tokenizer(str(adapter)).get_vocab() == load_tokenizer(str(base)).get_vocab()


# The same training as peft's own.


def column(group: EncodedGroup, numbers: Sequence[Any]) -> EncodedGroup:
    """The group with these reference log-probs."""
    rows = zip(group.sequences, numbers, strict=True)
    kept = [replace(s, columns={"ref_logprobs": spread(s, group, row)}) for s, row in rows]
    return replace(group, sequences=tuple(kept))


def test_a_dpo_gradient_is_that_of_pefts_own_model(base: Path, tmp_path: Path, toys) -> None:
    """The same adapter in peft's wrapper, its DPO loss written out on stock log-probs: loss and every gradient."""
    module = read(base)
    attach(module, LoRA(r=4), seed=0)
    save_adapter(learned(module), tmp_path / "adapter", str(base))
    theirs = peft.PeftModel.from_pretrained(read(base), tmp_path / "adapter", is_trainable=True)
    groups = [g for g in toys.ragged(3, vocab=89) if g.prompt_ids]

    def total(prompt: tuple[int, ...], sequence: Any) -> torch.Tensor:
        ids = torch.tensor([[*prompt, *sequence.ids]])
        logprobs = theirs(input_ids=ids).logits[0].log_softmax(-1)
        places = [i + len(prompt) for i, trained in enumerate(sequence.trained) if trained]
        return logprobs[[i - 1 for i in places], ids[0, places]].sum()

    margins = []
    for group in groups:
        sums = torch.stack([total(group.prompt_ids, s) for s in group.sequences])
        with torch.no_grad(), theirs.disable_adapter():
            at_start = torch.stack([total(group.prompt_ids, s) for s in group.sequences])
        margins.append((sums - at_start)[0] - (sums - at_start)[1])
    want = -torch.nn.functional.logsigmoid(0.1 * torch.stack(margins)).mean()
    want.backward()

    model, objective = prepare(module), DPO(beta=0.1)
    with disabled(module):
        found = sequence_logprobs(model, groups, temperature=1.0, max_tokens=1 << 20, device="cpu")
    batch = pack([column(g, row) for g, row in zip(groups, found, strict=True)], max_tokens=1 << 20).batches[0]
    loss = weighted_loss(objective(forward(model, batch), batch), batch, objective.reductions,
                         step_totals(objective.reductions, [batch]))  # fmt: skip
    loss.backward()
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-6)
    other = dict(theirs.named_parameters())
    trained = {name: p for name, p in module.named_parameters() if p.grad is not None}
    assert trained.keys() == {n.removeprefix("base_model.model.") for n, p in other.items() if p.grad is not None}
    for name, parameter in trained.items():
        grad = other[f"base_model.model.{name}"].grad
        assert float((parameter.grad - grad).norm() / grad.norm()) < 1e-4, name
