"""Averages of weights: exact means, what does not fit is refused, and stock transformers loads the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from strop.model import average as averaging
from strop.model.average import average
from strop.model.head import load_scalar


@pytest.fixture
def models(tmp_path: Path, toys) -> list[Path]:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for seed, folder in enumerate(folders):
        toys.stock("Llama", seed=seed).save_pretrained(folder)
        (folder / "tokenizer.json").write_text('{"the": "same"}')
    return folders


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def change(folder: Path, name: str, value: torch.Tensor | None) -> None:
    held = tensors(folder)
    held.pop(name)
    save_file(
        {**held, **({} if value is None else {name: value})}, folder / "model.safetensors", metadata={"format": "pt"}
    )


def test_the_mean_of_each_weight(models, tmp_path: Path) -> None:
    average(models, tmp_path / "out")
    sides = [tensors(folder) for folder in models]
    for name, got in tensors(tmp_path / "out").items():
        want = (sides[0][name].double() + sides[1][name].double() + sides[2][name].double()) / 3
        torch.testing.assert_close(got.double(), want, rtol=1e-7, atol=1e-9)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(stock.state_dict()["lm_head.weight"], tensors(tmp_path / "out")["lm_head.weight"])
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"the": "same"}'


@pytest.mark.parametrize("weights", [None, [1.0], [5.0]])
def test_of_one_model_it_is_that_model(weights, models, tmp_path: Path) -> None:
    average(models[:1], tmp_path / "out", weights)
    ours, theirs = tensors(tmp_path / "out"), tensors(models[0])
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_of_identical_models_it_is_that_model_to_the_bit(copies: int, models, tmp_path: Path) -> None:
    average([models[1]] * copies, tmp_path / "out")
    ours, theirs = tensors(tmp_path / "out"), tensors(models[1])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_are_shares(models, tmp_path: Path) -> None:
    average(models[:2], tmp_path / "out", [3.0, 1.0])
    a, b = tensors(models[0]), tensors(models[1])
    for name, got in tensors(tmp_path / "out").items():
        torch.testing.assert_close(got, 0.75 * a[name] + 0.25 * b[name], rtol=1e-6, atol=1e-8)
    average(models[:2], tmp_path / "none", [1.0, 0.0])
    assert all(torch.equal(t, a[name]) for name, t in tensors(tmp_path / "none").items())


def test_bf16_models_are_averaged_in_fp32(models, tmp_path: Path, toys) -> None:
    """0.1 and 0.3 in bf16: their mean stands between two bf16 numbers."""
    for folder, seed in zip(models, (0, 1), strict=False):
        toys.stock("Llama", seed=seed).to(torch.bfloat16).save_pretrained(folder)
    average(models[:2], tmp_path / "out")
    a, b = tensors(models[0]), tensors(models[1])
    out = tensors(tmp_path / "out")
    for name, got in out.items():
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, (a[name].float() + b[name].float()) / 2, rtol=1e-7, atol=0)
    assert any(not torch.equal(t, t.bfloat16().float()) for t in out.values())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


def test_large_models_are_written_in_several_files(models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    average(models, tmp_path / "one")
    monkeypatch.setattr(averaging, "SHARD_BYTES", 20_000)
    average(models, tmp_path / "many")
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 2 and not (tmp_path / "many" / "model.safetensors").exists()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "many").state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "one").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    average([tmp_path / "many"], tmp_path / "again")  # files in parts are read, too


def test_reward_models_average_with_their_heads(models, tmp_path: Path) -> None:
    """WARM: two heads on one trunk; the average scores the mean, and figures fitted to one member stay behind."""
    folders = []
    for seed in (1, 2):
        model = load_scalar(str(models[0]), reads="last", seed=seed, say=pytest.fail)
        folders.append(tmp_path / f"rm{seed}")
        model.module.save_pretrained(folders[-1])
        (folders[-1] / "reward.json").write_text("{}")
    average(folders, tmp_path / "warm")
    ids = torch.tensor([[3, 4, 5]])
    scores = [
        AutoModelForSequenceClassification.from_pretrained(f)(ids).logits.item() for f in (*folders, tmp_path / "warm")
    ]
    assert scores[2] == pytest.approx((scores[0] + scores[1]) / 2, abs=1e-5)
    assert not (tmp_path / "warm" / "reward.json").exists()


def test_what_does_not_fit_is_refused(models, tmp_path: Path) -> None:
    first, second, third = models
    change(second, "model.norm.weight", torch.ones(16))
    with pytest.raises(ValueError, match=r"b' cannot be averaged with .*a': model.norm.weight is \[16\], not \[32\]"):
        average(models, tmp_path / "out")
    change(second, "model.norm.weight", None)
    with pytest.raises(ValueError, match="model.norm.weight is missing, not "):
        average(models, tmp_path / "out")
    (third / "tokenizer.json").write_text('{"an": "other"}')
    with pytest.raises(ValueError, match=r"their tokenizer.json differ, so their token ids mean different texts"):
        average([first, third], tmp_path / "out")
    config = json.loads((third / "config.json").read_text())
    (third / "config.json").write_text(json.dumps({**config, "model_type": "qwen3"}))
    with pytest.raises(ValueError, match="model_type is qwen3, not llama"):
        average([first, third], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_whole_numbers_must_agree(models, tmp_path: Path) -> None:
    for folder, value in zip(models[:2], (1, 2), strict=True):
        save_file(
            {**tensors(folder), "ids": torch.tensor([value])}, folder / "model.safetensors", metadata={"format": "pt"}
        )
    with pytest.raises(ValueError, match=r"b': ids holds torch.int64 that differ; they have no mean"):
        average(models[:2], tmp_path / "out")


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0], "1 weights for 3 models"), ([1.0, -1.0, 2.0], "not negative"), ([0.0] * 3, "not all 0")],
)
def test_weights_that_make_no_sense(weights, message: str, models, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        average(models, tmp_path / "out", weights)


def test_no_model_and_no_weights(models, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no models to average"):
        average([], tmp_path / "out")
    (models[1] / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no \*.safetensors in .*b'"):
        average(models, tmp_path / "out")
    with pytest.raises(ValueError, match="cannot read the model in .*nowhere"):
        average([tmp_path / "nowhere"], tmp_path / "out")
