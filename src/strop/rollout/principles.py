"""The principles of a constitution, and which of them stand over an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Principle:
    """One principle, in the words of its three uses.

    Attributes:
        id: how records name it.
        critique: what to look for in an answer.
        revision: how to mend it.
        comparison: which of two answers is better.
    """

    id: str
    critique: str
    revision: str
    comparison: str


def drawn(principles: Sequence[Principle], num: int, generator: np.random.Generator) -> tuple[Principle, ...]:
    """So many different principles, in a drawn order; all where there are no more."""
    return tuple(principles[i] for i in generator.permutation(len(principles))[:num].tolist())
