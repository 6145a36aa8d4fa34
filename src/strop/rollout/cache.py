"""Keys and values while sampling: each prompt's once, each row's own, and attention over both.

A decode step is one packed row of R tokens, one a live row. Its queries meet the prompt's keys
(stored once, read by all rows of that prompt together) and the row's own; the two partial results
are merged by their log-sum-exps, which is exact. Columns make it cheap: all rows write their newest
token at the same column whatever their length, so a step writes a slice, and a sliding window is a
slice too. Prompts end at their buffer's last column for the same reason.

Left out: attention with a soft cap or sinks, and layers that read another layer's keys; sample
those with path="padded".
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from strop.lazy import lazy_module
from strop.rollout.transcript import Bools, Ints

if TYPE_CHECKING:
    import torch
    import transformers
    from torch import Tensor
else:
    torch = lazy_module("torch")
    transformers = lazy_module("transformers")

log = logging.getLogger(__name__)

HIDDEN = -1e30
"""Bias of a column that a query must not see; finite, so that a fully hidden piece merges to nothing."""


@dataclass(slots=True)
class Slab:
    """Keys and values of many slots, a pair of buffers a layer: [slots, heads, columns, dim]."""

    num_slots: int
    num_columns: int
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def at(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's buffers, made at first use for keys and values [1, heads, tokens, dim]."""
        if layer not in self.layers:
            shapes = ((self.num_slots, t.shape[1], self.num_columns, t.shape[3]) for t in (key, value))
            self.layers[layer] = (key.new_zeros(next(shapes)), value.new_zeros(next(shapes)))
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
class View:
    """What one kind of layer sees in a decode step: two column ranges, with biases where ragged."""

    own_first: int
    own_bias: Tensor | None
    prompt_columns: int
    prompt_bias: Tensor | None


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
    grid: tuple[Tensor, Tensor] | None = None
    views: dict[tuple[int | None, int], View] = field(default_factory=dict)

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
        """Where each row stands when rows are grouped by prompt: a grid [P, most rows of a prompt].

        `grid` is the row in each cell (any row in an empty cell) and each row's cell; None where the
        rows already stand that way.
        """
        counts = np.bincount(self.slot, minlength=len(self.lengths))
        most = int(counts.max(initial=0))
        by_prompt = np.argsort(self.slot, kind="stable")
        rank = np.arange(len(by_prompt)) - np.repeat(np.cumsum(counts) - counts, counts)
        cell = np.empty_like(by_prompt)
        cell[by_prompt] = self.slot[by_prompt] * most + rank
        cells = np.zeros(len(counts) * most, np.int64)
        cells[cell] = np.arange(len(cell))
        same = len(cells) == len(cell) and bool((cell == np.arange(len(cell))).all())
        self.grid = None if same else (self._tensor(cells), self._tensor(cell))

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

    def view(self, window: int | None, num_shared: int) -> View:
        """The columns a layer sees; a query sees `window` tokens, itself among them (None: all).

        Args: num_shared: query heads that share a key head.
        """
        if (window, num_shared) not in self.views:
            self.views[window, num_shared] = self._view(window, num_shared)
        return self.views[window, num_shared]

    def _view(self, window: int | None, num_shared: int) -> View:
        first, latest = int(self.start.min()), int(self.start.max())
        if window is not None:
            first = max(first, self.column - window + 1)
        hidden = np.arange(first, self.column + 1) < self.start[:, None]
        own_bias = self._bias(hidden)[:, None, None] if first < latest else None
        seen = self.lengths
        if window is not None:  # what the window leaves of the prompt differs by row
            left = window - (self.column - self.start + 1)
            seen = np.minimum(self.lengths[self.slot], np.maximum(left, 0))
            if bool((seen == self.lengths[self.slot]).all()):
                return View(first, own_bias, *self._prompt_view(self.lengths, None))
            return View(first, own_bias, *self._prompt_view(seen, num_shared))
        return View(first, own_bias, *self._prompt_view(seen, None))

    def _prompt_view(self, seen: Ints, num_shared: int | None) -> tuple[int, Tensor | None]:
        """Columns of the prompts in sight and a bias where not all see them all.

        Args: seen: tokens in sight, [P], or [R] when `num_shared` query heads a row differ by row.
        """
        most = int(seen.max())
        if int(seen.min()) == most:
            return most, None
        hidden = self._bias(np.arange(most, 0, -1) > seen[:, None])
        if num_shared is None:
            return most, hidden[:, None, None]
        gridded = hidden if self.grid is None else hidden[self.grid[0]]
        gridded = gridded.unflatten(0, (len(self.lengths), -1))
        return most, gridded.repeat_interleave(num_shared, 1)[:, None]

    def _bias(self, hidden: Bools) -> Tensor:
        return self._tensor(np.where(hidden, np.float32(HIDDEN), np.float32(0)))

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    rollout_cache: Cache,
    **model_extras: object,
) -> tuple[Tensor, None]:
    """Attention of a packed row over the cache, in the form that transformers' models call.

    Args: query: [1, H, tokens, D]; key, value: [1, heads, tokens, D], after rotary embedding.
    Returns: [1, tokens, H, D] and no weights.
    Raises: ValueError for a soft cap or sinks, which this attention does not know.
    """
    if softcap is not None or s_aux is not None:
        raise ValueError(
            f"sampling with a shared prompt does not support {type(module).__name__}'s "
            f"{'soft cap' if softcap is not None else 'attention sinks'}; use path='padded'"
        )
    assert attention_mask is None and len(query) == 1
    scale = float(query.shape[-1] ** -0.5 if scaling is None else scaling)
    cache = rollout_cache
    if cache.runs:
        return _prefill(cache, module.layer_idx, query, key, value, scale, sliding_window), None
    return _decode(cache, module.layer_idx, query, key, value, scale, sliding_window), None


def _prefill(
    cache: Cache, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
) -> Tensor:
    """Causal attention inside each packed prompt, whose keys and values are kept, [1, tokens, H, D]."""
    buffers = cache.prompts.at(layer, key, value)
    pieces = []
    for run in cache.runs:
        tokens = slice(run.offset, run.offset + run.count * run.length)
        q, k, v = (t[0, :, tokens].unflatten(1, (run.count, run.length)).transpose(0, 1) for t in (query, key, value))
        for buffer, new in zip(buffers, (k, v), strict=True):
            buffer[run.slot : run.slot + run.count, :, -run.length :] = new
        band = None
        if window is not None and window < run.length:
            ones = torch.ones(run.length, run.length, dtype=torch.bool, device=q.device)
            band = ones.tril().triu(1 - window)
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=band, is_causal=band is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        pieces.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(pieces)[None]


def _decode(
    cache: Cache, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
) -> Tensor:
    """One token a row against its own past and its prompt, [1, R, H, D].

    The prompt's part enters the row's softmax as one more column: its score is the log-sum-exp of
    the prompt's scores and its value the prompt's output, which is the exact merge.
    """
    num_rows, heads, num_shared = query.shape[2], key.shape[1], query.shape[1] // key.shape[1]
    view = cache.view(window, num_shared)
    keys, values = cache.own.at(layer, key, value)
    keys[:num_rows, :, cache.column] = key[0].transpose(0, 1)
    values[:num_rows, :, cache.column] = value[0].transpose(0, 1)
    seen = slice(view.own_first, cache.column + 1)
    rows = query[0].transpose(0, 1).unflatten(1, (heads, num_shared))  # [R, heads, num_shared, D]
    scores = torch.matmul(rows * scale, keys[:num_rows, :, seen].transpose(-1, -2)).float()
    if view.own_bias is not None:
        scores.add_(view.own_bias)
    values = values[:num_rows, :, seen]
    if not view.prompt_columns:
        return torch.matmul(scores.softmax(-1).to(values.dtype), values).flatten(1, 2)[None]
    shared, lse = _prompt_piece(cache, layer, rows, scale, view)
    weights = torch.cat([scores, lse[..., None]], -1).softmax(-1).to(values.dtype)
    own = torch.matmul(weights[..., :-1], values)
    return own.addcmul_(shared, weights[..., -1:]).flatten(1, 2)[None]


def _prompt_piece(cache: Cache, layer: int, rows: Tensor, scale: float, view: View) -> tuple[Tensor, Tensor]:
    """Attention of rows [R, heads, n, D] over their prompts, each read once; with log-sum-exps [R, heads, n]."""
    num_prompts, num_shared = len(cache.lengths), rows.shape[2]
    first = cache.prompts.num_columns - view.prompt_columns
    keys, values = (t[:num_prompts, :, first:] for t in cache.prompts.layers[layer])
    cells = rows if cache.grid is None else rows[cache.grid[0]]
    grid = cells.unflatten(0, (num_prompts, -1)).transpose(1, 2).flatten(2, 3)
    out, lse = piece(grid, keys, values, scale, view.prompt_bias)
    out = out.unflatten(2, (-1, num_shared)).transpose(1, 2).flatten(0, 1)
    lse = lse.unflatten(2, (-1, num_shared)).transpose(1, 2).flatten(0, 1)
    return (out, lse) if cache.grid is None else (out[cache.grid[1]], lse[cache.grid[1]])


def piece(query: Tensor, key: Tensor, value: Tensor, scale: float, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Full attention over some columns and its log-sum-exp (fp32), for merging with other columns.

    On a CPU it is torch's flash kernel, a private function that gives both; elsewhere, or should the
    function be gone, plain products.

    Args: query: [B, heads, q, D]; key, value: [B, heads, columns, D]; bias: [B, 1, 1 or q, columns].
    Returns: output [B, heads, q, D], log-sum-exp [B, heads, q].
    """
    if query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and _has_flash():
        mask = None if bias is None else bias.to(query.dtype)
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = flash(query, key, value, attn_mask=mask, scale=scale)
        return out, lse
    scores = torch.matmul(query * scale, key.transpose(-1, -2)).float()
    if bias is not None:
        scores.add_(bias)
    lse = scores.logsumexp(-1)
    weights = scores.sub_(lse[..., None]).exp_()
    return torch.matmul(weights.to(value.dtype), value), lse


@functools.cache
def _has_flash() -> bool:
    """Whether this torch has the CPU flash kernel; said once where it has not."""
    try:
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: B018
    except AttributeError:
        log.warning("this torch has no CPU flash attention kernel; sampling uses plain products, which are slower")
        return False
    return True


@contextmanager
def shared_attention(module: Any) -> Iterator[None]:
    """Let the model's attention layers call `attend`, without any mask, until the block ends.

    Raises: ValueError if the model does not take its attention from transformers' interface.
    """
    models = [m for m in module.modules() if isinstance(m, transformers.PreTrainedModel)]
    unable = [type(m).__name__ for m in models if not m._can_set_attn_implementation()]
    if unable or not models:
        name = unable[0] if unable else type(module).__name__
        raise ValueError(f"{name} does not take its attention from transformers' interface; use path='padded'")
    transformers.AttentionInterface.register("strop_decode", attend)
    before = {id(m.config): (m.config, m.config._attn_implementation) for m in models}
    try:
        for config, _ in before.values():
            config._attn_implementation = "strop_decode"
        yield
    finally:
        for config, name in before.values():
            config._attn_implementation = name
