"""The last layer's feed-forward block, run only at positions whose output is read.

Nothing attends to the last layer's output, so at prompt positions its feed-forward block, three
quarters of a layer's arithmetic, is work for nobody. The block is called on the rows that predict
a trained token; the other rows get zeros, and are never read.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

WORTH = 0.9
"""Rows are picked only where fewer than this share are read; copying costs too."""


def find_tail(module: Any) -> nn.Module | None:
    """The last layer's feed-forward block where it is one that treats tokens one by one, else None."""
    layers = getattr(module.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return None
    block = getattr(layers[-1], "mlp", None)
    if not isinstance(block, nn.Module) or not isinstance(getattr(block, "down_proj", None), nn.Linear):
        return None
    if isinstance(block.forward, types.MethodType) and block.forward.__func__ is not _forward:
        block.forward = types.MethodType(_forward, block)
    block.strop_rows = None  # type: ignore[assignment]
    return block


@contextmanager
def only(tail: nn.Module | None, rows: Tensor, length: int) -> Iterator[None]:
    """Within it the block runs on these rows of [1, length, d] alone."""
    if tail is None or rows.shape[0] > WORTH * length:
        yield
        return
    tail.strop_rows = rows
    try:
        yield
    finally:
        tail.strop_rows = None  # type: ignore[assignment]


def _forward(block: Any, hidden: Tensor) -> Tensor:
    rows = block.strop_rows
    if rows is None:
        whole: Tensor = type(block).forward(block, hidden)
        return whole
    part = type(block).forward(block, hidden.index_select(1, rows))
    return torch.zeros_like(hidden).index_copy(1, rows, part.to(hidden.dtype))
