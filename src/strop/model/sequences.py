"""Log-probs of given completions, or any other number a token, in packed forwards without gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from strop.batch import Batch
from strop.data.encoded import EncodedGroup
from strop.data.pack import pack
from strop.model.forward import Model

Numbers = NDArray[np.float32]


def sequence_logprobs(
    model: Model, groups: Sequence[EncodedGroup], *, temperature: float, max_tokens: int, device: str
) -> list[list[Numbers]]:
    """Log-probs of every sequence's trained tokens, without gradient: one list a group, one array a sequence."""

    def run(batch: Batch) -> torch.Tensor:
        return model(batch, temperature=temperature).logprobs

    return sequence_numbers(run, groups, max_tokens=max_tokens, device=device)


def sequence_numbers(
    run: Callable[[Batch], torch.Tensor], groups: Sequence[EncodedGroup], *, max_tokens: int, device: str
) -> list[list[Numbers]]:
    """What `run` gives at every sequence's trained tokens ([N] a batch), without gradient; as `sequence_logprobs`."""
    if not groups:
        return []
    step = pack([_bare(group) for group in groups], max_tokens=max_tokens, device=device, splittable=True)
    by_number: dict[int, Numbers] = {}
    with torch.no_grad():
        for batch in step.batches:
            by_number.update(zip(batch.sequence_ids, _by_sequence(run(batch), batch), strict=True))
    numbers = iter(range(len(by_number)))
    return [[by_number[next(numbers)] for _ in group.sequences] for group in groups]


def _by_sequence(values: torch.Tensor, batch: Batch) -> list[Numbers]:
    counts = torch.bincount(batch.seq, minlength=batch.num_sequences).tolist()
    return [part.numpy() for part in values.float().cpu().split(counts)]


def _bare(group: EncodedGroup) -> EncodedGroup:
    return replace(group, columns={}, sequences=tuple(replace(s, columns={}) for s in group.sequences))
