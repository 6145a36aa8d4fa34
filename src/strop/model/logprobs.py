"""Log-probs of given tokens from hidden states, never holding [tokens, vocabulary].

Tokens are taken in chunks: a chunk's logits are made, reduced to log-sum-exp, the target's logit
and (where asked) the entropy, and thrown away; the backward makes them again. Everything after
the matrix product is fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 256
"""Tokens whose logits exist at one time."""


def token_logprobs(
    hidden: Tensor, weight: Tensor, target: Tensor, *, temperature: float = 1.0, stats: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """log softmax(hidden weight^T / temperature) at the target tokens.

    Args: hidden [N, d]; weight [V, d]; target [N]; stats: also compute the other two.
    Returns: logprobs [N], nats, fp32; entropy [N], nats, differentiable; correct [N], 1 where the
        target is the likeliest token. Without `stats` the last two are empty, [0].
    """
    out: tuple[Tensor, Tensor, Tensor] = _Head.apply(hidden, weight, target, temperature, stats)
    return out


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, temperature: float, stats: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        num_tokens = hidden.shape[0]
        logprobs, lse = hidden.new_empty(2, num_tokens, dtype=torch.float32)
        entropy, correct = hidden.new_empty(2, num_tokens if stats else 0, dtype=torch.float32)
        buffer = _Logits(hidden, weight, temperature)
        for start in range(0, num_tokens, CHUNK):
            rows = slice(start, min(start + CHUNK, num_tokens))
            logits = buffer.chunk(rows)
            top = logits.amax(-1, keepdim=True)
            at_target = logits.gather(-1, target[rows].unsqueeze(-1))
            logits.sub_(top)
            if stats:
                shifted = logits.clone()
            total = logits.exp_().sum(-1, keepdim=True)
            log_total = total.log()
            logprobs[rows] = (at_target - top - log_total).squeeze(-1)
            lse[rows] = (top + log_total).squeeze(-1)
            if stats:
                mean = torch.linalg.vecdot(logits, shifted).unsqueeze(-1) / total
                entropy[rows] = (log_total - mean).squeeze(-1)
                correct[rows] = (at_target >= top).squeeze(-1).float()
        ctx.save_for_backward(hidden, weight, target, lse, entropy)
        ctx.temperature, ctx.stats = temperature, stats
        ctx.mark_non_differentiable(correct)
        return logprobs, entropy, correct

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor, grad_entropy: Tensor, _: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, target, lse, entropy = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        through_entropy = ctx.stats and bool((grad_entropy != 0).any())
        buffer = _Logits(hidden, weight, ctx.temperature)
        for start in range(0, hidden.shape[0], CHUNK):
            rows = slice(start, min(start + CHUNK, hidden.shape[0]))
            logits = buffer.chunk(rows).sub_(lse[rows].unsqueeze(-1))
            slope = grad[rows].unsqueeze(-1) / ctx.temperature
            if through_entropy:  # d entropy / d logit = -p (log p + entropy)
                bend = grad_entropy[rows].unsqueeze(-1) / ctx.temperature
                wanted = (logits + entropy[rows].unsqueeze(-1)).mul_(bend).add_(slope)
                logits.exp_().mul_(wanted).neg_()
            else:
                logits.exp_().mul_(-slope)
            logits.scatter_add_(-1, target[rows].unsqueeze(-1), slope)
            delta = logits.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(delta, weight, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight.addmm_(delta.t(), hidden[rows])
        return grad_hidden, grad_weight, None, None, None


class _Logits:
    """fp32 logits of one chunk after another, in one buffer where the dtype allows."""

    def __init__(self, hidden: Tensor, weight: Tensor, temperature: float) -> None:
        self.hidden, self.weight, self.temperature = hidden, weight, temperature
        size = (min(CHUNK, hidden.shape[0]), weight.shape[0])
        self.buffer = hidden.new_empty(size) if hidden.dtype == torch.float32 else None

    def chunk(self, rows: slice) -> Tensor:
        part = self.hidden[rows]
        if self.buffer is None:
            logits = torch.mm(part, self.weight.t()).float()
        else:
            logits = torch.mm(part, self.weight.t(), out=self.buffer[: part.shape[0]])
        return logits if self.temperature == 1.0 else logits.div_(self.temperature)
