"""Ranks and sums: the only file that imports torch.distributed.

One process is the ordinary case and needs no set-up. Under `torchrun` every rank trains its
share of a step's groups; because losses are weighted over the whole step, gradients are summed,
never averaged, and the result is the gradient of one process that held all the groups.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    import torch.distributed as td
else:
    torch = lazy_module("torch")
    td = lazy_module("torch.distributed")

T = TypeVar("T")


def start() -> None:
    """Join the process group that `torchrun` announces in the environment, if it does."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not td.is_initialized():
        td.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def world_size() -> int:
    """Number of ranks; 1 outside torchrun."""
    return td.get_world_size() if _active() else 1


def rank() -> int:
    """This process's rank; 0 outside torchrun."""
    return td.get_rank() if _active() else 0


def share(items: Sequence[T]) -> Sequence[T]:
    """Every world_size-th item, beginning at this rank."""
    return items[rank() :: world_size()]


def sum_numbers(values: Sequence[float]) -> list[float]:
    """Each number summed over ranks, in float64."""
    if not _active():
        return list(values)
    device = "cuda" if td.get_backend() == "nccl" else "cpu"
    total = torch.tensor(list(values), dtype=torch.float64, device=device)
    td.all_reduce(total)
    return [float(x) for x in total.tolist()]


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Sum gradients over ranks in place; a parameter without one counts as zero."""
    if not _active():
        return
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        td.all_reduce(parameter.grad)


def barrier() -> None:
    """Wait until every rank is here."""
    if _active():
        td.barrier()


def _active() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and bool(td.is_available() and td.is_initialized())
