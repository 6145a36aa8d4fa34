"""CISPO keeps every token's gradient; DPPO's region is one of probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from strop.batch import TOKEN_MEAN, Outputs, step_totals, weighted_loss
from strop.objectives.policy import GRPO
from strop.objectives.token_policy import CISPO, DPPO, cispo_loss, inside_trust_region

LENGTHS = (3, 1, 2, 4)


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.5 * drawn - 2).requires_grad_(grad)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gradient_of(objective: CISPO | DPPO | GRPO, logprobs: Tensor, batch) -> Tensor:
    terms = objective(Outputs(logprobs), batch)
    loss = weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch]))
    return torch.autograd.grad(loss, logprobs)[0]


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("log_ratio", [-19.0, -1.0, 0.0, 1.0, 19.0])
def test_cispo_scales_every_tokens_gradient_and_zeroes_none(advantage: float, log_ratio: float) -> None:
    new = double(-2.5).requires_grad_()
    loss = cispo_loss(new, double(math.exp(log_ratio)), double(advantage), cap=3.0)
    weight = min(math.exp(log_ratio), 3.0)
    assert float(loss.detach()) == pytest.approx(weight * advantage * 2.5, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    assert float(gradient) == pytest.approx(-weight * advantage, rel=1e-12) and float(gradient) != 0


def test_cispo_where_grpo_clips(toys) -> None:
    """A gain beyond 1 + high: GRPO lets go, CISPO does not."""
    new = torch.full((4,), -1.0, dtype=torch.float64, requires_grad=True)
    batch = toys.bare_batch((2, 2), advantages=torch.ones(4), old_logprobs=torch.full((4,), -2.0))
    assert gradient_of(GRPO(), new, batch).tolist() == [0.0] * 4
    assert gradient_of(CISPO(), new, batch).tolist() == pytest.approx([-math.e / 4] * 4, rel=1e-12)
    capped = CISPO(cap=1.5)(Outputs(new), batch)
    assert capped.metrics["cispo_clip_ratio"].tolist() == [1.0] * 4
    assert gradient_of(CISPO(cap=1.5), new, batch).tolist() == pytest.approx([-1.5 / 4] * 4, rel=1e-12)


def test_on_policy_both_give_the_policy_gradient(toys) -> None:
    logprobs = numbers(10, 0, grad=True)
    advantages = numbers(10, 1) + 2
    batch = toys.bare_batch(LENGTHS, advantages=advantages, old_logprobs=logprobs.detach().clone())
    for objective in (CISPO(), DPPO()):
        got = gradient_of(objective, logprobs, batch)
        torch.testing.assert_close(got, -advantages / 10, rtol=1e-12, atol=1e-15)


def test_gradcheck_cispo() -> None:
    rho, advantages = numbers(6, 2).exp(), numbers(6, 3)
    assert torch.autograd.gradcheck(lambda new: cispo_loss(new, rho, advantages, cap=0.2), (numbers(6, 4, grad=True),))


@pytest.mark.parametrize(
    ("old", "new", "advantage", "inside"),
    [
        (0.5, 0.69, 1.0, True),
        (0.5, 0.71, 1.0, False),  # rose too far for its advantage
        (0.5, 0.71, -1.0, True),  # but the other way it may still be pushed back
        (0.5, 0.31, -1.0, True),
        (0.5, 0.29, -1.0, False),
        (0.5, 0.29, 1.0, True),
        (0.001, 0.1, 1.0, True),  # a ratio of 100, and yet little has moved
        (0.95, 0.74, -1.0, False),  # a ratio of 0.78, and much has
    ],
)
def test_trust_region(old: float, new: float, advantage: float, inside: bool) -> None:
    got = inside_trust_region(double(new).log(), double(old).log(), double(advantage), low=0.2, high=0.2)
    assert got.tolist() == [inside]


def test_dppo_value_and_gradient(toys) -> None:
    """-rho A inside; outside only the pull of tau (log rho)^2."""
    old, new = double(0.5, 0.5, 0.5, 0.5).log(), double(0.6, 0.8, 0.4, 0.2).log().requires_grad_()
    advantages = double(2.0, 2.0, -3.0, -3.0)
    batch = toys.bare_batch((2, 2), advantages=advantages, old_logprobs=old)
    terms = DPPO(tau=0.1)(Outputs(new), batch)
    logs = [math.log(r) for r in (1.2, 1.6, 0.8, 0.4)]
    want = [-1.2 * 2 + 0.1 * logs[0] ** 2, 0.1 * logs[1] ** 2, 0.8 * 3 + 0.1 * logs[2] ** 2, 0.1 * logs[3] ** 2]
    assert terms.losses[0].tolist() == pytest.approx(want, rel=1e-12)
    (gradient,) = torch.autograd.grad(terms.losses[0].sum(), new)
    slopes = [-1.2 * 2 + 0.2 * logs[0], 0.2 * logs[1], 0.8 * 3 + 0.2 * logs[2], 0.2 * logs[3]]
    assert gradient.tolist() == pytest.approx(slopes, rel=1e-12)
    assert terms.metrics["clip_ratio/region_mean"].tolist() == [0, 1, 0, 1]


def test_gradcheck_dppo(toys) -> None:
    batch = toys.bare_batch(LENGTHS, advantages=numbers(10, 5) + 2, old_logprobs=numbers(10, 6))
    assert torch.autograd.gradcheck(
        lambda new: DPPO(tau=0.3)(Outputs(new), batch).losses[0], (numbers(10, 7, grad=True),)
    )


@pytest.mark.parametrize("objective", [CISPO(), DPPO()], ids=str)
def test_finite_far_away(objective, toys) -> None:
    logprobs = double(-1e4, 0.0, -1e4, 0.0).requires_grad_()
    batch = toys.bare_batch((1, 3), advantages=double(1, -1, -1, 1), old_logprobs=double(0.0, -1e4, 0.0, -1e4))
    terms = objective(Outputs(logprobs), batch)
    (gradient,) = torch.autograd.grad(terms.losses[0].sum(), logprobs)
    assert bool(terms.losses[0].isfinite().all()) and bool(gradient.isfinite().all())


def test_needs_and_reductions() -> None:
    for objective in (CISPO(), DPPO()):
        assert objective.needs == {"advantages", "old_logprobs"} and objective.reductions == (TOKEN_MEAN,)
    assert CISPO(beta=0.1, weighted=True).needs == {"advantages", "old_logprobs", "ref_logprobs", "policy_weight"}


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: CISPO(cap=0.0), "cap must be positive, got 0.0"),
        (lambda: CISPO(beta=-1.0), "beta must not be negative, got -1.0"),
        (lambda: DPPO(low=0.0), r"in \(0, 1\], got 0.0, 0.2"),
        (lambda: DPPO(high=1.1), r"in \(0, 1\], got 0.2, 1.1"),
        (lambda: DPPO(tau=-1.0), "tau must not be negative, got -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
