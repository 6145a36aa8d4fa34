"""Inverse-CDF sampling: logits and one uniform number a row give a token and its log-prob.

The token is the first whose cumulative probability exceeds the uniform number. The search has two
levels (blocks of about sqrt(V) tokens, then inside one block), so a large vocabulary is read few
times and never sorted. Uniform numbers are counter-based: they depend on (seed, step, row, token) only, not
on how rows are batched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

_WORD = (1 << 64) - 1
_BELOW_ONE = 1 - 2.0**-53
"""The largest fp64 below 1; any number times it is rounded to below that number."""


@dataclass(slots=True)
class Draws:
    """How every token of a call is drawn, with the uniform numbers of the rows begun so far.

    Attributes:
        first_index: index of row 0; row i draws with f(seed, step, first_index + i, token).
        numbers: [N, tokens a row may need], filled as rows begin.
    """

    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    step: int
    first_index: int
    numbers: NDArray[np.float64]

    def __call__(
        self, logits: Tensor, rows: NDArray[np.int64], place: NDArray[np.int64], owner: Tensor | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The next token of each row and its log-prob, [R].

        Args: logits: [P, V], overwritten; place: [R] tokens a row has; owner: as in `draw`.
        """
        uniform = torch.from_numpy(self._uniform(rows, place)).to(logits.device)
        ids, logprobs = draw(
            logits, uniform, temperature=self.temperature, owner=owner, top_k=self.top_k, top_p=self.top_p
        )
        return ids.cpu().numpy(), logprobs.cpu().numpy()

    def _uniform(self, rows: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.float64]:
        if self.temperature == 0:
            return np.zeros(len(rows))
        for row in rows[place == 0].tolist():
            self.numbers[row] = uniforms(self.seed, self.step, self.first_index + row, self.numbers.shape[1])
        numbers: NDArray[np.float64] = self.numbers[rows, place]
        return numbers


def uniforms(seed: int, step: int, index: int, num_tokens: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) of one row, [num_tokens]: f(seed, step, index, token).

    Philox with key (seed, step) and the row's index in the counter's upper words, so that no two
    rows share a number.
    """
    bits = np.random.Philox(key=np.array([seed & _WORD, step & _WORD], np.uint64), counter=[0, 0, index & _WORD, 0])
    return np.random.Generator(bits).random(num_tokens)


def draw(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: float,
    owner: Tensor | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Tokens drawn by inverse CDF, with their log-probs under softmax(logits / temperature).

    Log-probs are fp32 and those of the whole distribution, before top-k and top-p. Temperature 0
    takes the largest logit; its log-prob is at temperature 1. A token of probability zero is never
    returned. Ties at the edge of top-k or top-p are all kept.

    Args:
        logits: [P, V]; overwritten when fp32.
        uniform: [R] fp64 in [0, 1).
        owner: [R] row of `logits` that each draw uses; one draw a row when omitted (R = P).
    Returns: token ids [R], log-probs [R] fp32, nats.
    Raises: ValueError if a row's logits are not finite enough to be a distribution.
    """
    logits = logits.float()
    if temperature == 0:
        best = logits.argmax(-1)
        logprobs = _checked(logits.gather(-1, best[:, None]).squeeze(-1) - logits.logsumexp(-1))
        return (best, logprobs) if owner is None else (best[owner], logprobs[owner])
    weights = torch.softmax(logits if temperature == 1 else logits.mul_(1 / temperature), -1)
    blocks = _block_sums(weights)
    total = _checked(blocks.sum(-1, dtype=torch.float64))  # the softmax's own rounding cancels
    if owner is None:
        owner = torch.arange(len(weights), device=weights.device)
    else:
        blocks, total = blocks[owner], total[owner]
    if top_k is None and top_p is None:
        tokens = _search(weights, blocks, uniform, owner)
    else:
        tokens = search(truncated(weights, top_k, top_p), uniform, owner)
    return tokens, (weights[owner, tokens] / total).log_().float()


def truncated(weights: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Weights with all but the top-k, then all but the nucleus of mass top-p, set to zero, [P, V].

    The nucleus is the smallest set of largest weights whose share of what top-k left reaches top-p
    (Holtzman et al. 2019, arXiv:1904.09751, section 3.1).
    """
    if top_k is not None and top_k < weights.shape[-1]:
        edge = weights.topk(top_k, -1).values[:, -1:]
        weights = weights * (weights >= edge)
    if top_p is not None and top_p < 1:
        ordered = weights.sort(-1, descending=True).values
        mass = ordered.cumsum(-1, dtype=torch.float64)
        inside = mass - ordered < top_p * mass[:, -1:]
        edge = ordered.gather(-1, inside.sum(-1, keepdim=True) - 1)
        weights = weights * (weights >= edge)
    return weights


def search(weights: Tensor, uniform: Tensor, owner: Tensor) -> Tensor:
    """First token whose cumulative weight exceeds uniform * total, [R].

    Args: weights: [P, V], not negative; uniform: [R] fp64; owner: [R] row of `weights`.
    """
    return _search(weights, _block_sums(weights)[owner], uniform, owner)


def _search(weights: Tensor, blocks: Tensor, uniform: Tensor, owner: Tensor) -> Tensor:
    """The same with the block sums [R, blocks] of each draw's row."""
    size = weights.shape[-1]
    width = _block_width(size)
    cumulative = blocks.cumsum(-1, dtype=torch.float64)
    target, block = _first_above(cumulative, uniform)
    inside = blocks.gather(-1, block)
    rest = cumulative.gather(-1, block).sub_(inside).sub_(target).neg_().div_(inside).clamp_(min=0.0)
    first = block.squeeze(-1) * width
    if size % width == 0:
        entries = weights.view(len(weights), -1, width)[owner, block.squeeze(-1)]
        return first + _first_above(entries.cumsum(-1, dtype=torch.float64), rest.squeeze(-1))[1].squeeze(-1)
    start = first.clamp(max=size - width)  # the last block is short: read its width of tokens up to the end
    entries = weights.unfold(-1, width, 1)[owner, start]
    entries.masked_fill_(start[:, None] + torch.arange(width, device=start.device) < first[:, None], 0.0)
    return start + _first_above(entries.cumsum(-1, dtype=torch.float64), rest.squeeze(-1))[1].squeeze(-1)


def _first_above(cumulative: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """uniform * total, and the index of the first cumulative weight above it, [R, 1] each.

    The product stays below the total whatever rounding does, so the index is at most that of the
    last positive weight.
    """
    target = uniform.clamp(max=_BELOW_ONE).unsqueeze(-1) * cumulative[:, -1:]
    return target, torch.searchsorted(cumulative, target, right=True)


def _block_sums(weights: Tensor) -> Tensor:
    """Sums over blocks of columns, [P, ceil(V / width)]."""
    size = weights.shape[-1]
    width = _block_width(size)
    whole = size - size % width
    sums = weights[:, :whole].reshape(len(weights), -1, width).sum(-1)
    return sums if size == whole else torch.cat([sums, weights[:, whole:].sum(-1, keepdim=True)], -1)


def _block_width(size: int) -> int:
    """A power of two near sqrt(size), so that both levels of the search read equally little."""
    return 1 << round(math.log2(size) / 2)


def _checked(values: Tensor) -> Tensor:
    if not math.isfinite(float(values.sum())):
        raise ValueError(
            "the model's logits are not finite, so no token can be sampled; the weights have diverged: "
            "go back to an earlier checkpoint, or lower the learning rate"
        )
    return values
