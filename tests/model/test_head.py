"""Scalar models: our score is stock transformers' own, alone or in company, packed or padded; so are the heads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from strop.batch import Batch
from strop.data.encoded import EncodedGroup
from strop.data.pack import pack
from strop.model.head import ScalarModel, load_scalar, score_head
from strop.model.load import load

KINDS: dict[str, dict[str, Any]] = {
    "Llama": {}, "Qwen2": {}, "Qwen3": {}, "Mistral": {"sliding_window": 6}, "Gemma": {"head_dim": 8},
    "Falcon": {"ffn_hidden_size": 48}, "GPT2": {}, "GPTNeoX": {},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, toys) -> Path:
    toys.stock("Llama").save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


def language_model(kind: str, folder: Path, toys: Any, **settings: Any) -> Path:
    """A folder with a tiny causal language model of a family."""
    if kind == "GPT2":
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(vocab_size=89, n_embd=32, n_inner=48, n_layer=2, n_head=4, n_positions=256,
                            initializer_range=0.2, bos_token_id=1, eos_token_id=2, pad_token_id=0)  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            GPT2LMHeadModel(config).save_pretrained(folder)
    else:
        toys.stock(kind, **settings).save_pretrained(folder)
    return folder


def whole(groups: Sequence[EncodedGroup]) -> Batch:
    (batch,) = pack(groups, max_tokens=1 << 30, read_last=True).batches
    return batch


def texts(groups: Sequence[EncodedGroup]) -> list[tuple[int, ...]]:
    return [g.prompt_ids + s.ids for g in groups for s in g.sequences]


def stock_scores(path: Path, rows: Sequence[tuple[int, ...]], extra: int = 0) -> Tensor:
    """The logits of stock transformers on a right-padded batch of all rows."""
    module = AutoModelForSequenceClassification.from_pretrained(path).eval()
    longest = max(map(len, rows)) + extra
    pad = module.config.pad_token_id
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        return module(input_ids=ids, attention_mask=mask).logits


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_stock_classifier(kind: str, tmp_path: Path, toys, groups) -> None:
    """Loaded back by its Auto class, on a right-padded batch, with more padding, and alone: to 1e-4."""
    language_model(kind, tmp_path / "lm", toys, **KINDS[kind])
    model = load_scalar(str(tmp_path / "lm"), reads="last", say=lambda text: None)
    assert model.path == ("padded" if kind == "Falcon" else "packed")
    model.module.save_pretrained(tmp_path / "rm")
    with torch.no_grad():
        got = model(whole(groups)).scores
    assert got is not None and got.dtype == torch.float32 and float(got.std()) > 0.1
    for extra in (0, 9):
        torch.testing.assert_close(stock_scores(tmp_path / "rm", texts(groups), extra)[:, 0], got, rtol=0, atol=1e-4)
    alone = torch.cat([stock_scores(tmp_path / "rm", [row])[:, 0] for row in texts(groups)])
    torch.testing.assert_close(alone, got, rtol=0, atol=1e-4)


@pytest.mark.parametrize("path", ["packed", "padded"])
def test_a_score_does_not_depend_on_its_company(path: Any, folder: Path, toys, groups) -> None:
    model = load_scalar(str(folder), reads="last", say=pytest.fail)
    if path == "padded":
        model.module.set_attn_implementation("eager")
        model = ScalarModel(model.module, path="padded")
    with torch.no_grad():
        together = model(whole(groups)).scores
        apart = [model(whole([g])).scores for g in groups]
        single = [model(whole([EncodedGroup(g.prompt_ids, (s,))])).scores for g in groups for s in g.sequences]
    assert together is not None
    torch.testing.assert_close(torch.cat(apart), together, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.cat(single), together, rtol=0, atol=1e-4)


@pytest.mark.parametrize("reads", ["token", "before"])
def test_values_are_those_of_the_stock_token_classifier(reads: Any, folder: Path, groups) -> None:
    """`token` at each trained token, `before` one to the left of it."""
    model = load_scalar(str(folder), reads=reads, say=pytest.fail)
    model.module.save_pretrained(folder / "prm")
    stock = AutoModelForTokenClassification.from_pretrained(folder / "prm").eval()
    want = []
    with torch.no_grad():
        got = model(whole(groups)).values
        for group in groups:
            for sequence in group.sequences:
                logits = stock(input_ids=torch.tensor([group.prompt_ids + sequence.ids])).logits[0, :, 0]
                at = [len(group.prompt_ids) + i for i, trained in enumerate(sequence.trained) if trained]
                at = [i for i in at if i > 0]
                want.append(logits[[i - (reads == "before") for i in at]])
    assert got is not None
    torch.testing.assert_close(got, torch.cat(want), rtol=0, atol=1e-4)


def test_a_critic_needs_no_last_token(folder: Path, groups) -> None:
    """The state before each trained token is an input in packs for log-probs, too; a token's own state is not."""
    (short,) = pack(groups, max_tokens=1 << 30).batches
    critic = load_scalar(str(folder), reads="before", say=pytest.fail)
    with torch.no_grad():
        torch.testing.assert_close(critic(short).values, critic(whole(groups)).values, rtol=0, atol=1e-5)
    with pytest.raises(AssertionError, match="packs made with read_last"):
        load_scalar(str(folder), reads="token", say=pytest.fail)(short)


def test_gradients_are_those_of_the_stock_classifier(folder: Path, groups, gradients_of, agree) -> None:
    model = load_scalar(str(folder), reads="last", trainable=True, say=pytest.fail)
    model.module.save_pretrained(folder / "rm")
    stock = AutoModelForSequenceClassification.from_pretrained(folder / "rm").eval()
    scores = model(whole(groups)).scores
    assert scores is not None
    alone = torch.cat([stock(input_ids=torch.tensor([row])).logits[:, 0] for row in texts(groups)])
    agree(gradients_of(model.module, scores), gradients_of(stock, alone), 1e-4)


def test_checkpointing_gives_the_same_gradients(folder: Path, groups, gradients_of, agree) -> None:
    plain = load_scalar(str(folder), reads="last", trainable=True, say=pytest.fail)
    frugal = load_scalar(str(folder), reads="last", trainable=True, gradient_checkpointing=True, say=pytest.fail)
    assert frugal.tail is None
    batch = whole(groups)
    agree(gradients_of(frugal.module, frugal(batch).scores), gradients_of(plain.module, plain(batch).scores), 1e-5)


# Heads and weights.


def test_a_fresh_head_is_small_and_a_function_of_the_seed(folder: Path) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (load_scalar(str(folder), reads="last", seed=s, say=pytest.fail) for s in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was touched"
    heads = [score_head(m.module).weight for m in (first, again, other)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    zero = score_head(load_scalar(str(folder), reads="token", init="zero", say=pytest.fail).module)
    assert not bool(zero.weight.any()) and not bool(zero.bias.any())


def test_the_spread_of_a_fresh_head(tmp_path: Path, toys) -> None:
    """Standard deviation 1/sqrt(d + 1), over a wide head: within five standard errors."""
    toys.stock("Llama", hidden_size=1024, num_hidden_layers=1, intermediate_size=8).save_pretrained(tmp_path)
    weight = score_head(load_scalar(str(tmp_path), reads="token", say=pytest.fail).module).weight.detach()
    assert float(weight.std()) == pytest.approx(1025**-0.5, rel=5 / (2 * 1024) ** 0.5)


def test_the_trunk_is_the_language_models(folder: Path) -> None:
    model, lm = load_scalar(str(folder), reads="last", say=pytest.fail), load(str(folder), say=pytest.fail)
    trunk, want = model.module.base_model.state_dict(), lm.module.base_model.state_dict()
    assert trunk.keys() == want.keys() and all(torch.equal(trunk[name], want[name]) for name in want)


def test_what_is_saved_says_what_it_is(folder: Path) -> None:
    load_scalar(str(folder), reads="last", say=pytest.fail).module.save_pretrained(folder / "rm")
    config = json.loads((folder / "rm" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["id2label"] == {"0": "score"} and config["label2id"] == {"score": 0}
    assert config["problem_type"] == "regression" and config["pad_token_id"] == 0
    again = load_scalar(str(folder / "rm"), reads="last", seed=99, say=pytest.fail)
    assert torch.equal(score_head(again.module).weight, load_file(folder / "rm" / "model.safetensors")["score.weight"])


def test_two_labels_are_subtracted(folder: Path, groups) -> None:
    stock = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    stock.save_pretrained(folder / "two")
    model = load_scalar(str(folder / "two"), reads="last", say=pytest.fail)
    logits = stock_scores(folder / "two", texts(groups))
    with torch.no_grad():
        torch.testing.assert_close(model(whole(groups)).scores, logits[:, 1] - logits[:, 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])
def test_a_reward_model_becomes_a_critic(kind: str, tmp_path: Path, toys, groups) -> None:
    """Trunk and head move over, also where the two classifiers call their heads by other names (GPT-2)."""
    language_model(kind, tmp_path / "lm", toys)
    rm = load_scalar(str(tmp_path / "lm"), reads="last", say=lambda text: None)
    rm.module.save_pretrained(tmp_path / "rm")
    critic = load_scalar(str(tmp_path / "rm"), reads="token", say=pytest.fail)
    with torch.no_grad():
        batch = whole(groups)
        values, scores = critic(batch).values, rm(batch).scores
    assert values is not None and scores is not None
    ends = torch.cat([torch.nonzero(batch.seq == s)[-1] for s in range(batch.num_sequences)])
    torch.testing.assert_close(values[ends], scores, rtol=0, atol=1e-4)
    critic.module.save_pretrained(tmp_path / "critic")
    stock = AutoModelForTokenClassification.from_pretrained(tmp_path / "critic").eval()
    row = texts(groups)[0]
    with torch.no_grad():
        alone = stock(input_ids=torch.tensor([row])).logits[0, -1, 0]
    assert float(alone) == pytest.approx(float(scores[0]), abs=1e-4)


# Padding.


@pytest.mark.parametrize("pad", [None, 2])
def test_a_pad_token_that_ends_answers_is_replaced(pad: int | None, tmp_path: Path, toys, groups) -> None:
    """With padding = EOS stock transformers would read the token before the end."""
    toys.stock("Llama", pad_token_id=pad).save_pretrained(tmp_path / "lm")
    said: list[str] = []
    model = load_scalar(str(tmp_path / "lm"), reads="last", say=said.append)
    assert model.module.config.pad_token_id == 1 and "padding with 1" in said[0]
    ending = [
        EncodedGroup(g.prompt_ids, tuple(type(s)((*s.ids, 2), (*s.trained, True)) for s in g.sequences)) for g in groups
    ]
    model.module.save_pretrained(tmp_path / "rm")
    with torch.no_grad():
        got = model(whole(ending)).scores
    torch.testing.assert_close(stock_scores(tmp_path / "rm", texts(ending))[:, 0], got, rtol=0, atol=1e-4)
    told = load_scalar(str(tmp_path / "lm"), reads="last", pad_token_id=7, say=pytest.fail)
    assert told.module.config.pad_token_id == 7


# What cannot be loaded.


def test_missing_weights_are_an_error(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"cannot load a reward model from .*: no model.norm.weight in the files"):
        load_scalar(str(folder), reads="last")


def test_a_classifier_without_its_head_is_an_error(folder: Path) -> None:
    load_scalar(str(folder), reads="last", say=pytest.fail).module.save_pretrained(folder / "rm")
    file = folder / "rm" / "model.safetensors"
    tensors = load_file(file)
    del tensors["score.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="no score.weight in the files"):
        load_scalar(str(folder / "rm"), reads="last")


def test_many_labels_are_an_error(folder: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5).save_pretrained(folder / "five")
    with pytest.raises(ValueError, match="it has 5 labels; a score is one, or two whose logits are subtracted"):
        load_scalar(str(folder / "five"), reads="last")


def test_an_encoder_cannot_be_trained_here(tmp_path: Path) -> None:
    """BERT reads its first token through a pooler; its own logits are not our scores."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=89, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_labels=1
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cannot load a reward model from .*does not read its last hidden state"):
        load_scalar(str(tmp_path), reads="last", say=lambda text: None)


def test_random_weights_of_a_config_alone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    said: list[str] = []
    first = load_scalar(str(folder), reads="last", seed=5, say=said.append)
    again = load_scalar(str(folder), reads="last", seed=5, say=said.append)
    assert said[0] == f"{folder} has a config and no weights: starting from random weights (seed 5)"
    ours, theirs = first.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_precision(folder: Path) -> None:
    frozen = load_scalar(str(folder), reads="last", precision="bf16", say=pytest.fail)
    trained = load_scalar(str(folder), reads="last", precision="bf16", trainable=True, say=pytest.fail)
    assert (frozen.module.dtype, frozen.autocast, frozen.precision_name) == (torch.bfloat16, None, "bf16")
    assert (trained.module.dtype, trained.autocast, trained.precision_name) == (torch.float32, torch.bfloat16, "bf16")


# Adapters.


@pytest.mark.parametrize("reads", ["last", "before"])
def test_an_adapter_trains_beside_a_frozen_trunk_and_the_head_in_full(reads: Any, folder: Path, groups) -> None:
    """A fresh adapter changes no score; its matrices and the head are what has a gradient."""
    pytest.importorskip("peft")
    from strop.model.adapter import LoRA

    plain = load_scalar(str(folder), reads=reads, trainable=True, say=pytest.fail)
    thin = load_scalar(str(folder), reads=reads, trainable=True, adapter=LoRA(r=4), say=pytest.fail)
    assert thin.path == "packed"
    batch = whole(groups)
    number = "scores" if reads == "last" else "values"
    ours, theirs = getattr(thin(batch), number), getattr(plain(batch), number)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    trained = {name for name, p in thin.module.named_parameters() if p.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {n for n in trained if n.startswith("score.")} != set()
    ours.square().sum().backward()
    parameters = dict(thin.module.named_parameters())
    assert parameters["score.weight"].grad is not None and float(parameters["score.weight"].grad.norm()) > 0
