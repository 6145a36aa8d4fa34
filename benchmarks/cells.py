"""What is measured: the cells of the table, the rows each step trains on, and the work they need.

Prompts and responses have lengths uniform in [half, full] of the cell's numbers, the stop token
counted; rollouts always run to the full length. Rows are a function of the cell and the step's
number alone, so both sides train on the same token ids in the same order (PPO, where TRL shuffles
its prompts whatever it is told, and SFT packed: rows of the same lengths on average).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from models import FIRST_WORD, SHAPES, Shape, stop_token

Kind = Literal["DPO", "ORPO", "SimPO", "RM", "KTO", "KTO unpaired", "GRPO", "PPO", "SFT"]
"""KTO: both completions of each prompt, one desirable and one not; KTO unpaired: one completion a prompt."""

NUM_COMPLETIONS: dict[Kind, int] = {
    "DPO": 2, "ORPO": 2, "SimPO": 2, "RM": 2, "KTO": 2, "KTO unpaired": 1, "GRPO": 8, "PPO": 1, "SFT": 1,
}  # fmt: skip
"""Completions a prompt."""
UNITS: dict[Kind, str] = {"GRPO": "prompts x 8", "PPO": "prompts", "SFT": "rows", "KTO unpaired": "rows"}
"""What a cell's groups are called; pairs where nothing stands here."""
PPO_EPOCHS = 4
"""Passes over each PPO batch, TRL's default."""

Limit = tuple[float, float | None, float | None]
"""The least speed over the peer at its best and as it comes, the most peak memory relative to its best;
None where nothing is asked."""


@dataclass(frozen=True)
class Cell:
    """One line of the table.

    Attributes: prompt, response: full lengths in tokens; groups: pairs, prompts (GRPO, PPO) or
        rows (SFT, KTO unpaired) a step; limit: what the project asks for; None where it does not.
    """

    model: str
    kind: Kind
    prompt: int
    response: int
    groups: int
    limit: Limit | None = None

    @property
    def name(self) -> str:
        return f"{self.model} {self.kind} {self.prompt}/{self.response}"

    @property
    def shape(self) -> Shape:
        return SHAPES[self.model]

    @property
    def num_completions(self) -> int:
        """Completions a group."""
        return NUM_COMPLETIONS[self.kind]

    @property
    def samples(self) -> bool:
        """Whether a step samples its completions."""
        return self.kind in ("GRPO", "PPO")

    @property
    def scores(self) -> bool:
        """Whether it needs a model with a scalar head (trained in RM; reward and value model in PPO)."""
        return self.kind in ("RM", "PPO")


NO_SLOWER = (1.0, 1.0, 1.0)
"""Where sharing prompts gives nothing: packing must at least not cost anything."""

CELLS = (
    Cell("A", "DPO", 64, 64, 8, (1.7, 5, 0.75)),
    Cell("A", "DPO", 512, 128, 4, (2.5, 8, 0.6)),
    Cell("B", "DPO", 64, 64, 4, (2.5, 10, 0.5)),
    Cell("B", "DPO", 512, 128, 2, (3, 10, 0.4)),
    Cell("B", "DPO", 1024, 256, 1),
    *(
        Cell(model, kind, prompt, response, groups, (faster, None, memory))
        for kind in ("ORPO", "SimPO", "RM", "KTO")
        for model, prompt, response, groups, faster, memory in (
            ("A", 64, 64, 8, 1.6, 0.75),
            ("A", 512, 128, 4, 2.3, 0.6),
            ("B", 64, 64, 4, 2.5, 0.5),
            ("B", 512, 128, 2, 3.0, 0.4),
        )
    ),
    Cell("A", "KTO unpaired", 64, 64, 16, NO_SLOWER),
    Cell("B", "KTO unpaired", 64, 64, 8, NO_SLOWER),
    Cell("A", "GRPO", 64, 64, 8, (2.2, 4, 0.62)),
    Cell("A", "GRPO", 512, 128, 2, (3.8, 8, 0.45)),
    Cell("B", "GRPO", 64, 64, 1),
    Cell("B", "GRPO", 512, 128, 1, (3.5, 8, 0.35)),
    Cell("A", "PPO", 64, 64, 16, (2, None, None)),
    Cell("A", "PPO", 512, 128, 8, (2, None, None)),
    Cell("B", "PPO", 64, 64, 4, (2, None, None)),
    Cell("B", "PPO", 512, 128, 1, (2, None, None)),
    Cell("A", "SFT", 64, 64, 16, NO_SLOWER),
    Cell("B", "SFT", 64, 64, 16, NO_SLOWER),
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
    """One group's token ids: a prompt and its given completions (none where they are sampled), stop token included."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]


def rows(cell: Cell, step: int) -> list[Row]:
    """The rows of one optimizer step."""
    draw = random.Random(f"{cell.name} {step}")
    stop_id = stop_token(cell.shape, stops=not cell.samples)
    count = 0 if cell.samples else cell.num_completions

    def words(num: int) -> tuple[int, ...]:
        return tuple(draw.randrange(FIRST_WORD, cell.shape.vocabulary - 1) for _ in range(num))

    def length(full: int) -> int:
        return draw.randint(full // 2, full)

    return [
        Row(words(length(cell.prompt)), tuple((*words(length(cell.response) - 1), stop_id) for _ in range(count)))
        for _ in range(cell.groups)
    ]


def desirable(cell: Cell, number: int, place: int) -> bool:
    """KTO's label of row `number`'s completion at `place`: the first of a pair; alone, every other row's."""
    return place == 0 if cell.kind == "KTO" else number % 2 == 0


def num_tokens(cell: Cell, batch: list[Row]) -> int:
    """Non-padding tokens of a step as trainers count them: the prompt once for every completion."""
    if cell.samples:
        return sum(cell.num_completions * (len(row.prompt) + cell.response) for row in batch)
    return sum(len(row.prompt) + len(ids) for row in batch for ids in row.completions)


def step_flops(cell: Cell, batch: list[Row]) -> float:
    """Matmul FLOPs that a step cannot do without: the floor's numerator.

    Counted: each prompt once for its group, each completion once; causal attention over what a
    token may see; the vocabulary head at predicting positions only; backward twice the forward.
    A multiply and an add are two. A fixed reference of fixed data counts nothing (cached). Beside
    forward and backward, the policy's forward once more: in GRPO to sample, in KTO for the
    baseline's mismatched completions. PPO: the policy samples and takes `PPO_EPOCHS` steps, the
    critic gives values and takes as many, and reference and reward model see each token once.
    """
    trunk = head = 0.0
    for row in batch:
        lengths = [len(ids) for ids in row.completions] or [cell.response] * cell.num_completions
        trunk += _trunk_flops(cell.shape, len(row.prompt), lengths, read_last=cell.kind == "RM")
        head += 2 * cell.shape.hidden * cell.shape.vocabulary * sum(lengths)
    if cell.kind == "PPO":
        trained = 3 * PPO_EPOCHS
        return (trained + 2) * (trunk + head) + (trained + 2) * trunk
    if cell.kind == "RM":
        return 3 * trunk
    return (trunk + head) * (4 if cell.kind in ("GRPO", "KTO", "KTO unpaired") else 3)


def _trunk_flops(shape: Shape, prompt: int, completions: list[int], *, read_last: bool) -> float:
    """One forward of a prompt and its completions without a head; a last token that nothing reads is no input."""
    lengths = [n if read_last else n - 1 for n in completions]
    seen = prompt * (prompt + 1) / 2 + sum(n * (prompt + (n + 1) / 2) for n in lengths)
    attention = 4 * shape.layers * shape.heads * shape.head * seen
    return 2 * shape.matmul_parameters() * (prompt + sum(lengths)) + attention


def reward(ids: list[int]) -> float:
    """A cheap reward that differs between completions: the share of even token ids."""
    return sum(i % 2 == 0 for i in ids) / max(len(ids), 1)
