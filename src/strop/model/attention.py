"""Shared-prefix attention over a packed forest of segments, behind transformers' attention interface.

Each token attends to its own segment causally and to every ancestor segment in full, so a prompt
that stands once in the row serves all its completions. With segments in depth-first order this is
one rule: token j is seen by the tokens i with j <= i < seen_until[j].

In the last layer only some rows are read (`model/tail.py`); the cascade makes only those.

Three realisations, chosen by device and by what a layer asks for:
- cascade (CPU): a causal flash call for a segment and the first children below it, one non-causal
  call of its other descendants' queries over its keys, merged by log-sum-exp; the backward calls the flash backward
  of each piece with the merged output and log-sum-exp, which is exact (Dao et al. 2022,
  arXiv:2205.14135, eq. 4 and appendix B.2; merging: Juravsky et al. 2024, arXiv:2402.05099).
- masked (any device): public scaled_dot_product_attention a tree, under an explicit mask. Used
  for layers whose sliding window is shorter than a path, and where the private CPU kernel is missing.
- flex (CUDA): FlexAttention with a block mask.

Left out: attention dropout (refused at load), soft-capped scores and attention sinks; models with
these take the padded path.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from strop.batch import Layout
from strop.model.tail import rows_read

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

NAME = "strop"
"""What this attention is called in transformers' registry (`config._attn_implementation`)."""


BLOCK = 192
"""Longest causal call on CPU: the kernel computes both triangles, so longer ones are cut into
causal blocks and rectangles, which was a third less time at 480 tokens."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Queries [q0, q1) over keys [k0, k1) of the packed row; causal only where they are the same."""

    q0: int
    q1: int
    k0: int
    k1: int

    @property
    def causal(self) -> bool:
        return self.q0 == self.k0


@dataclass(frozen=True, slots=True)
class Plan:
    """What attention needs to know of one packed row.

    Attributes:
        own: blocks of each chain of first children on themselves, causally (a prompt and its first
            completion are ordinary text).
        over: later blocks of a chain on what stands before them in it, and the descendants
            outside a chain on an ancestor's keys; not causal.
        trees: [start, end) of each root with all below it.
        seen_until: [P] the end of the subtree of each token's segment.
        positions: [P]. longest: the longest path, in tokens.
    """

    own: tuple[Piece, ...]
    over: tuple[Piece, ...]
    trees: tuple[tuple[int, int], ...]
    seen_until: Tensor
    positions: Tensor
    longest: int
    masks: dict[int | None, Any]


def plan(layout: Layout, positions: Tensor) -> Plan:
    """The pieces of a layout whose segments stand in depth-first order, on the positions' device."""
    ends = [start + length for start, length in zip(layout.start, layout.length, strict=True)]
    until = list(ends)
    for segment in reversed(range(len(ends))):
        parent = layout.parent[segment]
        if parent >= 0:
            until[parent] = max(until[parent], until[segment])
    chain = list(ends)
    heads = set(range(len(ends)))
    for segment in reversed(range(1, len(ends))):
        if layout.parent[segment] == segment - 1:  # depth-first order: the first child stands right behind
            chain[segment - 1] = chain[segment]
            heads.discard(segment)
    blocks = [_blocks(layout.start[i], chain[i]) for i in sorted(heads)]
    own = tuple(Piece(start, end, start, end) for chained in blocks for start, end in chained)
    over = [Piece(start, end, chained[0][0], start) for chained in blocks for start, end in chained[1:]]
    over += [Piece(c, u, s, e) for c, u, s, e in zip(chain, until, layout.start, ends, strict=True) if u > c]
    roots = [i for i, parent in enumerate(layout.parent) if parent < 0]
    lengths = torch.tensor(layout.length)
    return Plan(
        own=own,
        over=tuple(over),
        trees=tuple((layout.start[i], until[i]) for i in roots),
        seen_until=torch.repeat_interleave(torch.tensor(until), lengths).to(positions.device),
        positions=positions,
        longest=int(positions.max()) + 1,
        masks={},
    )


def _blocks(start: int, end: int) -> list[tuple[int, int]]:
    """A chain in near-equal blocks of at most `BLOCK` tokens."""
    count = -(-(end - start) // BLOCK)
    edges = [start + (end - start) * i // count for i in range(count + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def reading(plan: Plan, rows: Sequence[int]) -> tuple[Piece, ...]:
    """The pieces that give these rows, ascending: those of the plan with fewer queries; causal ones first.

    A row's output and log-sum-exp are those of all its pieces merged, as in the plan.
    """
    own: list[Piece] = []
    over: list[Piece] = []
    for p in (*plan.own, *plan.over):
        first, last = bisect_left(rows, p.q0), bisect_left(rows, p.q1)
        if first == last:
            continue
        start, end = rows[first], rows[last - 1] + 1
        if not p.causal:
            over.append(Piece(start, end, p.k0, p.k1))
        elif end - start == 1:
            over.append(Piece(start, end, p.k0, end))
        else:  # with what is unread before the first: a call of its own costs as much as it saves
            own.append(Piece(p.q0, end, p.k0, end))
    return (*own, *over)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    strop_plan: Plan | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_unused: object,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it. query [1, H, P, D]; key, value [1, H_kv, P, D].

    Returns: ([1, P, H, D], None).
    Raises: NotImplementedError where a model asks for something that only the padded path has.
    """
    if strop_plan is None or softcap is not None or s_aux is not None or dropout > 0:
        raise NotImplementedError("shared-prefix attention has no soft-capping, sinks or dropout")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast norms give fp32, projections bf16
    window = sliding_window if sliding_window is not None and strop_plan.longest > sliding_window else None
    if query.is_cuda:
        return _flex(query, key, value, strop_plan, scale, window), None
    if window is not None or not cascade_works():
        return _masked(query, key, value, strop_plan, scale, window), None
    rows = rows_read(module)
    out: Tensor
    if rows is None:
        out = _Cascade.apply(query, key, value, strop_plan, scale)
    else:
        out = _CascadeOfSome.apply(query, key, value, reading(strop_plan, rows.tolist()), scale)
    return out, None


AttentionInterface.register(NAME, attend)

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _Cascade(torch.autograd.Function):
    """Cascade attention on CPU. Grouped heads are a broadcast view, so keys are never copied."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float) -> Tensor:
        q, k, v = _by_kv_head(query, key, value)
        num_kv, repeat, length, width = q.shape
        result = query.new_empty(1, length, num_kv * repeat, width)
        out = _heads(result, num_kv)
        lse = torch.empty(num_kv, repeat, length, dtype=torch.float32)
        sizes = [p.q1 - p.q0 for p in plan.own]  # these tile the row in order
        own = [_flash(*part, 0.0, True, scale=scale) for part in _each(sizes, q, k, v)]
        torch._foreach_copy_(out.split(sizes, 2), [part for part, _ in own])
        torch.cat([part_lse for _, part_lse in own], 2, out=lse)
        for p in plan.over:
            rows, columns = slice(p.q0, p.q1), slice(p.k0, p.k1)
            part, part_lse = _flash(_fold(q[:, :, rows]), k[:, :1, columns], v[:, :1, columns], 0.0, False, scale=scale)
            _merge(out[:, :, rows], lse[:, :, rows], part, part_lse)
        ctx.save_for_backward(query, key, value, result, lse)
        ctx.plan, ctx.scale = plan, scale
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, result, lse = ctx.saved_tensors
        q, k, v = _by_kv_head(query, key, value)
        num_kv, repeat, length, width = q.shape
        out, grad_out = _heads(result, num_kv), _heads(grad.contiguous(), num_kv)
        grad_query = query.new_empty(1, length, num_kv * repeat, width)
        grad_key = key.new_empty(1, length, num_kv, width)
        grad_value = value.new_empty(1, length, num_kv, width)
        gq = _heads(grad_query, num_kv)
        gk, gv = grad_key[0].transpose(0, 1), grad_value[0].transpose(0, 1)
        sizes = [p.q1 - p.q0 for p in ctx.plan.own]
        own = [_flash_backward(*part, 0.0, True, scale=ctx.scale) for part in _each(sizes, grad_out, q, k, v, out, lse)]
        torch._foreach_copy_(gq.split(sizes, 2), [dq for dq, _, _ in own])
        torch._foreach_copy_(gk.split(sizes, 1), [dk.sum(1) if repeat > 1 else dk[:, 0] for _, dk, _ in own])
        torch._foreach_copy_(gv.split(sizes, 1), [dv.sum(1) if repeat > 1 else dv[:, 0] for _, _, dv in own])
        for p in ctx.plan.over:
            rows, columns = slice(p.q0, p.q1), slice(p.k0, p.k1)
            dq, dk, dv = _flash_backward(
                _fold(grad_out[:, :, rows]), _fold(q[:, :, rows]), k[:, :1, columns], v[:, :1, columns],
                _fold(out[:, :, rows]), lse[:, :, rows].reshape(num_kv, 1, -1), 0.0, False, scale=ctx.scale,
            )  # fmt: skip
            gq[:, :, rows] += dq.view(num_kv, repeat, -1, width)
            gk[:, columns] += dk[:, 0]
            gv[:, columns] += dv[:, 0]
        return grad_query.transpose(1, 2), grad_key.transpose(1, 2), grad_value.transpose(1, 2), None, None


class _CascadeOfSome(torch.autograd.Function):
    """The same for pieces that do not cover all queries: the other rows of the result are zero."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: tuple[Piece, ...], scale: float) -> Tensor:
        q, k, v = _by_kv_head(query, key, value)
        num_kv, repeat, length, width = q.shape
        result = query.new_zeros(1, length, num_kv * repeat, width)
        out = _heads(result, num_kv)
        lse = torch.full((num_kv, repeat, length), -torch.inf)
        for p in pieces:
            rows, columns = slice(p.q0, p.q1), slice(p.k0, p.k1)
            if p.causal:
                out[:, :, rows], lse[:, :, rows] = _flash(
                    q[:, :, rows], k[:, :, columns], v[:, :, columns], 0.0, True, scale=scale
                )
                continue
            part, part_lse = _flash(_fold(q[:, :, rows]), k[:, :1, columns], v[:, :1, columns], 0.0, False, scale=scale)
            _merge(out[:, :, rows], lse[:, :, rows], part, part_lse)
        ctx.save_for_backward(query, key, value, result, lse)
        ctx.pieces, ctx.scale = pieces, scale
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, result, lse = ctx.saved_tensors
        q, k, v = _by_kv_head(query, key, value)
        num_kv, repeat, length, width = q.shape
        out, grad_out = _heads(result, num_kv), _heads(grad.contiguous(), num_kv)
        grad_query = query.new_zeros(1, length, num_kv * repeat, width)
        grad_key = key.new_zeros(1, length, num_kv, width)
        grad_value = value.new_zeros(1, length, num_kv, width)
        gq = _heads(grad_query, num_kv)
        gk, gv = grad_key[0].transpose(0, 1), grad_value[0].transpose(0, 1)
        for p in ctx.pieces:
            rows, columns = slice(p.q0, p.q1), slice(p.k0, p.k1)
            given = grad_out[:, :, rows], q[:, :, rows], k[:, :, columns], v[:, :, columns], out[:, :, rows]
            if p.causal:
                dq, dk, dv = _flash_backward(*given, lse[:, :, rows], 0.0, True, scale=ctx.scale)
            else:
                g, a, b, c, o = given
                dq, dk, dv = _flash_backward(
                    _fold(g), _fold(a), b[:, :1], c[:, :1], _fold(o), lse[:, :, rows].reshape(num_kv, 1, -1),
                    0.0, False, scale=ctx.scale,
                )  # fmt: skip
            gq[:, :, rows] += dq.view(num_kv, repeat, -1, width)
            gk[:, columns] += dk.sum(1)
            gv[:, columns] += dv.sum(1)
        return grad_query.transpose(1, 2), grad_key.transpose(1, 2), grad_value.transpose(1, 2), None, None


def _by_kv_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views [H_kv, H / H_kv, P, D]; key and value are broadcast over their group of query heads."""
    num_kv = key.shape[1]
    q = query[0].unflatten(0, (num_kv, -1))
    return q, key[0].unsqueeze(1).expand_as(q), value[0].unsqueeze(1).expand_as(q)


def _heads(rows: Tensor, num_kv: int) -> Tensor:
    """[1, P, H, D] seen as [H_kv, H / H_kv, P, D]."""
    seen: Tensor = rows[0].transpose(0, 1).unflatten(0, (num_kv, -1))
    return seen


def _each(sizes: list[int], *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors' parts of these sizes along the packed row (their third dimension), side by side."""
    return zip(*(tensor.split(sizes, 2) for tensor in tensors), strict=True)


def _fold(rows: Tensor) -> Tensor:
    """[H_kv, R, L, D] as [H_kv, 1, R L, D]: without a causal mask, heads that share keys are just more queries."""
    return rows.flatten(1, 2).unsqueeze(1)


def _merge(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
    """Merge a softmax over more keys into (out, lse), in place; the part comes folded."""
    part, part_lse = part.view(out.shape), part_lse.view(lse.shape)
    total = torch.logaddexp(lse, part_lse)
    out.mul_((lse - total).exp_().unsqueeze(-1).to(out.dtype))
    out.add_(part * (part_lse - total).exp_().unsqueeze(-1).to(out.dtype))
    lse.copy_(total)


def _masked(query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float, window: int | None) -> Tensor:
    """Public attention under an explicit mask, one call a tree."""
    if window not in plan.masks:
        plan.masks[window] = [_tree_mask(plan, start, end, window) for start, end in plan.trees]
    parts = [
        F.scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end],
            attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1],
        )
        for (start, end), mask in zip(plan.trees, plan.masks[window], strict=True)
    ]  # fmt: skip
    joined: Tensor = torch.cat(parts, dim=2).transpose(1, 2)
    return joined


def _tree_mask(plan: Plan, start: int, end: int, window: int | None) -> Tensor:
    """[L, L] True where the row's token may see the column's."""
    index = torch.arange(start, end, device=plan.seen_until.device)
    row, column = index.unsqueeze(1), index.unsqueeze(0)
    mask = (column <= row) & (row < plan.seen_until[start:end].unsqueeze(0))
    if window is not None:
        at = plan.positions[start:end]
        mask &= at.unsqueeze(1) - at.unsqueeze(0) < window
    return mask


def block_mask(plan: Plan, window: int | None) -> BlockMask:
    """The same rule as a FlexAttention block mask over the whole packed row."""
    from torch.nn.attention.flex_attention import create_block_mask  # imports the compiler, a second

    seen_until, positions = plan.seen_until, plan.positions

    def visible(_batch: Tensor, _head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        seen = (column <= row) & (row < seen_until[column])
        return seen if window is None else seen & (positions[row] - positions[column] < window)

    length = int(seen_until.shape[0])
    return create_block_mask(visible, B=None, H=None, Q_LEN=length, KV_LEN=length, device=str(seen_until.device))


def _flex(query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float, window: int | None) -> Tensor:
    if window not in plan.masks:
        plan.masks[window] = block_mask(plan, window)
    out = _compiled_flex()(
        query, key, value, block_mask=plan.masks[window], scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    rows: Tensor = out.transpose(1, 2)
    return rows


@functools.cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


@functools.cache
def cascade_works() -> bool:
    """Whether the private CPU kernels exist and agree with the public ones on a small case."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 8, generator=generator) for _ in range(3))
    try:
        out, lse = _flash(q, k, v, 0.0, True, scale=0.5)
        grads = _flash_backward(torch.ones_like(out), q, k, v, out, lse, 0.0, True, scale=0.5)
    except (RuntimeError, TypeError, AttributeError):
        return False
    with torch.enable_grad():
        q.requires_grad_()
        want = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.5)
        (want_grad,) = torch.autograd.grad(want.sum(), q)
    return bool(torch.allclose(out, want, atol=1e-5) and torch.allclose(grads[0], want_grad, atol=1e-5))
