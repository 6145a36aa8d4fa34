"""How repetitive, how varied and how cut-off answers are: numbers of single answers and of all of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from itertools import chain

from strop.rollout.filters import repeated_share

SHORT = 200
"""Characters below which a text's compression says little, and is not measured."""


def repetition(text: str) -> float:
    """The share of a text's runs of four words that repeat an earlier one."""
    return repeated_share(text, 4)


def compression(text: str) -> float | None:
    """The size of a text after deflate over its own, in bytes; None for a short one. Loops come near 0."""
    data = text.encode("utf-8", "replace")
    return len(zlib.compress(data, 6)) / len(data) if len(data) >= SHORT else None


def distinct(texts: Sequence[Sequence[str]], num_words: int) -> float:
    """distinct-n by prompt: different runs of n words over all, in a prompt's answers; the mean over prompts.

    NaN where no prompt has a run. Li et al. 2016, arXiv:1510.03055, there over a whole corpus: by prompt
    it does not fall with the number of prompts.
    """
    shares = []
    for row in texts:
        words = [text.split() for text in row]
        runs = list(chain.from_iterable(zip(*(w[i:] for i in range(num_words)), strict=False) for w in words))
        if runs:
            shares.append(len(set(runs)) / len(runs))
    return math.fsum(shares) / len(shares) if shares else math.nan
