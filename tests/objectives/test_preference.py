"""Pair losses: closed forms, gradients, and what they log."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from strop.batch import CHOSEN_TOKEN_MEAN, PER_GROUP, Outputs, step_totals, weighted_loss
from strop.objectives.preference import DPO, IPO, Hinge, IPOSum, dpo_loss, hinge_loss, ipo_loss

PAIRS = (DPO, Hinge, IPO, IPOSum)
LENGTHS = (3, 2, 1, 4)  # chosen, rejected, chosen, rejected


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 2
    return drawn.requires_grad_(grad)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# The formulas.


def test_at_the_reference() -> None:
    same = numbers(4, 0)
    for eps in (0.0, 0.1, 0.49):
        loss = dpo_loss(same, same, beta=0.3, label_smoothing=eps)
        assert loss.tolist() == pytest.approx([math.log(2)] * 4, rel=1e-15)
    assert hinge_loss(same, same, beta=0.3).tolist() == [1.0] * 4
    for tau in (0.1, 1.0, 2.5):
        assert ipo_loss(same, same, tau=tau).tolist() == pytest.approx([1 / (4 * tau**2)] * 4, rel=1e-15)


def test_dpo_is_minus_log_sigmoid_of_beta_h() -> None:
    chosen, rejected = double(1.5, -2.0, 0.0), double(-0.5, 3.0, 40.0)
    want = [math.log1p(math.exp(-0.7 * h)) for h in (2.0, -5.0, -40.0)]
    assert dpo_loss(chosen, rejected, beta=0.7).tolist() == pytest.approx(want, rel=1e-14)


def test_dpo_is_finite_far_out() -> None:
    """Where exp(1e4) is not: the loss is beta |h| on the losing side and 0 on the winning one."""
    chosen = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = dpo_loss(chosen, torch.zeros(2), beta=1.0)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 1e4] and chosen.grad.tolist() == [0.0, -1.0]


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.3])
def test_smoothed_dpo_is_least_at_the_log_odds(eps: float) -> None:
    """beta h = log((1 - eps) / eps), where the loss is the entropy of eps."""
    beta = 0.25
    h = double(math.log((1 - eps) / eps) / beta).requires_grad_()
    loss = dpo_loss(h, torch.zeros_like(h), beta=beta, label_smoothing=eps)
    (gradient,) = torch.autograd.grad(loss.sum(), h)
    assert float(gradient) == pytest.approx(0.0, abs=1e-15)
    assert float(loss) == pytest.approx(-eps * math.log(eps) - (1 - eps) * math.log(1 - eps), rel=1e-13)
    assert float(dpo_loss(h + 1, torch.zeros_like(h), beta=beta, label_smoothing=eps)) > float(loss)


def test_hinge_is_zero_exactly_from_beta_h_1_on() -> None:
    h = double(9.0, 10.0, 10.5, -5.0)
    assert hinge_loss(h, torch.zeros(4), beta=0.1).tolist() == pytest.approx([0.1, 0.0, 0.0, 1.5], abs=1e-15)


def test_ipo_is_least_at_its_margin() -> None:
    assert ipo_loss(double(5.0, 7.0), double(0.0, 0.0), tau=0.1).tolist() == [0.0, 4.0]


@pytest.mark.parametrize(
    "loss",
    [
        lambda w, r: dpo_loss(w, r, beta=0.7),
        lambda w, r: dpo_loss(w, r, beta=0.7, label_smoothing=0.2),
        lambda w, r: ipo_loss(w, r, tau=0.4),
        lambda w, r: hinge_loss(w, r, beta=0.7),
    ],
    ids=["dpo", "cdpo", "ipo", "hinge"],
)
def test_gradcheck(loss) -> None:
    assert torch.autograd.gradcheck(loss, (numbers(5, 1, grad=True), numbers(5, 2, grad=True)))


@pytest.mark.parametrize(
    ("objective", "slope"),
    [(DPO(beta=0.3), 0.15), (Hinge(beta=0.3), 0.3), (IPOSum(tau=0.25), 4.0), (IPO(tau=0.25), 4.0)],
)
def test_gradient_at_the_reference(objective, slope: float, toys) -> None:
    """Chosen tokens are pushed up and rejected ones down by slope / pairs; IPO's by slope / pairs / own length."""
    logprobs = numbers(10, 3, grad=True)
    batch = toys.bare_batch(LENGTHS, ref_logprobs=logprobs.detach().clone())
    terms = objective(Outputs(logprobs), batch)
    loss = weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch]))
    (gradient,) = torch.autograd.grad(loss, logprobs)
    want = []
    for n, sign in zip(LENGTHS, (-1, 1, -1, 1), strict=True):
        want += [sign * slope / 2 / (n if isinstance(objective, IPO) else 1)] * n
    assert gradient.tolist() == pytest.approx(want, rel=1e-12)


# Their bindings.


def bound(objective, toys, policy: Tensor, reference: Tensor, lengths=LENGTHS):
    return objective(Outputs(policy), toys.bare_batch(lengths, ref_logprobs=reference))


@pytest.mark.parametrize("cls", PAIRS)
def test_a_binding_is_its_formula_on_the_log_ratios(cls, toys) -> None:
    policy, reference = numbers(10, 4), numbers(10, 5)
    ratio = policy - reference
    sums = [float(part.sum()) for part in ratio.split(LENGTHS)]
    means = [float(part.mean()) for part in ratio.split(LENGTHS)]
    (loss,) = bound(cls(), toys, policy, reference).losses
    want = {
        DPO: lambda w, r: math.log1p(math.exp(-0.1 * (w - r))),
        Hinge: lambda w, r: max(0.0, 1 - 0.1 * (w - r)),
        IPO: lambda w, r: (w - r - 5) ** 2,
        IPOSum: lambda w, r: (w - r - 5) ** 2,
    }[cls]
    sides = means if cls is IPO else sums
    assert loss.tolist() == pytest.approx([want(*sides[:2]), want(*sides[2:])], rel=1e-12)


def test_ipo_of_averages_is_ipo_of_sums_where_both_sides_have_one_token(toys) -> None:
    policy, reference = numbers(4, 6), numbers(4, 7)
    sums = bound(IPOSum(tau=0.3), toys, policy, reference, (1, 1, 1, 1))
    averages = bound(IPO(tau=0.3), toys, policy, reference, (1, 1, 1, 1))
    assert torch.equal(sums.losses[0], averages.losses[0])


@pytest.mark.parametrize("cls", PAIRS)
def test_nll_is_added_on_the_chosen_side_alone(cls, toys) -> None:
    """nll_weight times the mean of -log p over all chosen tokens of the step: 3 + 1 of the 10 here."""
    policy, reference = numbers(10, 8, grad=True), numbers(10, 9)
    plain, added = cls(), cls(nll_weight=0.2)
    assert plain.reductions == (PER_GROUP,) and added.reductions == (PER_GROUP, CHOSEN_TOKEN_MEAN)
    batch = toys.bare_batch(LENGTHS, ref_logprobs=reference)
    losses = []
    for objective in (plain, added):
        terms = objective(Outputs(policy), batch)
        losses.append(weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch])))
    chosen = [0, 1, 2, 5]
    nll = -float(policy.detach()[chosen].mean())
    assert float(losses[1] - losses[0]) == pytest.approx(0.2 * nll, rel=1e-12)
    (gradient,) = torch.autograd.grad(losses[1] - losses[0], policy)
    assert gradient.tolist() == pytest.approx([-0.2 / 4 if i in chosen else 0.0 for i in range(10)], abs=1e-15)
    terms = added(Outputs(policy), batch)
    assert float(terms.metrics["nll_loss"].mean()) == pytest.approx(nll, rel=1e-12)


@pytest.mark.parametrize("cls", PAIRS)
def test_identical_sides_have_no_gradient(cls, toys) -> None:
    """Not only a small one: what both sides share is the same parameter, and its pushes cancel exactly."""
    shared = numbers(3, 10, grad=True)
    policy = torch.cat([shared, shared])
    (loss,) = bound(cls(), toys, policy, torch.cat([numbers(3, 11)] * 2), (3, 3)).losses
    (gradient,) = torch.autograd.grad(loss.sum(), shared)
    assert gradient.tolist() == [0.0, 0.0, 0.0]


# What they log, say and refuse.


def test_metrics(toys) -> None:
    policy = double(-1.0, -2.0, -3.0, -4.0, -1.0, -1.0, -2.0, -2.0)
    reference = double(-2.0, -2.0, -3.0, -4.0, -1.0, -1.0, -1.0, -1.0)
    metrics = bound(DPO(beta=0.5), toys, policy, reference, (1, 1, 1, 1, 1, 1, 1, 1)).metrics
    assert {name: value.tolist() for name, value in metrics.items()} == {
        "rewards/chosen": [0.5, 0.0, 0.0, -0.5],
        "rewards/rejected": [0.0, 0.0, 0.0, -0.5],
        "rewards/margins": [0.5, 0.0, 0.0, 0.0],
        "rewards/accuracies": [1.0, 0.0, 0.0, 0.0],  # strict: a tie is no win
        "rewards/ties": [0.0, 1.0, 1.0, 1.0],
        "logps/chosen": [-1.0, -3.0, -1.0, -2.0],
        "logps/rejected": [-2.0, -4.0, -1.0, -2.0],
    }


@pytest.mark.parametrize("cls", PAIRS)
def test_metrics_hold_no_graph_and_rewards_are_scaled_sums(cls, toys) -> None:
    policy = numbers(10, 12, grad=True)
    metrics = bound(cls(nll_weight=0.1), toys, policy, numbers(10, 13)).metrics
    assert not any(value.requires_grad for value in metrics.values())
    assert metrics["rewards/chosen"].tolist() == pytest.approx(
        [0.1 * float((policy - numbers(10, 13))[rows].sum()) for rows in (slice(0, 3), slice(5, 6))], rel=1e-12
    )


@pytest.mark.parametrize("cls", PAIRS)
def test_needs_and_wants(cls) -> None:
    assert cls().needs == {"ref_logprobs"} and cls().wants == set()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DPO(beta=0.0), "beta must be positive, got 0.0"),
        (lambda: DPO(beta=-1.0), "beta must be positive, got -1.0"),
        (lambda: DPO(label_smoothing=0.5), r"label_smoothing must be in \[0, 0.5\), got 0.5"),
        (lambda: DPO(label_smoothing=-0.1), r"label_smoothing must be in \[0, 0.5\), got -0.1"),
        (lambda: DPO(nll_weight=-0.1), "nll_weight must not be negative, got -0.1"),
        (lambda: Hinge(beta=0.0), "beta must be positive"),
        (lambda: Hinge(nll_weight=-1.0), "nll_weight must not be negative"),
        (lambda: IPO(tau=0.0), "tau must be positive, got 0.0"),
        (lambda: IPO(nll_weight=-1.0), "nll_weight must not be negative"),
        (lambda: IPOSum(tau=-0.1), "tau must be positive, got -0.1"),
        (lambda: IPOSum(nll_weight=-1.0), "nll_weight must not be negative"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
