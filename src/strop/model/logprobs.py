"""Log-probs of given tokens from hidden states, never holding [tokens, vocabulary] where that is large.

Logits are made one tile at a time, some tokens by some of the vocabulary, and reduced to running
log-sum-exp, the target's logit and (where asked) entropy. Where all tiles of a micro-batch take
little memory they are kept for the backward; otherwise they are thrown away and it makes them
again, a quarter more arithmetic. The vocabulary is the outer loop there, so each row of the
embedding is read once and its gradient written once. Everything after the matrix product is fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TOKENS, VOCABULARY = 1024, 4096
"""A tile's size: 16 MiB in fp32."""
KEPT = 1 << 25
"""Most logits that are kept for the backward: 128 MiB."""


def token_logprobs(
    hidden: Tensor, weight: Tensor, target: Tensor, *, temperature: float = 1.0, stats: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """log softmax(hidden weight^T / temperature) at the target tokens.

    Args: hidden [N, d]; weight [V, d]; target [N]; stats: also compute the other two.
    Returns: logprobs [N], nats, fp32; entropy [N], nats, differentiable; correct [N], 1 where the
        target is the likeliest token. Without `stats` the last two are empty, [0].
    """
    trained = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    keep = trained and hidden.shape[0] * weight.shape[0] <= KEPT
    out: tuple[Tensor, Tensor, Tensor] = _Head.apply(hidden, weight, target, temperature, stats, keep)
    return out


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, temperature: float, stats: bool, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        num_tokens = hidden.shape[0]
        logprobs, lse = hidden.new_empty(2, num_tokens, dtype=torch.float32)
        entropy, correct = hidden.new_empty(2, num_tokens if stats else 0, dtype=torch.float32)
        tiles = _Tiles(hidden, weight, temperature, reuse=not keep)
        kept: list[Tensor] = []
        for rows in _parts(num_tokens, TOKENS):
            running = _Running(target[rows], stats)
            for columns in _parts(weight.shape[0], VOCABULARY):
                tile = tiles.logits(rows, columns)
                running.add(tile, columns)
                if keep:
                    kept += [tile, running.top]
            lse[rows] = running.top + running.total.log()
            logprobs[rows] = running.at_target - lse[rows]
            if stats:
                entropy[rows] = running.total.log() - running.moment / running.total
                correct[rows] = (running.at_target >= running.top).float()
        ctx.save_for_backward(hidden, weight, target, lse, entropy, *kept)
        ctx.temperature, ctx.stats = temperature, stats
        ctx.mark_non_differentiable(correct)
        return logprobs, entropy, correct

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor, grad_entropy: Tensor, _: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        hidden, weight, target, lse, entropy, *kept = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.zeros_like(hidden) if wants_hidden else None
        grad_weight = torch.empty_like(weight) if wants_weight else None
        bend = grad_entropy if ctx.stats and bool((grad_entropy != 0).any()) else None
        tiles = _Tiles(hidden, weight, ctx.temperature, reuse=True)
        grad = grad / ctx.temperature
        for j, columns in enumerate(_parts(weight.shape[0], VOCABULARY)):
            for i, rows in enumerate(_parts(hidden.shape[0], TOKENS)):
                slope = grad[rows].unsqueeze(-1)
                if bend is None and kept:
                    at = 2 * (i * -(-weight.shape[0] // VOCABULARY) + j)
                    share = (kept[at + 1] - lse[rows]).exp_().unsqueeze(-1)
                    delta = torch.mul(kept[at], share.mul_(-slope), out=tiles.space(rows, columns))
                else:
                    delta = tiles.logits(rows, columns).sub_(lse[rows].unsqueeze(-1))
                    if bend is None:
                        delta.exp_().mul_(-slope)
                    else:  # d entropy / d logit = -p (log p + entropy)
                        curve = bend[rows].unsqueeze(-1) / ctx.temperature
                        rise = (delta + entropy[rows].unsqueeze(-1)).mul_(curve).add_(slope)
                        delta.exp_().mul_(rise).neg_()
                place, inside = _within(target[rows], columns)
                delta.scatter_add_(-1, place, slope * inside)
                delta = delta.to(hidden.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows].addmm_(delta, weight[columns])
                if grad_weight is not None:
                    grad_weight[columns].addmm_(delta.t(), hidden[rows], beta=0 if i == 0 else 1)
        if grad_weight is not None and hidden.shape[0] == 0:
            grad_weight.zero_()
        return grad_hidden, grad_weight, None, None, None, None


class _Running:
    """Log-sum-exp of rows whose columns come tile by tile.

    With t the largest logit so far: total = sum e^(x - t), moment = sum e^(x - t) (x - t).
    """

    def __init__(self, target: Tensor, stats: bool) -> None:
        blank = torch.zeros(target.shape[0], dtype=torch.float32, device=target.device)
        self.target, self.stats = target, stats
        self.top = torch.full_like(blank, -torch.inf)
        self.total, self.moment, self.at_target = blank, blank.clone(), blank.clone()

    def add(self, logits: Tensor, columns: slice) -> None:
        """Take in a tile, which is overwritten."""
        place, inside = _within(self.target, columns)
        found = logits.gather(-1, place).squeeze(-1)
        self.at_target = torch.where(inside.squeeze(-1), found, self.at_target)
        top = torch.maximum(self.top, logits.amax(-1))
        fall = self.top - top
        shrink = fall.exp()
        logits.sub_(top.unsqueeze(-1))
        if self.stats:
            shifted = logits.clone()
            old = torch.where(self.total > 0, fall * self.total, 0.0)  # fall is -inf before the first tile
            self.moment = shrink * (self.moment + old) + torch.linalg.vecdot(logits.exp_(), shifted)
        else:
            logits.exp_()
        self.total = self.total * shrink + logits.sum(-1)
        self.top = top


class _Tiles:
    """fp32 logits of some tokens by some of the vocabulary; with `reuse` each is written over the one before."""

    def __init__(self, hidden: Tensor, weight: Tensor, temperature: float, *, reuse: bool) -> None:
        self.hidden, self.weight, self.temperature = hidden, weight, temperature
        size = min(TOKENS, hidden.shape[0]) * min(VOCABULARY, weight.shape[0])
        self.buffer = hidden.new_empty(size, dtype=torch.float32) if reuse else None

    def space(self, rows: slice, columns: slice) -> Tensor:
        """Where a tile is written."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        if self.buffer is None:
            return self.hidden.new_empty(shape, dtype=torch.float32)
        return self.buffer[: shape[0] * shape[1]].view(shape)

    def logits(self, rows: slice, columns: slice) -> Tensor:
        left, right = self.hidden[rows], self.weight[columns].t()
        if left.dtype == torch.float32:
            tile = torch.mm(left, right, out=self.space(rows, columns))
        else:
            tile = torch.mm(left, right).float()
        return tile if self.temperature == 1.0 else tile.div_(self.temperature)


def _within(target: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Each target's place in a tile's columns (clamped into it) and whether it is there; [n, 1] both."""
    place = target.unsqueeze(-1) - columns.start
    width = columns.stop - columns.start
    return place.clamp(0, width - 1), (place >= 0) & (place < width)


def _parts(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
