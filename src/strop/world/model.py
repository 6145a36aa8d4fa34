"""Random weights of the world's shape, written as an ordinary Hugging Face folder; no torch.

Qwen3 with d 128, 2 layers, 4 heads of 32 (4 for keys and values), feed-forward 256 and the
embedding tied to the output: 393,984 parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from strop.lazy import lazy_module
from strop.world.tokenizer import CONTROL, END, PAD, VOCAB_SIZE, write_tokenizer

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

WIDTH, LAYERS, HEADS, HEAD_WIDTH, FEED_FORWARD = 128, 2, 4, 32, 256
INIT_STD = 0.02


def write_base(folder: Path, seed: int) -> None:
    """The untrained model: config, weights drawn from the seed, tokenizer."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights(seed), folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", model_config())
    _write_json(folder / "generation_config.json", {"eos_token_id": _id(END), "pad_token_id": _id(PAD)})
    write_tokenizer(folder)


def weights(seed: int) -> dict[str, np.ndarray]:
    """Every tensor by name, float32: matrices and embedding normal(0, 0.02), norms one.

    Drawn by a generator of their own in the order of `_shapes`; no global state is read or set.
    """
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in _shapes():
        if len(shape) == 1:
            out[name] = np.ones(shape, dtype=np.float32)
        else:
            out[name] = (INIT_STD * rng.standard_normal(shape)).astype(np.float32)
    return out


def model_config() -> dict[str, object]:
    """config.json of the shape above."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD_WIDTH,
        "intermediate_size": FEED_FORWARD,
        "hidden_act": "silu",
        "max_position_embeddings": 1024,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "initializer_range": INIT_STD,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "use_cache": True,
        "eos_token_id": _id(END),
        "pad_token_id": _id(PAD),
        "dtype": "float32",
    }


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    inner = HEADS * HEAD_WIDTH
    yield "model.embed_tokens.weight", (VOCAB_SIZE, WIDTH)
    for i in range(LAYERS):
        attention, feed = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        yield f"model.layers.{i}.input_layernorm.weight", (WIDTH,)
        yield f"{attention}.q_proj.weight", (inner, WIDTH)
        yield f"{attention}.k_proj.weight", (inner, WIDTH)
        yield f"{attention}.v_proj.weight", (inner, WIDTH)
        yield f"{attention}.o_proj.weight", (WIDTH, inner)
        yield f"{attention}.q_norm.weight", (HEAD_WIDTH,)
        yield f"{attention}.k_norm.weight", (HEAD_WIDTH,)
        yield f"model.layers.{i}.post_attention_layernorm.weight", (WIDTH,)
        yield f"{feed}.gate_proj.weight", (FEED_FORWARD, WIDTH)
        yield f"{feed}.up_proj.weight", (FEED_FORWARD, WIDTH)
        yield f"{feed}.down_proj.weight", (WIDTH, FEED_FORWARD)
    yield "model.norm.weight", (WIDTH,)


def _id(token: str) -> int:
    return CONTROL.index(token)  # the trainer numbers special tokens first, in order


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
