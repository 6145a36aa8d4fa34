"""How large a model is, part by part: what memory and arithmetic are reckoned from. No torch.

`strop.model.sizes` counts a model's own modules without their weights, exactly. `from_config` reads the numbers of
a config.json alone, which is exact for dense decoders of the usual block, and does not know others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strop.model.adapter import LoRA

HEAD_NORMS = ("qwen3", "qwen3_moe", "olmo2", "gemma3", "gemma3_text")
"""Families that normalise queries and keys."""
FUSED = ("qwen2", "qwen3", "llama", "mistral", "mixtral", "qwen3_moe", "olmo2", "smollm3")
"""Families whose norms are x / rms(x) * weight, which on CPU are one operation (`strop.model.norms`)."""

Linear = tuple[str, int, int, int]
"""The end of a linear layer's name, its rows and columns, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Weights and widths of a causal language model.

    Attributes:
        parameters: all weights, tied ones once. embedding: of the input embedding. head: of an output head of
            its own, 0 where it is the embedding.
        matrices: of hidden matrices, which Muon moves; alike: of the most that have one shape.
        active: weights of the trunk's linear layers that a token meets (of experts, the chosen ones).
        query, key: widths of all query heads, and of all key heads. heads: number of query heads.
        feed: inner width of the feed-forward that a token meets, all chosen experts together.
        head_norms: whether queries and keys are normalised. fused: whether norms are one operation on CPU.
        linear: the trunk's linear layers: end of the name, rows, columns, how many.
        positions: tokens that a sequence may have.
        exact: counted, or by the formula of a usual block.
    """

    parameters: int
    embedding: int
    head: int
    matrices: int
    alike: int
    active: int
    vocabulary: int
    width: int
    layers: int
    query: int
    key: int
    heads: int
    feed: int
    head_norms: bool = False
    fused: bool = True
    linear: tuple[Linear, ...] = ()
    positions: int = 2048
    exact: bool = False

    @property
    def scalar(self) -> Counts:
        """The same trunk with a head of one number in place of the vocabulary's."""
        return replace(self, parameters=self.parameters - self.head + self.width, head=0)

    def adapted(self, adapter: LoRA) -> int:
        """Weights that an adapter trains: r (rows + columns) a linear layer, and a magnitude a row with DoRA."""
        aimed = [found for found in self.linear if aims(adapter, found[0])]
        low = sum(count * adapter.r * (rows + columns) for _, rows, columns, count in aimed)
        return low + (sum(count * rows for _, rows, _, count in aimed) if adapter.use_dora else 0)


def aims(adapter: LoRA, name: str) -> bool:
    """Whether an adapter stands beside the linear layers of this name."""
    return adapter.targets == "all-linear" or name in adapter.targets


def read_config(folder: Path | None) -> Mapping[str, Any]:
    """A model folder's config.json, the part of its text model; empty where there is none."""
    path = None if folder is None else folder / "config.json"
    if path is None or not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return {**found, **found.get("text_config", {})}


def from_config(config: Mapping[str, Any]) -> Counts | None:
    """By the numbers of a config; None where they are not those of a dense decoder."""
    try:
        width, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
        inner, heads = int(config["intermediate_size"]), int(config["num_attention_heads"])
        vocabulary = int(config["vocab_size"])
    except (KeyError, TypeError, ValueError):
        return None
    if config.get("num_experts") or config.get("num_local_experts") or config.get("n_routed_experts"):
        return None
    head_dim = int(config.get("head_dim") or width // heads)
    key = int(config.get("num_key_value_heads") or heads) * head_dim
    linear = usual_block(width, heads * head_dim, key, inner, layers)
    weights = sum(rows * columns * count for _, rows, columns, count in linear)
    tied = bool(config.get("tie_word_embeddings"))
    head_norms = str(config.get("model_type")) in HEAD_NORMS
    norms = layers * (2 * width + (2 * head_dim if head_norms else 0)) + width
    return Counts(
        parameters=vocabulary * width * (1 if tied else 2) + weights + norms,
        embedding=vocabulary * width,
        head=0 if tied else vocabulary * width,
        matrices=weights,
        alike=most_alike((rows, columns, count) for _, rows, columns, count in linear),
        active=weights,
        vocabulary=vocabulary,
        width=width,
        layers=layers,
        query=heads * head_dim,
        key=key,
        heads=heads,
        feed=inner,
        head_norms=head_norms,
        fused=str(config.get("model_type")) in FUSED,
        linear=linear,
        positions=int(config.get("max_position_embeddings") or 2048),
    )


def usual_block(width: int, query: int, key: int, inner: int, layers: int) -> tuple[Linear, ...]:
    """The linear layers of Llama's block."""
    shapes = {
        "q_proj": (query, width),
        "k_proj": (key, width),
        "v_proj": (key, width),
        "o_proj": (width, query),
        "gate_proj": (inner, width),
        "up_proj": (inner, width),
        "down_proj": (width, inner),
    }
    return tuple((name, rows, columns, layers) for name, (rows, columns) in shapes.items())


def most_alike(shapes: Iterable[tuple[int, int, int]]) -> int:
    """Weights of the most matrices that have one shape, up to transposition. Args: rows, columns, how many."""
    sums: dict[tuple[int, int], int] = {}
    for rows, columns, count in shapes:
        shape = min(rows, columns), max(rows, columns)
        sums[shape] = sums.get(shape, 0) + rows * columns * count
    return max(sums.values(), default=0)
