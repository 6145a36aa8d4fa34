"""Held-out rows under the training objective: eval_loss and the objective's metrics, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from strop.batch import Batch
from strop.data.encoded import EncodedGroup
from strop.data.pack import pack
from strop.evaluate.statistics import Measure, measure
from strop.lazy import lazy_module
from strop.model.forward import LanguageModel, forward
from strop.objectives import Objective

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def evaluate_objective(
    model: LanguageModel, groups: Sequence[EncodedGroup], objective: Objective, max_tokens: int, device: str
) -> dict[str, Measure]:
    """eval_loss and eval_<metric>: the mean over rows of each row's mean, bootstrapped over rows.

    Token losses also give eval_perplexity = exp(eval_loss); here a row counts once however long it
    is, unlike in the training loss.
    """
    rows: dict[str, list[list[float]]] = {}
    with torch.no_grad():
        for batch in pack(groups, max_tokens=max_tokens, device=device).batches:
            terms = objective(forward(model, batch, wants=objective.wants), batch)
            for name, values in {"loss": terms.losses[0], **terms.metrics}.items():
                rows.setdefault(f"eval_{name}", []).extend(_by_group(values, batch))
    figures = {name: measure(values) for name, values in rows.items()}
    if all(reduction.unit == "token" for reduction in objective.reductions):
        figures["eval_perplexity"] = _exp(figures["eval_loss"])
    return figures


def _by_group(values: Tensor, batch: Batch) -> list[list[float]]:
    """A tensor a token, a sequence or a group long, as each group's numbers."""
    numbers = values.float().tolist()
    if len(numbers) == batch.num_groups:
        return [[number] for number in numbers]
    owner = batch.group if len(numbers) == batch.num_sequences else batch.group[batch.seq]
    if len(numbers) != owner.shape[0]:  # the chosen side's tokens alone
        owner = owner[(batch.place == 0)[batch.seq]]
    out: list[list[float]] = [[] for _ in range(batch.num_groups)]
    for number, group in zip(numbers, owner.tolist(), strict=True):
        out[group].append(number)
    return out


def _exp(loss: Measure) -> Measure:
    low, high = (None if end is None else math.exp(min(end, 700.0)) for end in (loss.low, loss.high))
    return Measure(math.exp(min(loss.value, 700.0)), low, high, loss.n)
