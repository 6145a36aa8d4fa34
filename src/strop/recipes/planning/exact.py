"""A model counted by its own modules: any family, experts too. Imports torch."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

from strop.model.adapter import find_targets
from strop.model.load import first_line
from strop.model.sizes import blank
from strop.recipes.planning.counts import FUSED, Counts, Linear, most_alike
from strop.train.optim import split_parameters


@functools.lru_cache(maxsize=32)
def counts_of(path: str) -> Counts:
    """Counts of the model of a folder, or of the base model of an adapter's.

    Raises: ValueError in a sentence where there is no config, or none of a causal language model with attention.
    """
    module = blank(path)
    try:
        return count(module)
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"{path}: a {module.config.model_type} cannot be planned, for its config lacks a number of the usual "
            f"attention blocks ({first_line(error)}); plan a model of their kind and size"
        ) from error


def count(module: Any) -> Counts:
    """Counts of a causal language model's module, on any device."""
    config = module.config.get_text_config()
    width, layers, heads = int(config.hidden_size), int(config.num_hidden_layers), int(config.num_attention_heads)
    head_dim = int(getattr(config, "head_dim", None) or width // heads)
    matrices, _ = split_parameters(module)
    embedding = module.get_input_embeddings().weight
    output = module.get_output_embeddings()
    tied = output is None or output.weight is embedding
    linear = _linear(module)
    experts = _experts(module)
    share = _chosen(config) / max(1, next((p.shape[0] for p in experts), 1))
    return Counts(
        parameters=sum(p.numel() for p in module.parameters()),
        embedding=embedding.numel(),
        head=0 if tied else output.weight.numel(),
        matrices=sum(p.numel() for p in matrices),
        alike=most_alike((p.shape[0], p.shape[1], 1) for p in matrices),
        active=sum(rows * columns * n for _, rows, columns, n in linear) + round(share * _weights(experts)),
        vocabulary=int(embedding.shape[0]),
        width=width,
        layers=layers,
        query=heads * head_dim,
        key=_key_heads(config, heads) * head_dim,
        heads=heads,
        feed=_feed(linear, experts, share, width, layers),
        head_norms=any(name.endswith(("q_norm", "query_norm")) for name, _ in module.named_modules()),
        fused=str(config.model_type) in FUSED,
        linear=linear,
        positions=int(getattr(config, "max_position_embeddings", None) or 2048),
        exact=True,
    )


def _key_heads(config: Any, heads: int) -> int:
    """Heads of keys and values that a cache holds; one for all under `multi_query`, as of Falcon-7B."""
    one = getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False)
    return int(getattr(config, "num_key_value_heads", None) or (1 if one else heads))


def _linear(module: Any) -> tuple[Linear, ...]:
    """The trunk's linear layers, those of one name and shape together."""
    found: Counter[tuple[str, int, int]] = Counter()
    for name in find_targets(module, "all-linear"):
        part = module.get_submodule(name)
        rows, columns = part.weight.shape
        if type(part).__name__ == "Conv1D":  # [in, out]
            rows, columns = columns, rows
        found[name.rpartition(".")[2], int(rows), int(columns)] += 1
    return tuple((*shape, n) for shape, n in found.items())


def _experts(module: Any) -> list[Any]:
    """Stacked expert tensors, [experts, a, b] each."""
    return [p for p in module.base_model.parameters() if p.ndim == 3]


def _weights(parameters: list[Any]) -> int:
    return sum(int(p.numel()) for p in parameters)


def _chosen(config: Any) -> int:
    """Experts that a token goes through."""
    names = ("num_experts_per_tok", "top_k_experts", "num_experts_per_token", "moe_topk")
    return int(next((n for name in names if (n := getattr(config, name, None))), 1))


def _feed(linear: tuple[Linear, ...], experts: list[Any], share: float, width: int, layers: int) -> int:
    """Inner width of the feed-forward, a layer on average.

    A layer's way down has `inner` columns and `width` rows; stacked ones are that for each chosen expert, and beside
    them stand gate and up in one tensor of twice the size.
    """
    down = ("down_proj", "w2", "c_proj", "fc2", "dense_4h_to_h", "fc_out")
    dense = sum(columns * n for name, rows, columns, n in linear if name in down and rows == width and columns != width)
    stacked = share * _weights(experts) / (3 * width)
    found = round((dense + stacked) / layers)
    return found or 4 * width
