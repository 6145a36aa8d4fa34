"""How many rows are held out and how many steps are made: the same numbers in `validate` and in a run."""

from __future__ import annotations

import math

from strop.recipes.settings import Training

MAX_HELD_OUT = 512
"""Rows a fraction holds out at most: enough for narrow intervals, and cheap to evaluate."""


def num_held_out(num_rows: int, training: Training) -> int:
    """Rows that `eval_fraction` holds out.

    Raises: ValueError if no row would be left to train on.
    """
    if training.eval_fraction == 0:
        return 0
    count = min(MAX_HELD_OUT, max(1, round(num_rows * training.eval_fraction)))
    if count >= num_rows:
        told = "1 row is" if num_rows == 1 else f"{num_rows} rows are"
        raise ValueError(f"{told} too few to hold some out; set training.eval_fraction=0")
    return count


def num_steps(num_rows: int, training: Training) -> int:
    """Optimizer steps over that many trained rows: `steps`, or as many as `epochs` passes need."""
    if training.steps is not None:
        return training.steps
    return max(1, math.ceil(num_rows * training.epochs / training.batch_size))
