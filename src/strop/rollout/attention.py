"""Attention over a `Cache`, called by the model's own layers through transformers' interface.

In a prefill each packed prompt attends to itself. In a decode step the packed row holds one token a
live row: it meets the row's own keys, and its prompt's, which are read once for all rows of that
prompt; the two parts are merged by log-sum-exp, which is exact.

Left out: attention with a soft cap or sinks, and layers that read another layer's keys; sample
those with path="padded".
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from strop.lazy import lazy_module
from strop.rollout.cache import Cache, View

if TYPE_CHECKING:
    import torch
    import transformers
    from torch import Tensor
else:
    torch = lazy_module("torch")
    transformers = lazy_module("transformers")

log = logging.getLogger(__name__)


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
    scale = float(query.shape[-1] ** -0.5 if scaling is None else scaling)
    cache = rollout_cache
    if cache.runs:
        return _prefill(cache, module.layer_idx, query, key, value, scale, sliding_window), None
    return _decode(cache, module.layer_idx, query, key, value, scale, sliding_window), None


def _prefill(
    cache: Cache, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
) -> Tensor:
    """Causal attention inside each packed prompt, whose keys and values are kept, [1, tokens, H, D]."""
    buffers = cache.prompts.at(layer, key, value)
    pieces = []
    for run in cache.runs:
        tokens = slice(run.offset, run.offset + run.count * run.length)
        q, k, v = (t[0, :, tokens].unflatten(1, (run.count, run.length)).transpose(0, 1) for t in (query, key, value))
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
    return torch.cat(pieces)[None]


def _decode(
    cache: Cache, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
) -> Tensor:
    """One token a row against its own past and its prompt, [1, R, H, D].

    The prompt's part enters the row's softmax as one more column: its score is the log-sum-exp of
    the prompt's scores and its value the prompt's output, which is the exact merge.
    """
    num_rows, heads, num_shared = query.shape[2], key.shape[1], query.shape[1] // key.shape[1]
    view = cache.view(window, num_shared)
    keys, values = cache.own.at(layer, key, value)
    keys[:num_rows, :, cache.column] = key[0].transpose(0, 1)
    values[:num_rows, :, cache.column] = value[0].transpose(0, 1)
    seen = slice(view.own_first, cache.column + 1)
    rows = query[0].transpose(0, 1).unflatten(1, (heads, num_shared))  # [R, heads, num_shared, D]
    scores = torch.matmul(rows * scale, keys[:num_rows, :, seen].transpose(-1, -2)).float()
    if view.own_bias is not None:
        scores.add_(view.own_bias)
    values = values[:num_rows, :, seen]
    if not view.prompt_columns:
        return torch.matmul(scores.softmax(-1).to(values.dtype), values).flatten(1, 2)[None]
    shared, lse = _prompt_piece(cache, layer, rows, scale, view)
    weights = torch.cat([scores, lse[..., None]], -1).softmax(-1).to(values.dtype)
    own = torch.matmul(weights[..., :-1], values)
    return own.addcmul_(shared, weights[..., -1:]).flatten(1, 2)[None]


def _prompt_piece(cache: Cache, layer: int, rows: Tensor, scale: float, view: View) -> tuple[Tensor, Tensor]:
    """Attention of rows [R, heads, n, D] over their prompts, each read once; with log-sum-exps [R, heads, n]."""
    num_prompts, num_shared = len(cache.lengths), rows.shape[2]
    first = cache.prompts.num_columns - view.prompt_columns
    keys, values = (t[:num_prompts, :, first:] for t in cache.prompts.layers[layer])
    cells = rows if cache.grid is None else rows[cache.grid[0]]
    grid = cells.unflatten(0, (num_prompts, -1)).transpose(1, 2).flatten(2, 3)
    out, lse = piece(grid, keys, values, scale, view.prompt_bias)
    out = out.unflatten(2, (-1, num_shared)).transpose(1, 2).flatten(0, 1)
    lse = lse.unflatten(2, (-1, num_shared)).transpose(1, 2).flatten(0, 1)
    return (out, lse) if cache.grid is None else (out[cache.grid[1]], lse[cache.grid[1]])


def piece(query: Tensor, key: Tensor, value: Tensor, scale: float, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Full attention over some columns and its log-sum-exp (fp32), for merging with other columns.

    On a CPU it is torch's flash kernel, a private function that gives both; elsewhere, or should the
    function be gone, plain products.

    Args: query: [B, heads, q, D]; key, value: [B, heads, columns, D]; bias: [B, 1, 1 or q, columns].
    Returns: output [B, heads, q, D], log-sum-exp [B, heads, q].
    """
    if query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and _has_flash():
        mask = None if bias is None else bias.to(query.dtype)
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = flash(query, key, value, attn_mask=mask, scale=scale)
        return out, lse
    scores = torch.matmul(query * scale, key.transpose(-1, -2)).float()
    if bias is not None:
        scores.add_(bias)
    lse = scores.logsumexp(-1)
    weights = scores.sub_(lse[..., None]).exp_()
    return torch.matmul(weights.to(value.dtype), value), lse


@functools.cache
def _has_flash() -> bool:
    """Whether this torch has the CPU flash kernel; said once where it has not."""
    try:
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: B018
    except AttributeError:
        log.warning("this torch has no CPU flash attention kernel; sampling uses plain products, which are slower")
        return False
    return True


@contextmanager
def shared_attention(module: Any) -> Iterator[None]:
    """Let the model's attention layers call `attend`, without any mask, until the block ends.

    Raises: ValueError if the model does not take its attention from transformers' interface.
    """
    models = [m for m in module.modules() if isinstance(m, transformers.PreTrainedModel)]
    unable = [type(m).__name__ for m in models if not m._can_set_attn_implementation()]
    if unable or not models:
        name = unable[0] if unable else type(module).__name__
        raise ValueError(f"{name} does not take its attention from transformers' interface; use path='padded'")
    transformers.AttentionInterface.register("strop_decode", attend)
    before = {id(m.config): (m.config, m.config._attn_implementation) for m in models}
    try:
        for config, _ in before.values():
            config._attn_implementation = "strop_decode"
        yield
    finally:
        for config, name in before.values():
            config._attn_implementation = name
