"""Pair losses without a reference: closed forms, identities, gradients, and the edge where a side is certain."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from strop.batch import Outputs, step_totals, weighted_loss
from strop.objectives.preference import DPO
from strop.objectives.reference_free import (
    CPO,
    ORPO,
    RefFreeDPO,
    SimPO,
    SLiC,
    log1mexp,
    log_odds,
    odds_ratio_loss,
    simpo_loss,
    slic_loss,
)

FREE = (ORPO, SimPO, CPO, RefFreeDPO, SLiC)
LENGTHS = (3, 2, 1, 4)  # chosen, rejected, chosen, rejected


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = -0.05 - 2 * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_(grad)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def step_loss(objective, policy: Tensor, toys, lengths=LENGTHS, **columns: Tensor) -> Tensor:
    batch = toys.bare_batch(lengths, **columns)
    terms = objective(Outputs(policy), batch)
    return weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch]))


# The formulas.


def test_log1mexp_keeps_its_digits_at_both_ends() -> None:
    x = double(-1e-12, -1e-3, -0.6931, -0.6932, -5.0, -50.0)
    want = [math.log(-math.expm1(v)) if v > -1 else math.log1p(-math.exp(v)) for v in x.tolist()]
    assert log1mexp(x).tolist() == pytest.approx(want, rel=1e-14)
    assert float(log1mexp(double(-50.0))) == pytest.approx(-math.exp(-50), rel=1e-14)


def test_log_odds_are_those_of_a_probability() -> None:
    p = [0.001, 0.3, 0.5, 0.9, 0.999]
    got = log_odds(double(*map(math.log, p)))
    assert got.tolist() == pytest.approx([math.log(q / (1 - q)) for q in p], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_certain_side_has_finite_odds_and_gradient(dtype: torch.dtype) -> None:
    """At S_bar = 0 the odds are infinite and autograd's answer is NaN; here they are those of e^-1e-6."""
    sides = torch.tensor([0.0, -1e-9, -1e-6, -1e-3, -700.0], dtype=dtype, requires_grad=True)
    loss = odds_ratio_loss(sides, torch.full_like(sides, -1.0))
    loss.sum().backward()
    assert bool(loss.isfinite().all()) and bool(sides.grad.isfinite().all())
    assert sides.grad[:2].tolist() == [0.0, 0.0] and float(sides.grad[3]) < 0
    assert float(log_odds(sides.detach())[0]) == pytest.approx(6 * math.log(10), rel=2e-2)


def test_identical_sides() -> None:
    same = numbers(4, 0)
    assert odds_ratio_loss(same, same).tolist() == pytest.approx([math.log(2)] * 4, rel=1e-15)
    for gamma in (0.0, 0.5, 1.4):
        want = math.log1p(math.exp(gamma))
        assert simpo_loss(same, same, beta=2.0, gamma=gamma).tolist() == pytest.approx([want] * 4, rel=1e-15)
    assert slic_loss(same, same, delta=1.5, regularization=0.0).tolist() == [1.5] * 4


def test_orpo_by_hand() -> None:
    """Probabilities 0.8 and 0.2: odds 4 and 1/4, so sigmoid(log 16) = 16/17."""
    loss = odds_ratio_loss(double(math.log(0.8)), double(math.log(0.2)))
    assert float(loss) == pytest.approx(math.log(17 / 16), rel=1e-13)


def test_simpo_by_hand() -> None:
    loss = simpo_loss(double(-0.5, -2.0), double(-1.5, -1.0), beta=2.0, gamma=0.6)
    assert loss.tolist() == pytest.approx([math.log1p(math.exp(-1.4)), math.log1p(math.exp(2.6))], rel=1e-13)


def test_slic_stops_at_its_margin_and_keeps_the_chosen_side() -> None:
    chosen, rejected = double(-2.0, -2.0).requires_grad_(), double(-4.0, -2.5).requires_grad_()
    loss = slic_loss(chosen, rejected, delta=1.0, regularization=0.1)
    assert loss.tolist() == pytest.approx([0.0 + 0.2, 0.5 + 0.2], rel=1e-13)
    found = torch.autograd.grad(loss.sum(), (chosen, rejected))
    assert [g.tolist() for g in found] == [pytest.approx([-0.1, -1.1]), [0.0, 1.0]]


@pytest.mark.parametrize(
    "loss",
    [
        odds_ratio_loss,
        lambda w, r: simpo_loss(w, r, beta=2.0, gamma=0.6),
        lambda w, r: slic_loss(w, r, delta=1.0, regularization=0.1),
    ],
    ids=["orpo", "simpo", "slic"],
)
def test_gradcheck(loss) -> None:
    assert torch.autograd.gradcheck(loss, (numbers(5, 1, grad=True), numbers(5, 2, grad=True)))


# Their bindings.


def test_orpo_of_identical_sides_is_the_likelihood_and_lambda_log_2(toys) -> None:
    shared = numbers(3, 3, grad=True)
    loss = step_loss(ORPO(weight=0.3), torch.cat([shared, shared]), toys, (3, 3))
    assert float(loss.detach()) == pytest.approx(0.3 * math.log(2) - float(shared.detach().mean()), rel=1e-13)
    (gradient,) = torch.autograd.grad(loss, shared)
    assert gradient.tolist() == pytest.approx([-1 / 3] * 3, rel=1e-13)  # the likelihood's alone


@pytest.mark.parametrize("cls", [SimPO, RefFreeDPO])
def test_identical_sides_have_no_gradient(cls, toys) -> None:
    shared = numbers(3, 3, grad=True)
    loss = step_loss(cls(), torch.cat([shared, shared]), toys, (3, 3))
    (gradient,) = torch.autograd.grad(loss, shared)
    assert gradient.tolist() == [0.0, 0.0, 0.0]


def test_reference_free_dpo_is_dpo_with_a_reference_of_zeros(toys) -> None:
    policy = numbers(10, 4, grad=True)
    settings = {"beta": 0.3, "label_smoothing": 0.1, "nll_weight": 0.2}
    free = step_loss(RefFreeDPO(**settings), policy, toys)
    zeros = step_loss(DPO(**settings), policy, toys, ref_logprobs=torch.zeros(10, dtype=torch.float64))
    assert float(free.detach()) == float(zeros.detach())
    assert torch.equal(torch.autograd.grad(free, policy)[0], torch.autograd.grad(zeros, policy)[0])


def test_cpo_is_reference_free_dpo_with_its_likelihood(toys) -> None:
    policy = numbers(10, 4)
    assert torch.equal(
        step_loss(CPO(beta=0.3, nll_weight=0.7), policy, toys),
        step_loss(RefFreeDPO(beta=0.3, nll_weight=0.7), policy, toys),
    )


def test_simpo_without_margin_is_reference_free_dpo_of_beta_over_the_length_where_all_are_as_long(toys) -> None:
    policy = numbers(12, 5)
    lengths = (3, 3, 3, 3)
    ours = step_loss(SimPO(beta=2.4, gamma=0.0), policy, toys, lengths)
    assert float(ours) == pytest.approx(float(step_loss(RefFreeDPO(beta=0.8), policy, toys, lengths)), rel=1e-13)


@pytest.mark.parametrize("cls", FREE)
def test_a_binding_is_its_formula_on_the_log_probs(cls, toys) -> None:
    policy = numbers(10, 6)
    sums = [float(part.sum()) for part in policy.split(LENGTHS)]
    means = [float(part.mean()) for part in policy.split(LENGTHS)]
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    odds = lambda x: x - math.log(-math.expm1(x))  # noqa: E731
    pair = {
        ORPO: lambda w, r: 0.1 * softplus(-(odds(w) - odds(r))),
        SimPO: lambda w, r: softplus(-(2.0 * (w - r) - 1.0)),
        CPO: lambda w, r: softplus(-0.1 * (w - r)),
        RefFreeDPO: lambda w, r: softplus(-0.1 * (w - r)),
        SLiC: lambda w, r: max(0.0, 1.0 - (w - r)) - 0.1 * w,
    }[cls]
    nll = -float(policy[[0, 1, 2, 5]].mean()) if cls in (ORPO, CPO) else 0.0
    sides = means if cls in (ORPO, SimPO) else sums
    want = (pair(*sides[:2]) + pair(*sides[2:])) / 2 + nll
    assert float(step_loss(cls(), policy, toys)) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("cls", "scale"), [(ORPO, 0.1), (SimPO, 2.0), (CPO, 0.1), (RefFreeDPO, 0.1), (SLiC, 1.0)])
def test_metrics_are_what_trl_logs(cls, scale: float, toys) -> None:
    """Averages under logps/* and in rewards/* where the loss reads averages, sums elsewhere; no graph."""
    policy = numbers(10, 7, grad=True)
    metrics = cls()(Outputs(policy), toys.bare_batch(LENGTHS)).metrics
    parts = policy.detach().split(LENGTHS)
    sides = [float(p.mean() if cls in (ORPO, SimPO) else p.sum()) for p in parts]
    assert not any(value.requires_grad for value in metrics.values())
    assert metrics["logps/chosen"].tolist() == pytest.approx(sides[::2], rel=1e-12)
    assert metrics["rewards/rejected"].tolist() == pytest.approx([scale * s for s in sides[1::2]], rel=1e-12)
    assert metrics["nll_loss"].tolist() == pytest.approx((-policy.detach()[[0, 1, 2, 5]]).tolist(), rel=1e-12)


@pytest.mark.parametrize("cls", FREE)
def test_they_need_no_reference(cls) -> None:
    assert cls().needs == set() and cls().wants == set()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ORPO(weight=0.0), "weight must be positive, got 0.0"),
        (lambda: SimPO(beta=0.0), "beta must be positive, got 0.0"),
        (lambda: SimPO(gamma=-0.5), "gamma must not be negative, got -0.5"),
        (lambda: SimPO(nll_weight=-1.0), "nll_weight must not be negative"),
        (lambda: CPO(beta=-0.1), "beta must be positive, got -0.1"),
        (lambda: CPO(nll_weight=-1.0), "nll_weight must not be negative"),
        (lambda: RefFreeDPO(label_smoothing=0.5), r"label_smoothing must be in \[0, 0.5\), got 0.5"),
        (lambda: SLiC(delta=0.0), "delta must be positive, got 0.0"),
        (lambda: SLiC(regularization=-1.0), "regularization must not be negative, got -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
