"""Pair losses of other shapes than the logistic: closed forms and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from strop.objectives.preference_shapes import apo_down_loss, apo_zero_loss, hinge_loss, ipo_loss


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 2
    return drawn.requires_grad_(grad)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_at_the_reference() -> None:
    same, zero = numbers(4, 0), torch.zeros(4, dtype=torch.float64)
    assert hinge_loss(same, same, beta=0.3).tolist() == [1.0] * 4
    assert apo_zero_loss(zero, zero, beta=0.3).tolist() == apo_down_loss(zero, zero, beta=0.3).tolist() == [1.0] * 4
    for tau in (0.1, 1.0, 2.5):
        assert ipo_loss(same, same, tau=tau).tolist() == pytest.approx([1 / (4 * tau**2)] * 4, rel=1e-15)


def test_apo_by_hand() -> None:
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    chosen, rejected = double(2.0, -1.0), double(0.5, 3.0)
    zero = [1 - sigmoid(0.4 * w) + sigmoid(0.4 * r) for w, r in ((2.0, 0.5), (-1.0, 3.0))]
    down = [sigmoid(0.4 * w) + 1 - sigmoid(0.4 * (w - r)) for w, r in ((2.0, 0.5), (-1.0, 3.0))]
    assert apo_zero_loss(chosen, rejected, beta=0.4).tolist() == pytest.approx(zero, rel=1e-13)
    assert apo_down_loss(chosen, rejected, beta=0.4).tolist() == pytest.approx(down, rel=1e-13)
    far = torch.tensor([1e4, -1e4])
    assert apo_zero_loss(far, -far, beta=1.0).tolist() == [0.0, 2.0]


def test_apo_zero_pulls_the_sides_apart_and_apo_down_lowers_both() -> None:
    for loss, signs in ((apo_zero_loss, (-1, 1)), (apo_down_loss, (1, 1))):
        chosen, rejected = double(0.1).requires_grad_(), double(-0.1).requires_grad_()
        found = torch.autograd.grad(loss(chosen, rejected, beta=0.5).sum(), (chosen, rejected))
        assert tuple(int(torch.sign(g)) for g in found) == signs, loss.__name__


def test_hinge_is_zero_exactly_from_beta_h_1_on() -> None:
    h = double(9.0, 10.0, 10.5, -5.0)
    assert hinge_loss(h, torch.zeros(4), beta=0.1).tolist() == pytest.approx([0.1, 0.0, 0.0, 1.5], abs=1e-15)


def test_ipo_is_least_at_its_margin() -> None:
    assert ipo_loss(double(5.0, 7.0), double(0.0, 0.0), tau=0.1).tolist() == [0.0, 4.0]


@pytest.mark.parametrize(
    "loss",
    [
        lambda w, r: ipo_loss(w, r, tau=0.4),
        lambda w, r: hinge_loss(w, r, beta=0.7),
        lambda w, r: apo_zero_loss(w, r, beta=0.7),
        lambda w, r: apo_down_loss(w, r, beta=0.7),
    ],
    ids=["ipo", "hinge", "apo_zero", "apo_down"],
)
def test_gradcheck(loss) -> None:
    assert torch.autograd.gradcheck(loss, (numbers(5, 1, grad=True), numbers(5, 2, grad=True)))
