"""Where a stage is to run: what it keeps numbers in there, and what memory goes to no tensor."""

from __future__ import annotations

from dataclasses import dataclass

MIB, GIB = 2**20, 2**30
PROCESS, PEFT = 410 * MIB, 40 * MIB
"""A process with torch, transformers and this package in it, before any weight (CPU build, measured); and with peft."""
LIBRARIES = 75 * MIB
"""Of that what is only imported as a model is loaded."""
STATES_SHARE = 0.1
ACTS_SHARE, ACTS_CUT_UP, ACTS_CUT_TWICE = 0.4, 1.4, 4.4
"""What a CPU's heap takes besides, as shares of states (gradients, moments) and of activations and logits: freed blocks
that nothing fits into. The second where small blocks that stay fall among them, of an adapter, of layers made again, of
Muon's directions; the third where an adapter's layers are made again. Measured with glibc 2.36 (docs/planning.md)."""
HOLES, MOST_HOLES = 0.75, 3.0
"""Freed gradients of the embedding that stand about in the heap, for each micro-batch of several, and at most."""
CARD_SHARE, CARD = 0.1, GIB
"""The same on a GPU, and its context."""


@dataclass(frozen=True, slots=True)
class Place:
    """A device as planning sees it.

    Attributes:
        device: cpu or cuda. bf16: whether products run in it.
        process: bytes of the process before the first weight. peft: those of its adapters' library.
        heap: factor of what the allocator usually takes besides, as it was measured.
    """

    device: str
    bf16: bool
    process: float = PROCESS
    peft: float = PEFT
    heap: float = 1.0

    @property
    def on_card(self) -> bool:
        """Whether it is a GPU."""
        return self.device.startswith("cuda")


CARD_PLACE = Place("cuda", True, CARD, 0)
"""A GPU: bf16 products."""
