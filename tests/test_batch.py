"""Reductions: what each is in closed form, and that a step's weights do not know how it was split."""

from __future__ import annotations

import pytest
import torch

from strop.batch import (
    CHOSEN_TOKEN_MEAN,
    PER_GROUP,
    PER_SEQUENCE,
    SEQUENCE_MEAN,
    TOKEN_MEAN,
    Layout,
    Reduction,
    Terms,
    constant_mean,
    lengths,
    mean_by_sequence,
    pairs,
    step_totals,
    sum_by_sequence,
    weighted_loss,
)

LENGTHS = (3, 1, 2, 5)
TOKENS = torch.tensor([1.0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], dtype=torch.float64)
SEQUENCES = torch.tensor([1.0, 10, 100, 1000], dtype=torch.float64)
GROUPS = torch.tensor([3.0, 8.0], dtype=torch.float64)

CLOSED_FORMS = {
    "token mean": (TOKEN_MEAN, TOKENS, 2047 / 11),
    "sequence mean": (SEQUENCE_MEAN, TOKENS, (7 / 3 + 8 + 48 / 2 + 1984 / 5) / 4),
    "constant": (constant_mean(7.0), TOKENS, 2047 / (4 * 7)),
    "per sequence": (PER_SEQUENCE, SEQUENCES, 1111 / 4),
    "per group": (PER_GROUP, GROUPS, 11 / 2),
    "chosen tokens": (CHOSEN_TOKEN_MEAN, TOKENS, (7 + 48) / 5),
    "chosen sequences": (Reduction("sequence", per="sequence", chosen=True), SEQUENCES, 101 / 2),
    "chosen sequence mean": (Reduction("token", per="sequence", chosen=True), TOKENS, (7 / 3 + 48 / 2) / 2),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_form(name: str, toys) -> None:
    """Exact in float64: the weights 1/3 and 1/7 are not rounded to fp32 on the way."""
    reduction, loss, expected = CLOSED_FORMS[name]
    batch = toys.bare_batch(LENGTHS)
    got = weighted_loss(Terms((loss,)), batch, (reduction,), step_totals((reduction,), [batch]))
    assert got.dtype == torch.float64
    assert float(got) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_two_micro_batches_of_unlike_size_sum_to_the_whole(name: str, toys) -> None:
    """Groups of (3, 1) and (2, 5) tokens, apart: the mean of the two means is another number."""
    reduction, loss, expected = CLOSED_FORMS[name]
    batches = [toys.bare_batch(LENGTHS[:2]), toys.bare_batch(LENGTHS[2:])]
    sizes = {"token": [4, 7], "sequence": [2, 2], "group": [1, 1]}[reduction.unit]
    totals = step_totals((reduction,), batches)
    parts = [
        weighted_loss(Terms((part,)), batch, (reduction,), totals)
        for part, batch in zip(loss.split(sizes), batches, strict=True)
    ]
    assert float(sum(parts)) == pytest.approx(expected, rel=1e-14)


def test_several_losses_add_up(toys) -> None:
    batch = toys.bare_batch(LENGTHS)
    reductions = (PER_GROUP, CHOSEN_TOKEN_MEAN)
    got = weighted_loss(Terms((GROUPS, 0.5 * TOKENS)), batch, reductions, step_totals(reductions, [batch]))
    assert float(got) == pytest.approx(5.5 + 0.5 * 11, rel=1e-14)
    with pytest.raises(AssertionError):
        weighted_loss(Terms((GROUPS,)), batch, reductions, [1.0, 1.0])


def test_totals_are_what_the_reduction_counts(toys) -> None:
    batches = [toys.bare_batch(LENGTHS), toys.bare_batch((6, 2))]
    reductions = [reduction for reduction, _, _ in CLOSED_FORMS.values()]
    assert step_totals(reductions, batches) == [19, 6, 6, 6, 3, 11, 3, 3]
    assert step_totals((TOKEN_MEAN, PER_GROUP), []) == [1.0, 1.0]  # an empty step is no division by zero


def test_a_sequence_without_trained_tokens_weighs_nothing_and_divides_nothing(toys) -> None:
    batch = toys.bare_batch((2, 0, 1, 3))
    assert lengths(batch).tolist() == [2, 1, 1, 3]
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    assert sum_by_sequence(values, batch).tolist() == [3, 0, 4, 56]
    assert mean_by_sequence(values, batch).tolist() == pytest.approx([1.5, 0, 4, 56 / 3])


def test_sums_keep_their_precision_and_their_gradient(toys) -> None:
    batch = toys.bare_batch(LENGTHS)
    values = TOKENS.clone().requires_grad_()
    sums = sum_by_sequence(values, batch)
    assert sums.dtype == torch.float64 and sums.tolist() == [7, 8, 48, 1984]
    (gradient,) = torch.autograd.grad((sums * SEQUENCES).sum(), values)
    assert gradient.tolist() == [1, 1, 1, 10, 100, 100, 1000, 1000, 1000, 1000, 1000]


def test_pairs_are_the_first_and_the_second_of_each_group(toys) -> None:
    chosen, rejected = pairs(SEQUENCES, toys.bare_batch(LENGTHS))
    assert chosen.tolist() == [1, 100] and rejected.tolist() == [10, 1000]
    with pytest.raises(AssertionError, match="groups of two"):
        pairs(torch.ones(3), toys.bare_batch((1, 1, 1), group_size=3))


def test_a_path_runs_from_the_root_down() -> None:
    layout = Layout(start=(0, 4, 7, 9), length=(4, 3, 2, 1), parent=(-1, 0, 1, 0), leaf=(2, 3))
    assert layout.path(2) == (0, 1, 2) and layout.path(3) == (0, 3) and layout.path(0) == (0,)


def test_columns_are_added_and_replaced_on_a_copy(toys) -> None:
    batch = toys.bare_batch((1, 1), a=torch.ones(2), b=torch.ones(1))
    more = batch.with_columns(b=torch.zeros(1), c=torch.zeros(2))
    assert {k: float(v.sum()) for k, v in more.columns.items()} == {"a": 2, "b": 0, "c": 0}
    assert batch.columns.keys() == {"a", "b"} and float(batch.columns["b"]) == 1
