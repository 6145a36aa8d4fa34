"""What is measured: the cells of the table, the rows each step trains on, and the work they need.

Prompts and responses have lengths uniform in [half, full] of the cell's numbers, the stop token
counted; rollouts always run to the full length. Rows are a function of the cell and the step's
number alone, so both sides train on the same token ids in the same order.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from models import FIRST_WORD, SHAPES, Shape, stop_token

Kind = Literal["DPO", "GRPO", "SFT"]

NUM_GENERATIONS = 8
"""Completions a prompt in GRPO cells."""


@dataclass(frozen=True)
class Cell:
    """One line of the table.

    Attributes: prompt, response: full lengths in tokens; groups: pairs (DPO), prompts (GRPO) or
        rows (SFT) a step; limit: the least speed over the peer at its best and as it comes, and
        the most peak memory relative to its best, that the project asks for; None where it does not.
    """

    model: str
    kind: Kind
    prompt: int
    response: int
    groups: int
    limit: tuple[float, float, float] | None = None

    @property
    def name(self) -> str:
        return f"{self.model} {self.kind} {self.prompt}/{self.response}"

    @property
    def shape(self) -> Shape:
        return SHAPES[self.model]

    @property
    def num_completions(self) -> int:
        """Completions a group."""
        return {"DPO": 2, "GRPO": NUM_GENERATIONS, "SFT": 1}[self.kind]


CELLS = (
    Cell("A", "DPO", 64, 64, 8, (1.7, 5, 0.75)),
    Cell("A", "DPO", 512, 128, 4, (2.5, 8, 0.6)),
    Cell("B", "DPO", 64, 64, 4, (2.5, 10, 0.5)),
    Cell("B", "DPO", 512, 128, 2, (3, 10, 0.4)),
    Cell("B", "DPO", 1024, 256, 1),
    Cell("A", "GRPO", 64, 64, 8, (2.2, 4, 0.62)),
    Cell("A", "GRPO", 512, 128, 2, (3.8, 8, 0.45)),
    Cell("B", "GRPO", 64, 64, 1),
    Cell("B", "GRPO", 512, 128, 1, (3.5, 8, 0.35)),
    Cell("A", "SFT", 64, 64, 16),
    Cell("B", "SFT", 64, 64, 16),
)


def cell_named(name: str) -> Cell:
    """The cell of that name.

    Raises: ValueError listing the names there are.
    """
    found = [cell for cell in CELLS if cell.name.lower() == name.lower()]
    if not found:
        raise ValueError(f"no cell {name!r}; cells: {', '.join(cell.name for cell in CELLS)}")
    return found[0]


@dataclass(frozen=True)
class Row:
    """One group's token ids: a prompt and its given completions (none for GRPO), stop token included."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]


def rows(cell: Cell, step: int) -> list[Row]:
    """The rows of one optimizer step."""
    draw = random.Random(f"{cell.name} {step}")
    stop_id = stop_token(cell.shape, stops=cell.kind != "GRPO")
    count = 0 if cell.kind == "GRPO" else cell.num_completions

    def words(num: int) -> tuple[int, ...]:
        return tuple(draw.randrange(FIRST_WORD, cell.shape.vocabulary - 1) for _ in range(num))

    def length(full: int) -> int:
        return draw.randint(full // 2, full)

    return [
        Row(words(length(cell.prompt)), tuple((*words(length(cell.response) - 1), stop_id) for _ in range(count)))
        for _ in range(cell.groups)
    ]


def num_tokens(cell: Cell, batch: list[Row]) -> int:
    """Non-padding tokens of a step as trainers count them: the prompt once for every completion."""
    if cell.kind == "GRPO":
        return sum(NUM_GENERATIONS * (len(row.prompt) + cell.response) for row in batch)
    return sum(len(row.prompt) + len(ids) for row in batch for ids in row.completions)


def step_flops(cell: Cell, batch: list[Row]) -> float:
    """Matmul FLOPs that a step cannot do without: the floor's numerator.

    Counted: each prompt once for its group, each completion once; causal attention over what a
    token may see; the vocabulary head at predicting positions only; backward twice the forward;
    for GRPO also one forward to sample each token. A fixed reference counts nothing (cached).
    A multiply and an add are two.
    """
    lengths = [[len(ids) for ids in row.completions] or [cell.response] * NUM_GENERATIONS for row in batch]
    forward = sum(_group_flops(cell.shape, len(row.prompt), n) for row, n in zip(batch, lengths, strict=True))
    return forward * (4 if cell.kind == "GRPO" else 3)


def _group_flops(shape: Shape, prompt: int, completions: list[int]) -> float:
    """One forward of a prompt and its completions; the last token of each predicts nothing."""
    inputs = prompt + sum(n - 1 for n in completions)
    seen = prompt * (prompt + 1) / 2 + sum((n - 1) * (prompt + n / 2) for n in completions)
    attention = 4 * shape.layers * shape.heads * shape.head * seen
    head = 2 * shape.hidden * shape.vocabulary * sum(completions)
    return 2 * shape.matmul_parameters() * inputs + attention + head


def reward(ids: list[int]) -> float:
    """A cheap reward that differs between completions: the share of even token ids."""
    return sum(i % 2 == 0 for i in ids) / max(len(ids), 1)
