"""What each kind of stage does: settings and inputs to artifacts and closing figures.

One file a kind, named as the kind, with `run(stage, context)`. A training stage loads a model and
data, builds a learner and a source, and lets `fit` drive the loop; it differs from the others in
what its source gives and in what its figures are. What stages share stands in `common`.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import replace

import torch

from strop import dist
from strop.model.load import choose_device
from strop.recipes.artifacts import resolved
from strop.recipes.context import Context, StageResult
from strop.recipes.settings import Stage
from strop.train.memory import forget_peak, keep_freed_pages, peak_memory_mb


def execute(stage: Stage, context: Context) -> StageResult:
    """Run one stage to its end.

    Raises: Interrupted once it saved and stopped on request; ValueError for inputs that cannot work.
    """
    began = time.perf_counter()
    keep_freed_pages()
    device = choose_device(context.recipe.device)
    _forget_peak(device)
    if context.recipe.threads is not None:
        torch.set_num_threads(context.recipe.threads)
    dist.start()
    stage = resolved(stage, context.resolve)
    result: StageResult = importlib.import_module(f"{__name__}.{stage.kind}").run(stage, context)
    return replace(result, seconds=time.perf_counter() - began, peak_memory_mb=_peak_mb(device))


def _forget_peak(device: str) -> None:
    """Earlier stages' memory is no part of this one's peak."""
    forget_peak()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_mb(device: str) -> float:
    """The most the stage held: of the GPU's memory where it ran there, else of the process's."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_memory_mb()
