"""Random weights of the world's two shapes, written as ordinary Hugging Face folders; no torch.

Qwen3 with 2 layers, heads of 32 (as many for keys and values), and the embedding tied to the output:
d 128 with 4 heads and feed-forward 256 has 393,984 parameters, d 96 with 3 heads and 192 has 234,080.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from strop.lazy import lazy_module
from strop.world.tokenizer import CONTROL, END, PAD, VOCAB_SIZE, write_tokenizer

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

INIT_STD = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How wide and deep a model is."""

    width: int
    layers: int = 2
    heads: int
    head_width: int = 32
    feed_forward: int


BASE = Shape(width=128, heads=4, feed_forward=256)
SHAPES: Mapping[str, Shape] = MappingProxyType({"base": BASE, "small": Shape(width=96, heads=3, feed_forward=192)})
"""The world's models by name; `small` is for what a larger one teaches it."""


def write_base(folder: Path, seed: int, shape: Shape = BASE) -> None:
    """The untrained model: config, weights drawn from the seed, tokenizer."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights(seed, shape), folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", model_config(shape))
    _write_json(folder / "generation_config.json", {"eos_token_id": _id(END), "pad_token_id": _id(PAD)})
    write_tokenizer(folder)


def weights(seed: int, shape: Shape = BASE) -> dict[str, np.ndarray]:
    """Every tensor by name, float32: matrices and embedding normal(0, 0.02), norms one.

    Drawn by a generator of their own in the order of `_sizes`; no global state is read or set.
    """
    rng = np.random.default_rng(seed)
    out = {}
    for name, size in _sizes(shape):
        if len(size) == 1:
            out[name] = np.ones(size, dtype=np.float32)
        else:
            out[name] = (INIT_STD * rng.standard_normal(size)).astype(np.float32)
    return out


def model_config(shape: Shape = BASE) -> dict[str, object]:
    """config.json of a shape."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head_width,
        "intermediate_size": shape.feed_forward,
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


def _sizes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    inner, width, feed_forward = shape.heads * shape.head_width, shape.width, shape.feed_forward
    yield "model.embed_tokens.weight", (VOCAB_SIZE, width)
    for i in range(shape.layers):
        attention, feed = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        yield f"model.layers.{i}.input_layernorm.weight", (width,)
        yield f"{attention}.q_proj.weight", (inner, width)
        yield f"{attention}.k_proj.weight", (inner, width)
        yield f"{attention}.v_proj.weight", (inner, width)
        yield f"{attention}.o_proj.weight", (width, inner)
        yield f"{attention}.q_norm.weight", (shape.head_width,)
        yield f"{attention}.k_norm.weight", (shape.head_width,)
        yield f"model.layers.{i}.post_attention_layernorm.weight", (width,)
        yield f"{feed}.gate_proj.weight", (feed_forward, width)
        yield f"{feed}.up_proj.weight", (feed_forward, width)
        yield f"{feed}.down_proj.weight", (width, feed_forward)
    yield "model.norm.weight", (width,)


def _id(token: str) -> int:
    return CONTROL.index(token)  # the trainer numbers special tokens first, in order


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
