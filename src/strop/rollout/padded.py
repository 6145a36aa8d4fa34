"""The plain sampling loop, for models that do not take their attention from transformers' interface.

Rows are padded on the left, every row prefills its own prompt, and the model keeps its own cache;
finished rows are decoded until the last of their batch ends. Tokens and log-probs are those of the
shared path; it is slower.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from strop.lazy import lazy_module
from strop.rollout.draw import Draws
from strop.rollout.transcript import Ints, Transcript

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")


def decode_padded(
    module: Any, prompts: Sequence[Sequence[int]], num_samples: int, num_rows: int, draws: Draws, transcript: Transcript
) -> None:
    """Fill the transcript, `num_rows` rows at a time; row i belongs to prompt i // num_samples."""
    order = sorted(range(len(prompts) * num_samples), key=lambda row: len(prompts[row // num_samples]))
    for first in range(0, len(order), num_rows):
        rows = np.array(order[first : first + num_rows], np.int64)
        _decode(module, [prompts[row // num_samples] for row in rows.tolist()], rows, draws, transcript)


def _decode(module: Any, prompts: list[Sequence[int]], rows: Ints, draws: Draws, transcript: Transcript) -> None:
    """Decode one batch of rows to their ends."""
    device = module.get_input_embeddings().weight.device
    longest = max(map(len, prompts))
    ids = torch.tensor([[p[0]] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    takes_positions = "position_ids" in inspect.signature(module.forward).parameters
    live, past = np.ones(len(rows), np.bool_), None
    while True:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        extras = {"position_ids": positions} if takes_positions else {}
        out = module(
            input_ids=ids, attention_mask=mask, past_key_values=past, use_cache=True, logits_to_keep=1, **extras
        )
        past = out.past_key_values
        owner = torch.from_numpy(np.flatnonzero(live)).to(device)
        new, logprobs = draws(out.logits[:, -1], rows[live], transcript.length[rows[live]], owner)
        done = transcript.write(rows[live], new, logprobs)
        fed = np.zeros(len(rows), np.int64)
        fed[live] = new
        live[live] = ~done
        if not live.any():
            return
        ids = torch.from_numpy(fed)[:, None].to(device)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], -1)
