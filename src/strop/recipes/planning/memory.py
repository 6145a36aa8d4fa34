"""The memory of one model at work, by arithmetic: states, activations, logits, cache. Bytes; no torch.

What a layer keeps for its backward is counted from the operations: the tensors that autograd saves in Llama's block,
each once. The tests count them on a real model and compare.
"""

from __future__ import annotations

from dataclasses import dataclass

from strop.model.adapter import LoRA
from strop.recipes.parts import Optimizer
from strop.recipes.planning.counts import Counts, aims
from strop.train.optim import Muon

FP32 = 4
NF4 = 0.55
"""Bytes of a weight in 4 bits, with its scales (Dettmers et al. 2023)."""
TILE = (1024, 4096)
"""Tokens and vocabulary of one tile of logits, and KEPT, the most logits kept for the backward (`model.logprobs`)."""
KEPT = 1 << 25
WORTH = 0.9
"""The last layer runs on the rows that are read where they are fewer than this share (`model.tail`)."""
COLUMNS = 64
"""Columns that the cache of sampled tokens begins with, and doubles (`rollout.sampler`)."""
PROBED = 215
"""Positions of the padded probe by which a path is chosen (`model.load`)."""
PREFILL = 4096
"""Prompt tokens of one prefill (`rollout.sampler`)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes of what is kept, by what it is.

    Attributes:
        trained, frozen: of a weight that is trained, and of one that is not. copy: of its copy for the products.
        residual, product: of a number of the residual stream, and of the products' inputs.
        fused: whether a norm is one operation.
    """

    trained: float
    frozen: float
    copy: float
    residual: float
    product: float
    fused: bool


def kept_in(device: str, bf16: bool, adapter: LoRA | None) -> Kept:
    """How a stage keeps its numbers: fp32, or bf16 products over fp32 weights where those are trained."""
    on_cpu = not device.startswith("cuda")
    if not bf16:
        return Kept(FP32, FP32, 0, FP32, FP32, on_cpu)
    if adapter is None:
        return Kept(FP32, 2, 2, FP32, 2, on_cpu)
    return Kept(2, NF4 if adapter.quantize else 2, 0, 2, 2, False)


@dataclass(frozen=True, slots=True)
class States:
    """Bytes that a trained model holds between steps, and its gradients within one."""

    weights: float
    gradients: float
    optimizer: float


def states(counts: Counts, optimizer: Optimizer, kept: Kept, adapter: LoRA | None) -> States:
    """Weights, gradients and moments: 4 + 4 + 8 bytes a trained weight in fp32, 4 of moments for a matrix of Muon's."""
    moments = 2 * FP32
    if adapter is not None:
        low = counts.adapted(adapter)
        low_moments = FP32 if isinstance(optimizer, Muon) else moments
        return States(_frozen(counts, kept) + low * FP32, low * FP32, low * low_moments)
    num = counts.parameters
    matrices = counts.matrices if isinstance(optimizer, Muon) else 0
    return States(num * (kept.trained + kept.copy), num * FP32, matrices * FP32 + (num - matrices) * moments)


def _frozen(counts: Counts, kept: Kept) -> float:
    """Bytes of frozen weights. In 4 bits are linear layers only: no embedding, head, norm, or stacked experts."""
    if kept.frozen != NF4:
        return counts.parameters * kept.frozen
    linear = sum(rows * columns * num for _, rows, columns, num in counts.linear)
    return linear * NF4 + (counts.parameters - linear) * 2


def optimizer_extra(counts: Counts, optimizer: Optimizer, adapter: LoRA | None) -> float:
    """What an optimizer step takes besides: Muon's directions, and thrice the stack of the most of one shape."""
    if not isinstance(optimizer, Muon) or adapter is not None:
        return 0.0
    return FP32 * (counts.matrices * optimizer.nesterov + 3 * counts.alike)


def layer(counts: Counts, kept: Kept, adapter: LoRA | None = None) -> float:
    """Bytes a token that one layer keeps for its backward.

    Both norms' inputs and outputs, what heads are normalised from, the turned queries and keys, values and what was
    read, and four tensors of the feed-forward: gate, its activation, up, and their product.
    """
    c, wide, fused = kept.product, counts.query + counts.key, kept.fused and counts.fused
    inputs = 2 if kept.residual == c else 5  # autocast copies a norm's output for each product that reads it
    norms = counts.width * (2 * (FP32 + (0 if fused else kept.residual)) + inputs * c)
    heads = (FP32 if fused else FP32 + c) * wide if counts.head_norms else 0
    attention = 2 * c * wide + FP32 * counts.heads
    return norms + heads + attention + 4 * c * counts.feed + _low(counts, adapter) * c


def _low(counts: Counts, adapter: LoRA | None) -> float:
    """Numbers a token that the thin matrices of one layer keep."""
    if adapter is None:
        return 0.0
    return adapter.r * sum(n for name, _, _, n in counts.linear if aims(adapter, name)) / counts.layers


def activations(
    counts: Counts, kept: Kept, tokens: int, read: int, *, checkpointing: bool = False, adapter: LoRA | None = None
) -> float:
    """Bytes kept for the backward of one micro-batch, the output head left out.

    Args: tokens: packed ones. read: positions whose last hidden state is read.
    """
    each = layer(counts, kept, adapter)
    norm = FP32 + (0 if kept.fused and counts.fused else kept.residual)
    around = counts.width * norm + 2 * FP32 * counts.query / counts.heads  # the last norm; cosines and sines
    if checkpointing:  # a layer's input each, and one layer made again
        return tokens * (counts.layers * counts.width * kept.residual + each + around)
    if not tokens or read > WORTH * tokens:
        return tokens * (counts.layers * each + around)
    whole = min(each, _of_all_rows(counts, kept))
    return tokens * ((counts.layers - 1) * each + whole + around) + read * (each - whole)


def _of_all_rows(counts: Counts, kept: Kept) -> float:
    """What the last layer keeps of every token, read or not.

    The first norm, keys and values; queries and what they read, which stand in rows of zeros; the second norm's input.
    """
    heads = FP32 * (counts.query + counts.key) if counts.head_norms else 0
    return counts.width * (2 * FP32 + kept.product) + heads + 2 * kept.product * (counts.query + counts.key)


def backward(counts: Counts, kept: Kept, tokens: int) -> float:
    """What a layer's backward takes on top: two gradients of the feed-forward's width and three of the stream's."""
    return tokens * (2 * kept.product * counts.feed + 3 * kept.residual * counts.width)


def forward(counts: Counts, kept: Kept, tokens: int) -> float:
    """The most a forward without gradient holds: three tensors of the feed-forward's width, three of the stream's."""
    return tokens * (3 * kept.product * counts.feed + 3 * kept.residual * counts.width)


def logits(counts: Counts, read: int, *, trained: bool) -> float:
    """Bytes of the vocabulary head at so many positions: all tiles where they are few, else one; and what works on it.

    Hidden states of the read positions and their gradient come with it.
    """
    tile = FP32 * min(TILE[0], read) * min(TILE[1], counts.vocabulary)
    all_tiles = FP32 * read * counts.vocabulary if trained and read * counts.vocabulary <= KEPT else 0
    return all_tiles + 2 * tile + (2 if trained else 1) * FP32 * read * counts.width


def cache(counts: Counts, kept: Kept, *, rows: int, prompts: int, prompt: int, completion: int) -> float:
    """Keys and values while sampling, with what a prefill takes or, where that is more, a step of all rows.

    Args: rows: sampled side by side, of so many prompts; prompt, completion: the longest, tokens.
    """
    columns = min(COLUMNS, completion)
    while columns < completion:
        columns *= 2
    a_token = 2 * counts.layers * counts.key * kept.product
    growing = 0.5 * a_token / counts.layers * rows * columns if columns > COLUMNS else 0  # a layer's old buffers
    step = FP32 * rows * (2 * counts.vocabulary + 4 * counts.width + 3 * counts.feed)
    step += FP32 * rows * counts.heads * (prompt + columns) * 2
    packed = max(prompt, min(PREFILL, prompts * prompt))
    prefill = forward(counts, kept, packed) + FP32 * min(prompts, packed) * 2 * counts.vocabulary
    return a_token * prompts * prompt + max(prefill, a_token * rows * columns + growing + step)


def probe(counts: Counts) -> float:
    """What loading takes besides the weights: the head's logits at a few positions, made twice and compared."""
    return 4 * FP32 * PROBED * counts.vocabulary
