"""Keys and values while sampling: each prompt's once, each row's own, and which of them a layer sees.

Columns make a decode step cheap: all rows write their newest token at the same column whatever their
length, so a step writes a slice, and a sliding window is a slice too. Prompts end at their buffer's
last column for the same reason. Rows and prompts that are done are replaced by the last ones, so
that the live ones stand first and only one slot is copied for each that ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from strop.lazy import lazy_module
from strop.rollout.transcript import Bools, Ints

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

HIDDEN = -1e30
"""Bias of a column that a query must not see; finite, so that a fully hidden piece merges to nothing."""


@dataclass(slots=True)
class Slab:
    """Keys and values of many slots, a pair of buffers a layer: [slots, heads, columns, dim]."""

    num_slots: int
    num_columns: int
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def at(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's buffers, made at first use for keys and values [tokens, heads, dim].

        Zeros, since columns that a bias hides are still multiplied: garbage may not be finite.
        """
        if layer not in self.layers:
            slots, columns = self.num_slots, self.num_columns
            pair = (t.new_zeros(slots, t.shape[1], columns, t.shape[2]) for t in (key, value))
            self.layers[layer] = (next(pair), next(pair))
        return self.layers[layer]

    def grow(self, num_slots: int, num_columns: int) -> None:
        """Larger buffers with the old content at the front."""
        for layer, pair in self.layers.items():
            larger = tuple(t.new_zeros(num_slots, t.shape[1], num_columns, t.shape[3]) for t in pair)
            for new, old in zip(larger, pair, strict=True):
                new[: self.num_slots, :, : self.num_columns] = old
            self.layers[layer] = (larger[0], larger[1])
        self.num_slots, self.num_columns = num_slots, num_columns

    def move(self, target: Ints, source: Ints, first: int, last: int) -> None:
        """Copy slots onto other slots, columns first to last - 1."""
        for pair in self.layers.values():
            to, at = (torch.from_numpy(i).to(pair[0].device) for i in (target, source))
            for buffer in pair:
                view = buffer[:, :, first:last]
                view.index_copy_(0, to, view.index_select(0, at))

    def shift(self, num_slots: int, first: int, last: int) -> None:
        """Move columns first to last - 1 to the front; they must not reach where they came from."""
        assert last - first <= first
        for pair in self.layers.values():
            for buffer in pair:
                buffer[:num_slots, :, : last - first] = buffer[:num_slots, :, first:last]


@dataclass(frozen=True, slots=True)
class Run:
    """Prompts of equal length that stand one after another in a packed prefill."""

    slot: int
    count: int
    length: int
    offset: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What a layer asked of its attention: the factor of the scores, and the window (None: all)."""

    scale: float
    window: int | None


@dataclass(frozen=True, slots=True)
class View:
    """What one kind of layer sees in a decode step: two column ranges, and the biases of their scores.

    Attributes:
        own_bias: [R * heads, 1, columns], or one zero where all rows see them all.
        prompt_bias: [P * heads, 1, columns], or with a row for each query where the window cuts
            the prompt, or one zero.
    """

    own_first: int
    own_bias: Tensor
    prompt_columns: int
    prompt_bias: Tensor


@dataclass(frozen=True, slots=True)
class Grid:
    """Where rows stand when they are grouped by prompt: a grid [P, most rows of a prompt].

    Attributes:
        row: [P * most] the row in each cell; any row in an empty cell.
        slot, rank: [R] each row's cell.
    """

    row: Tensor
    slot: Tensor
    rank: Tensor


@dataclass(slots=True)
class Cache:
    """The state that the attention function reads and writes; one for each call of `sample`.

    Attributes:
        prompts, own: keys and values of the live prompts and of the live rows.
        lengths: [P] tokens of each live prompt.
        row: [R] the caller's number of each live row.
        slot: [R] its prompt's slot.
        start: [R] the column of its first own token.
        column: where this step's tokens stand.
        runs: the packed prompts when the call is a prefill, empty in a decode step.
        asked: what each layer asked for in its last call.
        grid: None where the rows already stand grouped by prompt, equally many each.
    """

    prompts: Slab
    own: Slab
    device: torch.device
    lengths: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    row: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    slot: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    start: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    column: int = -1
    runs: list[Run] = field(default_factory=list)
    asked: dict[int, Asked] = field(default_factory=dict)
    grid: Grid | None = None
    views: dict[tuple[int | None, int, int, torch.dtype], View] = field(default_factory=dict)
    prompt_views: dict[tuple[int, torch.dtype], tuple[int, Tensor]] = field(default_factory=dict)
    zeros: dict[torch.dtype, Tensor] = field(default_factory=dict)

    def begin_prompts(self, lengths: Sequence[int]) -> int:
        """Prepare a prefill of packed prompts; returns the slot of the first."""
        first = len(self.lengths)
        if first + len(lengths) > self.prompts.num_slots:
            self.prompts.grow(max(2 * self.prompts.num_slots, first + len(lengths)), self.prompts.num_columns)
        self.lengths = np.concatenate([self.lengths, np.array(lengths, np.int64)])
        self.runs, offset = [], 0
        for i, length in enumerate(lengths):
            if self.runs and self.runs[-1].length == length:
                last = self.runs[-1]
                self.runs[-1] = Run(last.slot, last.count + 1, length, last.offset)
            else:
                self.runs.append(Run(first + i, 1, length, offset))
            offset += length
        return first

    def add_rows(self, row: Ints, slot: Ints) -> None:
        """New live rows; their first own token is written by the next step."""
        self.row = np.concatenate([self.row, row])
        self.slot = np.concatenate([self.slot, slot])
        self.start = np.concatenate([self.start, np.full(len(row), self.column + 1)])
        self._arrange()

    def drop_rows(self, done: Bools) -> Ints:
        """Forget finished rows: the last ones move into their places. Returns the order kept, [R']."""
        num_left = len(done) - int(done.sum())
        target = np.flatnonzero(done[:num_left])
        source = num_left + np.flatnonzero(~done[num_left:])
        if len(target):
            self.own.move(target, source, int(self.start.min()), self.column + 1)
        order = np.arange(num_left)
        order[target] = source
        self.row, self.slot, self.start = self.row[order], self.slot[order], self.start[order]
        self._drop_prompts()
        return order

    def _drop_prompts(self) -> None:
        """Forget prompts without live rows, the same way."""
        used = np.bincount(self.slot, minlength=len(self.lengths)) > 0
        num_left = int(used.sum())
        target = np.flatnonzero(~used[:num_left])
        source = num_left + np.flatnonzero(used[num_left:])
        if len(target):
            columns = self.prompts.num_columns
            self.prompts.move(target, source, columns - int(self.lengths[source].max()), columns)
        order = np.arange(num_left)
        order[target] = source
        place = np.zeros(len(used), np.int64)
        place[order] = np.arange(num_left)
        self.lengths, self.slot = self.lengths[order], place[self.slot]
        self._arrange()

    def _arrange(self) -> None:
        """Find the grid, and forget what was known of the prompts' columns."""
        self.prompt_views.clear()
        counts = np.bincount(self.slot, minlength=len(self.lengths))
        most = int(counts.max(initial=0))
        by_prompt = np.argsort(self.slot, kind="stable")
        rank = np.empty_like(by_prompt)
        rank[by_prompt] = np.arange(len(by_prompt)) - np.repeat(np.cumsum(counts) - counts, counts)
        cell = self.slot * most + rank
        row = np.zeros(len(counts) * most, np.int64)
        row[cell] = np.arange(len(cell))
        same = len(row) == len(cell) and bool((cell == np.arange(len(cell))).all())
        self.grid = None if same else Grid(self._tensor(row), self._tensor(self.slot), self._tensor(rank))

    def next_column(self) -> Ints:
        """Move to the column of the next tokens; returns their positions in their sequences, [R]."""
        self.runs = []
        self.views.clear()
        self.column += 1
        if self.column == self.own.num_columns:
            first = int(self.start.min())
            if 2 * first >= self.column:
                self.own.shift(len(self.row), first, self.column)
                self.start, self.column = self.start - first, self.column - first
            else:
                self.own.grow(self.own.num_slots, 2 * self.own.num_columns)
        return self.lengths[self.slot] + self.column - self.start

    def view(self, window: int | None, heads: int, num_shared: int, dtype: torch.dtype) -> View:
        """The columns a layer sees; a query sees `window` tokens, itself among them (None: all).

        Args: heads: key heads; num_shared: query heads that share one; dtype: of the scores.
        """
        key = (window, heads, num_shared, dtype)
        if key not in self.views:
            self.views[key] = self._view(window, heads, num_shared, dtype)
        return self.views[key]

    def _view(self, window: int | None, heads: int, num_shared: int, dtype: torch.dtype) -> View:
        first, latest = int(self.start.min()), int(self.start.max())
        if window is not None:
            first = max(first, self.column - window + 1)
        own_bias = self._zero(dtype)
        if first < latest:
            hidden = np.arange(first, self.column + 1) < self.start[:, None]
            own_bias = self._bias(hidden[:, None], heads, dtype)
        if window is not None:  # what the window leaves of the prompt differs by row
            whole = self.lengths[self.slot]
            seen = np.clip(window - (self.column - self.start + 1), 0, whole)
            if bool((seen < whole).any()):
                return View(first, own_bias, *self._cut_prompts(seen, heads, num_shared, dtype))
        return View(first, own_bias, *self._whole_prompts(heads, dtype))

    def _whole_prompts(self, heads: int, dtype: torch.dtype) -> tuple[int, Tensor]:
        """Columns of the prompts and a bias that hides what stands before the shorter ones."""
        if (heads, dtype) not in self.prompt_views:
            most = int(self.lengths.max())
            hidden = np.arange(most, 0, -1) > self.lengths[:, None]
            self.prompt_views[heads, dtype] = most, self._bias(hidden[:, None], heads, dtype)
        return self.prompt_views[heads, dtype]

    def _cut_prompts(self, seen: Ints, heads: int, num_shared: int, dtype: torch.dtype) -> tuple[int, Tensor]:
        """Columns of the prompts and a bias where the rows see so many of their tokens, [R]."""
        most = int(seen.max())
        by_cell = seen if self.grid is None else seen[self.grid.row.cpu().numpy()]
        hidden = np.arange(most, 0, -1) > by_cell.reshape(len(self.lengths), -1, 1)
        return most, self._bias(hidden.repeat(num_shared, 1), heads, dtype)

    def _bias(self, hidden: Bools, heads: int, dtype: torch.dtype) -> Tensor:
        """[N, q, columns] of what is hidden, as a bias for each of N * heads; one zero where nothing is."""
        if not hidden.any():
            return self._zero(dtype)
        bias = np.where(hidden, np.float32(HIDDEN), np.float32(0))
        return self._tensor(bias.repeat(heads, 0)).to(dtype)

    def _zero(self, dtype: torch.dtype) -> Tensor:
        if dtype not in self.zeros:
            self.zeros[dtype] = torch.zeros(1, 1, 1, dtype=dtype, device=self.device)
        return self.zeros[dtype]

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)
