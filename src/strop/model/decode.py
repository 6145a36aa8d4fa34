"""Lends a model's attention layers another function while completions are sampled.

transformers' models take their attention from a registry by name; the function is registered under
a name of ours, and the configs that name it are put back afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import AttentionInterface, PreTrainedModel

NAME = "strop_decode"
"""What the lent function is called in transformers' registry (`config._attn_implementation`)."""


@contextmanager
def attending(module: Any, attend: Callable[..., Any]) -> Iterator[None]:
    """Let the model's attention layers call `attend`, without any mask, until the block ends.

    Raises: ValueError if the model does not take its attention from transformers' interface.
    """
    models = [m for m in module.modules() if isinstance(m, PreTrainedModel)]
    unable = [type(m).__name__ for m in models if not m._can_set_attn_implementation()]
    if unable or not models:
        name = unable[0] if unable else type(module).__name__
        raise ValueError(f"{name} does not take its attention from transformers' interface; use path='padded'")
    AttentionInterface.register(NAME, attend)
    before = {id(m.config): (m.config, m.config._attn_implementation) for m in models}
    try:
        for config, _ in before.values():
            config._attn_implementation = NAME
        yield
    finally:
        for config, name in before.values():
            config._attn_implementation = name
