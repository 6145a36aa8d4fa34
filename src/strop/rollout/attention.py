"""Attention over a `Cache`: what the model's own layers call while sampling, and the lean step too.

In a prefill each packed prompt attends to itself. In a decode step there is one token a live row: it
meets the row's own keys, and its prompt's, which are read once for all rows of that prompt; one
softmax runs over both.

Left out: attention with a soft cap or sinks, and layers that read another layer's keys; sample
those with path="padded".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strop.lazy import lazy_module
from strop.rollout.cache import Asked, Cache

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    rollout_cache: Cache,
    **model_extras: object,
) -> tuple[Tensor, None]:
    """Attention of a packed row over the cache, in the form that transformers' models call.

    Args: query: [1, H, tokens, D]; key, value: [1, heads, tokens, D], after rotary embedding.
    Returns: [1, tokens, H, D] and no weights.
    Raises: ValueError for a soft cap or sinks, which this attention does not know.
    """
    if softcap is not None or s_aux is not None:
        raise ValueError(
            f"sampling with a shared prompt does not support {type(module).__name__}'s "
            f"{'soft cap' if softcap is not None else 'attention sinks'}; use path='padded'"
        )
    assert attention_mask is None and len(query) == 1
    asked = Asked(float(query.shape[-1] ** -0.5 if scaling is None else scaling), sliding_window)
    rollout_cache.asked[module.layer_idx] = asked
    # Under autocast rotary embedding gives fp32 where projections give bf16; [tokens, heads, D] each.
    query, key, value = (t[0].transpose(0, 1).to(value.dtype) for t in (query, key, value))
    return attend_tokens(rollout_cache, module.layer_idx, query, key, value)[None], None


def attend_tokens(cache: Cache, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same on [tokens, heads, D], for a layer that has asked; [tokens, H, D]."""
    return (_prefill if cache.runs else _step)(cache, layer, query, key, value)


def _prefill(cache: Cache, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention inside each packed prompt, whose keys and values are kept, [tokens, H, D]."""
    buffers = cache.prompts.at(layer, key, value)
    scale, window = cache.asked[layer].scale, cache.asked[layer].window
    pieces = []
    for run in cache.runs:
        tokens = slice(run.offset, run.offset + run.count * run.length)
        q, k, v = (t[tokens].reshape(run.count, run.length, *t.shape[1:]).transpose(1, 2) for t in (query, key, value))
        for buffer, new in zip(buffers, (k, v), strict=True):
            buffer[run.slot : run.slot + run.count, :, -run.length :] = new
        band = None
        if window is not None and window < run.length:
            ones = torch.ones(run.length, run.length, dtype=torch.bool, device=q.device)
            band = ones.tril().triu(1 - window)
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=band, is_causal=band is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        pieces.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(pieces)


def _step(cache: Cache, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """One token a row against its own past and its prompt; its key and value are written first.

    The scores of a row's prompt are found prompt by prompt, stand in front of those of its own
    tokens for the softmax, and are taken back to the prompts for the weighted sum of values.

    Args: query: [R, H, D]; key, value: [R, heads, D].
    Returns: [R, H, D].
    """
    num_rows, heads, dim = key.shape
    num_shared = query.shape[1] // heads
    scale = cache.asked[layer].scale
    view = cache.view(cache.asked[layer].window, heads, num_shared, value.dtype)
    num_own, num_prompt = cache.column + 1 - view.own_first, view.prompt_columns
    own = [t.narrow(0, 0, num_rows) for t in cache.own.at(layer, key, value)]
    own[0].select(2, cache.column).copy_(key)
    own[1].select(2, cache.column).copy_(value)
    keys, values = (t.narrow(2, view.own_first, num_own).flatten(0, 1) for t in own)
    rows = query.reshape(num_rows * heads, num_shared, dim)
    scores = torch.baddbmm(view.own_bias, rows, keys.mT, alpha=scale)
    if not num_prompt:
        return torch.bmm(_softmax(scores, values.dtype), values).view(num_rows, heads * num_shared, -1)
    prompts = (t[: len(cache.lengths), :, -num_prompt:].flatten(0, 1) for t in cache.prompts.layers[layer])
    shared = torch.baddbmm(view.prompt_bias, _by_prompt(cache, rows, num_rows), next(prompts).mT, alpha=scale)
    shared = _by_row(cache, shared, heads, num_shared)
    joined = torch.cat([shared, scores.view(*shared.shape[:-1], num_own)], -1)
    weights = _softmax(joined, values.dtype).view(num_rows * heads, num_shared, -1)
    out = torch.bmm(weights.narrow(2, num_prompt, num_own), values)
    part = torch.bmm(_by_prompt(cache, weights.narrow(2, 0, num_prompt), num_rows), next(prompts))
    part = _by_row(cache, part, heads, num_shared)
    return out.view(part.shape).add_(part).view(num_rows, heads * num_shared, -1)


def _softmax(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """Over the last dimension, in fp32."""
    return scores.softmax(-1, dtype=torch.float32).to(dtype)


def _by_prompt(cache: Cache, rows: Tensor, num_rows: int) -> Tensor:
    """[R * heads, n, X] with the rows of a prompt side by side, [prompts * heads, most rows * n, X]."""
    num_prompts, (_, num_shared, last) = len(cache.lengths), rows.shape
    if cache.grid is not None:
        rows = rows.view(num_rows, -1, num_shared, last).index_select(0, cache.grid.row)
        num_rows = len(rows)
    rows = rows.view(num_prompts, num_rows // num_prompts, -1, num_shared, last)
    heads = rows.shape[2]
    return rows.transpose(1, 2).reshape(num_prompts * heads, -1, last)


def _by_row(cache: Cache, cells: Tensor, heads: int, num_shared: int) -> Tensor:
    """The reverse: [R, heads, n, X], or [prompts, rows, heads, n, X] where they stand that way."""
    grouped = cells.view(len(cache.lengths), heads, -1, num_shared, cells.shape[-1])
    if cache.grid is None:
        return grouped.transpose(1, 2)
    return grouped[cache.grid.slot, :, cache.grid.rank]
