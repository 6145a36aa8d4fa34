"""The written world: bitwise the same again, and what transformers makes of it."""

import hashlib
import json
import subprocess
import sys

import pytest

from strop.world import tokenizer as tok
from strop.world.model import weights
from strop.world.write import SIZES, resolve, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 0)
    return folder


@pytest.fixture(scope="module")
def tokenizer(world):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(world / "base")


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_another_process_writes_the_same_bytes_without_torch(world, tmp_path):
    code = (
        "import sys; from pathlib import Path; from strop.world import write_world\n"
        "write_world(Path(sys.argv[1]), 0)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=None)
    assert digests(tmp_path) == digests(world)
    assert set(digests(world)) == {f"{name}.jsonl" for name in SIZES} | {"world.json"} | {
        f"{model}/{name}"
        for model in ("base", "small")
        for name in (
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        )
    }


def test_files_have_the_rows_they_say(world):
    assert {name: len(read(world / f"{name}.jsonl")) for name in SIZES} == dict(SIZES)


def test_resolve_writes_once_and_again_for_another_seed(tmp_path):
    assert resolve("data/mine.jsonl", tmp_path, 0) == "data/mine.jsonl"
    assert not list(tmp_path.iterdir())
    assert resolve("world:sft", tmp_path, 0) == str(tmp_path / "sft.jsonl")
    written = (tmp_path / "world.json").stat().st_mtime_ns
    assert resolve("world:base", tmp_path, 0) == str(tmp_path / "base")
    assert (tmp_path / "world.json").stat().st_mtime_ns == written
    before = digests(tmp_path)
    resolve("world:test", tmp_path, 1)
    after = digests(tmp_path)
    same = {name for name in before if before[name] == after[name]}
    plain = ("config", "generation_config", "tokenizer", "tokenizer_config")
    assert same == {f"{model}/{n}.json" for model in ("base", "small") for n in plain}


def test_resolve_refuses_what_the_world_has_not(tmp_path):
    with pytest.raises(ValueError, match="world:dev: not in the embedded world; it has base, small, sft, pairs"):
        resolve("world:dev", tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_weights_have_the_stated_moments_and_leave_global_random_state_alone():
    import numpy as np

    state = np.random.get_state()[1].copy()
    drawn = weights(0)
    assert (np.random.get_state()[1] == state).all()
    matrices = np.concatenate([w.ravel() for w in drawn.values() if w.ndim == 2])
    assert matrices.size + sum(w.size for w in drawn.values() if w.ndim == 1) == 393_984
    assert abs(matrices.std() - 0.02) < 1e-4
    assert abs(matrices.mean()) < 1e-4
    assert all((w == 1).all() for w in drawn.values() if w.ndim == 1)
    assert not (weights(1)["model.norm.weight"] != drawn["model.norm.weight"]).any()
    assert (weights(1)["model.embed_tokens.weight"] != drawn["model.embed_tokens.weight"]).all()


def test_transformers_loads_every_weight_of_the_base_and_predicts_evenly(world):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(world / "base", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert model.num_parameters() == 393_984
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.dtype == torch.float32
    assert model.config.rope_parameters["rope_theta"] == 10000.0
    assert (model.config.eos_token_id, model.config.pad_token_id) == (3, 0)
    ids = torch.arange(8, 72)[None]
    loss = model(input_ids=ids, labels=ids).loss.item()
    assert abs(loss - 6.238) < 0.1  # log 512


def test_the_small_model_is_three_fifths_of_it_and_of_the_same_words(world, tmp_path):
    transformers = pytest.importorskip("transformers")
    small, info = transformers.AutoModelForCausalLM.from_pretrained(world / "small", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert small.num_parameters() == 234_080 and small.config.hidden_size == 96
    assert (world / "small/tokenizer.json").read_bytes() == (world / "base/tokenizer.json").read_bytes()
    assert resolve("world:small", world, 0) == str(world / "small")


def test_tokenizer_has_512_tokens_and_keeps_tags_when_control_tokens_are_dropped(tokenizer):
    assert len(tokenizer) == tok.VOCAB_SIZE == 512
    assert tokenizer.convert_tokens_to_ids([*tok.CONTROL, *tok.TAGS]) == list(range(8))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")
    text = "<think>9+5=14</think><answer>14</answer> Obviously."
    ids = tokenizer(text + "<|end|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.decode(ids) == text + "<|end|>"


@pytest.mark.parametrize("text", ["Zoë pays 3 € — “twice”!", "a\n\tb  c", "<answer>12", "日本語 42", "x" * 50])
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_stand_apart(tokenizer):
    with_digits = [t for t in tokenizer.get_vocab() if any(c in "0123456789" for c in t)]
    assert sorted(with_digits) == list("0123456789")
    assert tokenizer.tokenize("8+16=024") == list("8+16=024")


def test_lengths_of_prompts_and_responses(world, tokenizer):
    drawn = read(world / "sft.jsonl")[:2000]
    prompts = [len(tokenizer.apply_chat_template(r["prompt"], add_generation_prompt=True)["input_ids"]) for r in drawn]
    responses = [len(tokenizer(r["completion"][0]["content"])["input_ids"]) + 1 for r in drawn]
    assert min(prompts) >= 10
    assert max(prompts) <= 25
    assert min(responses) >= 4
    assert max(responses) <= 60


def test_the_template_writes_the_stated_form_and_marks_what_is_trained(tokenizer):
    turns = [
        {"role": "user", "content": "Sort 21."},
        {"role": "assistant", "content": "<answer>12</answer>"},
        {"role": "user", "content": "Sort 43."},
    ]
    assert tokenizer.apply_chat_template(turns[:2], tokenize=False) == (
        "<|user|>Sort 21.<|end|><|assistant|><answer>12</answer><|end|>"
    )
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == (
        "<|user|>Sort 21.<|end|><|assistant|><answer>12</answer><|end|><|user|>Sort 43.<|end|><|assistant|>"
    )
    out = tokenizer.apply_chat_template(turns[:2], return_dict=True, return_assistant_tokens_mask=True)
    trained = [i for i, m in zip(out["input_ids"], out["assistant_masks"], strict=True) if m]
    assert tokenizer.convert_ids_to_tokens(trained) == ["<answer>", "1", "2", "</answer>", "<|end|>"]


def test_a_system_turn_is_refused(tokenizer):
    with pytest.raises(Exception, match="user and assistant turns only, not system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Be kind."}])
