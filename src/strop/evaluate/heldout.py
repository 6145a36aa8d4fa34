"""Held-out rows under an objective: eval_loss and the objective's metrics, with intervals over rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
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

Rows = Mapping[str, Sequence[float]]
"""Each figure's value for every row."""

SHARES = frozenset({"mean_token_accuracy", "rewards/accuracies", "rewards/ties"})
"""Metrics that say how often something is so, and not how much of something there is."""
OF_CHOSEN_TOKENS = frozenset({"nll_loss"})
"""Metrics with one entry for each trained token of the groups' first sequences."""


def evaluate_objective(
    model: LanguageModel, groups: Sequence[EncodedGroup], objective: Objective, max_tokens: int, device: str
) -> dict[str, Measure]:
    """eval_loss and eval_<metric>: the mean over rows of each row's mean, bootstrapped over rows; n counts rows.

    Token losses also give eval_perplexity = exp(eval_loss); here a row counts once however long it
    is, unlike in the training loss.
    """
    return measures_of(objective_rows(model, groups, objective, max_tokens, device), objective)


def objective_rows(
    model: LanguageModel, groups: Sequence[EncodedGroup], objective: Objective, max_tokens: int, device: str
) -> dict[str, list[float]]:
    """eval_loss and eval_<metric> of every row, in order: the mean over what the row has of it."""
    first = {number: row for row, number in enumerate(accumulate((len(g.sequences) for g in groups), initial=0))}
    rows: dict[str, list[float]] = {}
    with torch.no_grad():
        for batch in pack(groups, max_tokens=max_tokens, device=device).batches:
            here = [first[n] for n, place in zip(batch.sequence_ids, batch.place.tolist(), strict=True) if place == 0]
            terms = objective(forward(model, batch, wants=objective.wants), batch)
            for name, values in {"loss": terms.losses[0], **terms.metrics}.items():
                column = rows.setdefault(f"eval_{name}", [math.nan] * len(groups))
                for row, numbers in zip(here, _by_group(name, values, batch), strict=True):
                    column[row] = math.fsum(numbers) / len(numbers)
    return rows


def measures_of(rows: Rows, objective: Objective) -> dict[str, Measure]:
    """The figures of `objective_rows`, with their intervals."""
    figures = {
        name: measure([[value] for value in values], share=name.removeprefix("eval_") in SHARES)
        for name, values in rows.items()
    }
    if all(reduction.unit == "token" for reduction in objective.reductions):
        figures["eval_perplexity"] = _exp(figures["eval_loss"])
    return figures


def _by_group(name: str, values: Tensor, batch: Batch) -> list[list[float]]:
    """A tensor a group, a sequence or a token long, as each group's numbers."""
    numbers = values.float().tolist()
    by_token = batch.group[batch.seq]
    if name in OF_CHOSEN_TOKENS:
        owner = by_token[(batch.place == 0)[batch.seq]].tolist()
    elif len(numbers) == batch.num_groups:
        owner = list(range(batch.num_groups))
    else:
        owner = (batch.group if len(numbers) == batch.num_sequences else by_token).tolist()
    out: list[list[float]] = [[] for _ in range(batch.num_groups)]
    for number, group in zip(numbers, owner, strict=True):
        out[group].append(number)
    return out


def _exp(loss: Measure) -> Measure:
    low, high = (None if end is None else math.exp(min(end, 700.0)) for end in (loss.low, loss.high))
    return Measure(math.exp(min(loss.value, 700.0)), low, high, loss.n)
