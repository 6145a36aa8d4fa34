"""Held-out rows under an objective: eval_loss and the objective's metrics, with intervals over rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from strop.batch import Batch, Outputs, weighted_loss
from strop.data.encoded import EncodedGroup
from strop.data.pack import pack
from strop.evaluate.statistics import Measure, measure
from strop.lazy import lazy_module
from strop.model.forward import Model
from strop.model.head import reads_last
from strop.objectives import Objective
from strop.train.metrics import margins

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

Rows = Mapping[str, Sequence[float]]
"""Each figure's value for every row."""

SHARES = frozenset({"accuracy", "mean_token_accuracy", "rewards/accuracies", "rewards/ties", "tie_rate"})
"""Metrics that say how often something is so, and not how much of something there is."""


def evaluate_objective(
    model: Model, groups: Sequence[EncodedGroup], objective: Objective, max_tokens: int, device: str
) -> dict[str, Measure]:
    """eval_loss and eval_<metric>: the mean over rows of each row's mean, bootstrapped over rows; n counts rows.

    Token losses also give eval_perplexity = exp(eval_loss); here a row counts once however long it
    is, unlike in the training loss.
    """
    return measures_of(objective_rows(model, groups, objective, max_tokens, device), objective)


def objective_rows(
    model: Model, groups: Sequence[EncodedGroup], objective: Objective, max_tokens: int, device: str
) -> dict[str, list[float]]:
    """eval_loss and eval_<metric> of every row, in order: the mean over what the row has of it, nan if nothing."""
    first = {number: row for row, number in enumerate(accumulate((len(g.sequences) for g in groups), initial=0))}
    rows: dict[str, list[float]] = {}
    with torch.no_grad():
        for batch in pack(groups, max_tokens=max_tokens, device=device, read_last=reads_last(model)).batches:
            here = [first[n] for n, place in zip(batch.sequence_ids, batch.place.tolist(), strict=True) if place == 0]
            outputs = model(batch, wants=objective.wants)
            for number, row in enumerate(here):
                for name, value in _figures(objective, *_only(number, outputs, batch)).items():
                    rows.setdefault(f"eval_{name}", [math.nan] * len(groups))[row] = value
    return rows


def measures_of(rows: Rows, objective: Objective) -> dict[str, Measure]:
    """The figures of `objective_rows`, with their intervals."""
    figures = {
        name: measure([[value] for value in values], share=name.removeprefix("eval_") in SHARES)
        for name, values in rows.items()
    }
    means = {name.removeprefix("eval_"): measure.value for name, measure in figures.items()}
    for name, value in margins(means).items():
        figures[f"eval_{name}"] = Measure(value, None, None, len(next(iter(rows.values()))))
    if all(reduction.unit == "token" for reduction in objective.reductions):
        figures["eval_perplexity"] = _exp(figures["eval_loss"])
    return figures


def _figures(objective: Objective, outputs: Outputs, batch: Batch) -> dict[str, float]:
    """The loss of a batch of one group, and the mean of each metric that has entries there."""
    terms = objective(outputs, batch)
    totals = [reduction.total(batch) or 1.0 for reduction in objective.reductions]
    figures = {"loss": float(weighted_loss(terms, batch, objective.reductions, totals))}
    means = {name: values.double().mean() for name, values in terms.metrics.items() if values.numel()}
    return {**figures, **{name: float(mean) for name, mean in means.items()}}


def _only(number: int, outputs: Outputs, batch: Batch) -> tuple[Outputs, Batch]:
    """What an objective reads, of one group alone: no objective looks beyond its unit, so the numbers are the same.

    The packed row and its layout stay whole; no objective reads them.
    """
    sequences = batch.group == number
    tokens = sequences[batch.seq]

    def part(values: Tensor) -> Tensor:
        # Where two of the three lengths are equal, each has one entry of the other: either way the same entries.
        if len(values) == batch.num_tokens:
            return values[tokens]
        return values[sequences] if len(values) == batch.num_sequences else values[number : number + 1]

    def maybe(values: Tensor | None) -> Tensor | None:
        return None if values is None else part(values)

    seq, group = batch.seq[tokens], batch.group[sequences]
    alone = replace(
        batch,
        predictor=batch.predictor[tokens],
        position=batch.position[tokens],
        target=batch.target[tokens],
        seq=seq - seq.min() if len(seq) else seq,
        group=torch.zeros_like(group),
        place=batch.place[sequences],
        last=batch.last[sequences],
        num_groups=1,
        columns={name: part(values) for name, values in batch.columns.items()},
        sequence_ids=tuple(n for n, own in zip(batch.sequence_ids, sequences.tolist(), strict=True) if own),
    )
    seen = Outputs(
        logprobs=part(outputs.logprobs),
        entropy=maybe(outputs.entropy),
        correct=maybe(outputs.correct),
        values=maybe(outputs.values),
        scores=maybe(outputs.scores),
    )
    return seen, alone


def _exp(loss: Measure) -> Measure:
    low, high = (None if end is None else math.exp(min(end, 700.0)) for end in (loss.low, loss.high))
    return Measure(math.exp(min(loss.value, 700.0)), low, high, loss.n)
