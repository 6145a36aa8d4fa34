"""What training takes of a GPU's memory, by arithmetic: which way of training a model of a size fits.

Bytes a parameter: 16 for one that is trained (fp32 weight, gradient and two moments) and 2 for the bf16 copy it
computes with; 2 for a frozen one in bf16, 0.55 in 4 bits. On top come activations of one micro-batch (about 40 d
bytes a token and layer, or 2 d with checkpointing and one layer's 40 d), the cache of keys and values while
answers are sampled, and a tenth and a GiB for what is not counted. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from strop.recipes.methods import Method

TRAINED, COPY, FROZEN, FOUR_BITS = 16.0, 2.0, 2.0, 0.55
ACTIVATIONS, CHECKPOINT = 40, 2
"""Bytes a token, layer and unit of width, in bf16 with flash attention."""
LOGITS = 0.5 * 2**30
"""Of a chunk of tokens, with a large vocabulary."""
ADAPTER = 0.006
"""Share of parameters that an adapter of rank 16 on all linear layers has, in models of billions."""
SAMPLED_TOKENS = 768
"""Prompt and completion of a sampled answer, as the recipes have them."""
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Size:
    """A model's size: parameters, layers and width."""

    parameters: float
    layers: float
    width: float

    @staticmethod
    def of(parameters: float) -> Size:
        """A decoder of usual proportions: 12 layers x width^2 parameters, and a width of 128 layers."""
        layers = (parameters / (12 * 128**2)) ** (1 / 3)
        return Size(parameters, layers, 128 * layers)


@dataclass(frozen=True, slots=True)
class Way:
    """A way of training: its settings, and what they mean for memory.

    Attributes: adapter: 2 bytes a frozen parameter, or 0.55 in 4 bits; None trains all.
        tokens: of a micro-batch. rows: answers sampled side by side.
    """

    words: str
    settings: tuple[str, ...]
    adapter: float | None
    checkpointing: bool
    tokens: int
    rows: int


WAYS = (
    Way("all weights", (), None, False, 16384, 256),
    Way("all weights, recomputing activations", ("training.gradient_checkpointing=true",), None, True, 16384, 256),
    Way(
        "all weights, small micro-batches",
        ("training.gradient_checkpointing=true", "training.micro_batch_tokens=4096"),
        None, True, 4096, 32,
    ),
    Way(
        "an adapter (LoRA)",
        ("adapter.r=16", "training.gradient_checkpointing=true", "training.micro_batch_tokens=4096"),
        FROZEN, True, 4096, 32,
    ),
    Way(
        "an adapter over 4-bit weights (QLoRA)",
        ("adapter.quantize=nf4", "training.gradient_checkpointing=true", "training.micro_batch_tokens=4096"),
        FOUR_BITS, True, 4096, 32,
    ),
)  # fmt: skip
"""From the plainest to the smallest."""


def needed(size: Size, method: Method, way: Way) -> float:
    """Bytes that a method takes at its peak, trained in that way."""
    num = size.parameters
    trained = max(1, len(method.trained))
    if way.adapter is None:
        states = trained * (TRAINED + COPY) * num + len(method.frozen) * FROZEN * num
    else:  # with the adapter off the policy is its own reference
        states = trained * (way.adapter + ADAPTER * TRAINED) * num
    kept = CHECKPOINT * size.layers + ACTIVATIONS if way.checkpointing else ACTIVATIONS * size.layers
    cache = 4 * size.layers * (size.width / 4) * SAMPLED_TOKENS * way.rows if method.samples else 0.0
    activations = way.tokens * size.width * kept
    return 1.1 * (states + max(activations, cache) + LOGITS) + GIB


def first_that_fits(size: Size, method: Method, gib: float) -> Way | None:
    """The plainest way of training that fits into so much memory; None if none does."""
    return next((way for way in WAYS if needed(size, method, way) <= gib * GIB), None)
