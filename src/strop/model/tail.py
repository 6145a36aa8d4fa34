"""The last layer, run only at positions whose output is read.

Nothing attends to the last layer's output, so at prompt positions its queries, its attention and
its feed-forward block, most of a layer's arithmetic, are work for nobody; a reward model reads one
position of each sequence. Those parts are called on the rows that are read; the other rows get
zeros, and are never read. Keys and values are made of all rows.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

WORTH = 0.9
"""Rows are picked only where fewer than this share are read; copying costs too."""


def find_tail(module: Any) -> nn.Module | None:
    """The last layer where its parts treat tokens one by one (but for attention), else None."""
    layers = getattr(module.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return None
    block = getattr(layers[-1], "mlp", None)
    if not isinstance(block, nn.Module) or not _is_linear(getattr(block, "down_proj", None)):
        return None
    attention = getattr(layers[-1], "self_attn", None)
    linear = [getattr(attention, name, None) for name in ("q_proj", "o_proj")]
    for part in (block, *filter(_is_linear, linear)):
        assert isinstance(part, nn.Module)
        if isinstance(part.forward, types.MethodType) and part.forward.__func__ is not _forward:
            part.forward = types.MethodType(_forward, part)
        part.strop_rows = None  # type: ignore[assignment]
    if isinstance(attention, nn.Module):
        attention.strop_rows = None  # type: ignore[assignment]
    layer: nn.Module = layers[-1]
    return layer


@contextmanager
def only(tail: nn.Module | None, rows: Tensor, length: int) -> Iterator[None]:
    """Within it the layer's parts run on these rows of [1, length, d] alone."""
    if tail is None or rows.shape[0] > WORTH * length:
        yield
        return
    parts = [part for part in tail.modules() if "strop_rows" in vars(part)]
    for part in parts:
        part.strop_rows = rows
    try:
        yield
    finally:
        for part in parts:
            part.strop_rows = None  # type: ignore[assignment]


def rows_read(module: nn.Module) -> Tensor | None:
    """The rows of the packed row that are read of this part's output; None: all."""
    rows: Tensor | None = vars(module).get("strop_rows")
    return rows


def _is_linear(part: object) -> bool:
    """Whether this is a linear layer, or one under an adapter, which treats tokens one by one, too."""
    return isinstance(getattr(part, "base_layer", part), nn.Linear)


def _forward(part: Any, hidden: Tensor) -> Tensor:
    rows = part.strop_rows
    if rows is None:
        whole: Tensor = type(part).forward(part, hidden)
        return whole
    some = type(part).forward(part, hidden.index_select(1, rows))
    result: Tensor = some.new_zeros(*hidden.shape[:2], some.shape[-1]).index_copy(1, rows, some)
    return result
