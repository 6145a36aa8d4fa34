"""Flat tensors of one micro-batch, and how unreduced losses become one number.

A batch is one packed row of P tokens: a forest of segments, each attending to itself causally and
to its ancestors in full. It has N trained tokens, S sequences, G groups; nothing is padded.
`predictor[n]` is the packed position whose hidden state predicts trained token n, so a prompt's
last position predicts the first token of every completion.

Objectives return unreduced terms, one entry a token, sequence or group. A `Reduction` weighs
them, normalised over the whole optimizer step (all micro-batches, all ranks): the gradient does
not depend on how the step was split. Aggregation is data, not code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from strop import dist
from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@dataclass(frozen=True, slots=True)
class Layout:
    """A forest of segments in a packed row; parents stand before children, -1 is a root.

    Attributes: start, length (tokens, never 0) and parent of each segment; `leaf[s]` is the
        last segment of sequence s, whose tokens are those of its path from the root.
    """

    start: tuple[int, ...]
    length: tuple[int, ...]
    parent: tuple[int, ...]
    leaf: tuple[int, ...]

    def path(self, segment: int) -> tuple[int, ...]:
        """The segments from the root down to this one."""
        chain = [segment]
        while self.parent[chain[-1]] >= 0:
            chain.append(self.parent[chain[-1]])
        return tuple(reversed(chain))


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch. Shapes: P packed tokens, N trained tokens, S sequences, G groups.

    Attributes:
        input_ids, position_ids: [P]
        layout: the forest of segments.
        predictor: [N] packed position whose output predicts the token.
        position: [N] packed position where the token itself stands; -1 where it is no input (a
            completion's last token, unless packed to be read).
        target: [N] token ids.
        seq: [N] sequence of each trained token, ascending.
        group: [S] group of each sequence, ascending.
        place: [S] place of the sequence in its group; 0 is the first (the chosen one of a pair).
        last: [S] packed position of each sequence's last token that is an input.
        columns: recorded numbers by name; [N], [S] or [G] by what the name stands for.
        sequence_ids: [S] each sequence's number in its step, for writing annotations back.
    """

    input_ids: Tensor
    position_ids: Tensor
    layout: Layout
    predictor: Tensor
    position: Tensor
    target: Tensor
    seq: Tensor
    group: Tensor
    place: Tensor
    last: Tensor
    num_groups: int
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    sequence_ids: tuple[int, ...] = ()

    @property
    def num_sequences(self) -> int:
        return int(self.group.shape[0])

    @property
    def num_tokens(self) -> int:
        """N, the trained tokens."""
        return int(self.target.shape[0])

    def with_columns(self, **columns: Tensor) -> Batch:
        """The same batch with more recorded columns."""
        return replace(self, columns={**self.columns, **columns})


@dataclass(frozen=True, slots=True)
class Idle:
    """What of a step has a loss of exactly zero, so that it is not computed, and yet counts in its normalisers.

    Attributes: tokens, sequences, groups: how many; first_tokens: those of the groups' first sequences.
    """

    tokens: int = 0
    sequences: int = 0
    groups: int = 0
    first_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """The micro-batches of one optimizer step, and what was counted on the way (name -> value)."""

    batches: tuple[Batch, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    idle: Idle = Idle()


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a forward gives an objective; fp32. logprobs, entropy, correct, values: [N]; scores: [S].

    `correct` is 1 where the trained token is the model's first choice. A model with a scalar head
    alone gives no log-probs: they are empty.
    """

    logprobs: Tensor
    entropy: Tensor | None = None
    correct: Tensor | None = None
    values: Tensor | None = None
    scores: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """Unreduced losses, one tensor for each of the objective's reductions, and metrics.

    A metric is a detached tensor of any length; its mean over the step is what is logged.
    """

    losses: tuple[Tensor, ...]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


Unit = Literal["token", "sequence", "group"]


@dataclass(frozen=True, slots=True)
class Reduction:
    """How a unit's entries are weighed: raw(entry) / total over the optimizer step.

    Attributes:
        unit: what one entry is.
        per: what the step's total counts (a mean over tokens, sequences or groups).
        chosen: only entries of each group's first sequence count.
        constant: divide token entries by this length rather than by their number.
    """

    unit: Unit
    per: Unit
    chosen: bool = False
    constant: float | None = None

    def raw(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Unnormalised weights of a micro-batch's entries, [N], [S] or [G], in the loss's dtype."""
        first = (batch.place == 0).to(dtype)
        if self.unit == "group":
            return first.new_ones(batch.num_groups)
        if self.unit == "sequence":
            return first if self.chosen else torch.ones_like(first)
        weight = first[batch.seq] if self.chosen else first.new_ones(batch.num_tokens)
        if self.constant is not None:
            return weight / self.constant
        if self.per == "sequence":
            return weight / lengths(batch).to(dtype)[batch.seq]
        return weight

    def total(self, batch: Batch) -> float:
        """This micro-batch's share of the step's normaliser."""
        if self.per == "group":
            return float(batch.num_groups)
        if self.per == "sequence":
            return float((batch.place == 0).sum()) if self.chosen else float(batch.num_sequences)
        return float((batch.place == 0)[batch.seq].sum()) if self.chosen else float(batch.num_tokens)

    def idle_total(self, idle: Idle) -> float:
        """The same of what was not computed."""
        if self.per == "group" or (self.per == "sequence" and self.chosen):
            return float(idle.groups)
        if self.per == "sequence":
            return float(idle.sequences)
        return float(idle.first_tokens if self.chosen else idle.tokens)


TOKEN_MEAN = Reduction("token", per="token")
"""Mean over all trained tokens of the step (DAPO's; SFT's)."""
SEQUENCE_MEAN = Reduction("token", per="sequence")
"""Mean over sequences of the mean over each one's tokens (GRPO's)."""
PER_SEQUENCE = Reduction("sequence", per="sequence")
"""Mean over sequences of a loss that is one number a sequence."""
PER_GROUP = Reduction("group", per="group")
"""Mean over groups of a loss that is one number a group (a pair, a ranking)."""
CHOSEN_TOKEN_MEAN = Reduction("token", per="token", chosen=True)
"""Mean over all trained tokens of the groups' first sequences."""


def constant_mean(length: float) -> Reduction:
    """Sum over tokens divided by sequences times a constant length (Dr. GRPO's)."""
    return Reduction("token", per="sequence", constant=length)


def step_totals(reductions: Sequence[Reduction], batches: Sequence[Batch], idle: Idle = Idle()) -> list[float]:
    """Each reduction's normaliser over all micro-batches, what is idle, and ranks; an empty step counts as 1."""
    local = [r.idle_total(idle) + sum(r.total(batch) for batch in batches) for r in reductions]
    return [total if total > 0 else 1.0 for total in dist.sum_numbers(local)]


def weighted_loss(terms: Terms, batch: Batch, reductions: Sequence[Reduction], totals: Sequence[float]) -> Tensor:
    """This micro-batch's part of the step's loss, a scalar: summed over micro-batches it is exact."""
    assert len(terms.losses) == len(reductions) == len(totals)
    parts = [
        (reduction.raw(batch, loss.dtype) * loss).sum() / total
        for loss, reduction, total in zip(terms.losses, reductions, totals, strict=True)
    ]
    return torch.stack(parts).sum()


def lengths(batch: Batch) -> Tensor:
    """Trained tokens of each sequence, [S], at least 1, fp32."""
    ones = torch.ones(batch.num_tokens, device=batch.seq.device)
    return sum_by_sequence(ones, batch).clamp(min=1.0)


def sum_by_sequence(values: Tensor, batch: Batch) -> Tensor:
    """Token numbers [N] summed within each sequence, [S]."""
    return values.new_zeros(batch.num_sequences).index_add(0, batch.seq, values)


def mean_by_sequence(values: Tensor, batch: Batch) -> Tensor:
    """Token numbers [N] averaged within each sequence, [S]."""
    return sum_by_sequence(values, batch) / lengths(batch).to(values.dtype)


def pairs(values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sequence numbers [S] split into the groups' (chosen, rejected), each [G]."""
    assert batch.num_sequences == 2 * batch.num_groups, "a pairwise objective needs groups of two"
    by_group = values.view(batch.num_groups, 2)
    return by_group[:, 0], by_group[:, 1]
