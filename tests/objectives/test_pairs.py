"""The bindings of all losses on pairs against a reference: what they read, learn, log and refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from strop.batch import Outputs, step_totals, weighted_loss
from strop.objectives.preference import DPO, DPOP, RDPO, DPONorm, RobustDPO
from strop.objectives.preference_shapes import IPO, APODown, APOZero, Hinge, IPOSum

PAIRS = (DPO, RobustDPO, DPOP, DPONorm, RDPO, Hinge, IPO, IPOSum, APOZero, APODown)
LENGTHS = (3, 2, 1, 4)  # chosen, rejected, chosen, rejected


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 2
    return drawn.requires_grad_(grad)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("objective", "slope"),
    [
        (DPO(beta=0.3), 0.15),
        (DPO(beta=0.3, label_smoothing=0.2), 0.09),
        (RobustDPO(beta=0.3, label_smoothing=0.2), 0.25),
        (DPONorm(beta=0.3), 0.15),
        (Hinge(beta=0.3), 0.3),
        (IPOSum(tau=0.25), 4.0),
        (IPO(tau=0.25), 4.0),
        (APOZero(beta=0.3), 0.075),
    ],
)
def test_gradient_at_the_reference(objective, slope: float, toys) -> None:
    """Chosen tokens go up and rejected ones down by slope / pairs; losses of averages divide by their own length."""
    logprobs = numbers(10, 3, grad=True)
    batch = toys.bare_batch(LENGTHS, ref_logprobs=logprobs.detach().clone())
    terms = objective(Outputs(logprobs), batch)
    loss = weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch]))
    (gradient,) = torch.autograd.grad(loss, logprobs)
    want = []
    for n, sign in zip(LENGTHS, (-1, 1, -1, 1), strict=True):
        want += [sign * slope / 2 / (n if isinstance(objective, IPO | DPONorm) else 1)] * n
    assert gradient.tolist() == pytest.approx(want, rel=1e-12)


def bound(objective, toys, policy: Tensor, reference: Tensor, lengths=LENGTHS):
    return objective(Outputs(policy), toys.bare_batch(lengths, ref_logprobs=reference))


@pytest.mark.parametrize("cls", PAIRS)
def test_a_binding_is_its_formula_on_the_log_ratios(cls, toys) -> None:
    policy, reference = numbers(10, 4), numbers(10, 5)
    ratio = policy - reference
    sums = [float(part.sum()) for part in ratio.split(LENGTHS)]
    means = [float(part.mean()) for part in ratio.split(LENGTHS)]
    loss = bound(cls(), toys, policy, reference).losses[0]
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    longer = iter((3 - 2, 1 - 4))  # tokens that the chosen side has more
    want = {
        DPO: lambda w, r: softplus(-0.1 * (w - r)),
        RobustDPO: lambda w, r: (0.9 * softplus(-0.1 * (w - r)) - 0.1 * softplus(0.1 * (w - r))) / 0.8,
        DPOP: lambda w, r: softplus(-0.3 * (w - r - 50 * max(0.0, -w))),
        DPONorm: lambda w, r: softplus(-5 * (w - r)),
        RDPO: lambda w, r: softplus(-0.1 * (w - r) - 0.01 * next(longer)),
        Hinge: lambda w, r: max(0.0, 1 - 0.1 * (w - r)),
        IPO: lambda w, r: (w - r - 5) ** 2,
        IPOSum: lambda w, r: (w - r - 5) ** 2,
        APOZero: lambda w, r: 1 / (1 + math.exp(0.1 * w)) + 1 / (1 + math.exp(-0.1 * r)),
        APODown: lambda w, r: 1 / (1 + math.exp(-0.1 * w)) + 1 / (1 + math.exp(0.1 * (w - r))),
    }[cls]
    sides = means if cls in (IPO, DPONorm) else sums
    assert loss.tolist() == pytest.approx([want(*sides[:2]), want(*sides[2:])], rel=1e-12)


def test_ipo_of_averages_is_ipo_of_sums_where_both_sides_have_one_token(toys) -> None:
    policy, reference = numbers(4, 6), numbers(4, 7)
    sums = bound(IPOSum(tau=0.3), toys, policy, reference, (1, 1, 1, 1))
    averages = bound(IPO(tau=0.3), toys, policy, reference, (1, 1, 1, 1))
    assert torch.equal(sums.losses[0], averages.losses[0])


def test_dpo_norm_is_dpo_of_beta_over_the_length_where_all_are_as_long(toys) -> None:
    policy, reference = numbers(12, 6, grad=True), numbers(12, 7)
    terms = [bound(o, toys, policy, reference, (3, 3, 3, 3)) for o in (DPONorm(beta=0.9), DPO(beta=0.3))]
    torch.testing.assert_close(terms[0].losses[0], terms[1].losses[0], rtol=1e-13, atol=0)
    ours, theirs = (torch.autograd.grad(t.losses[0].sum(), policy)[0] for t in terms)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)


@pytest.mark.parametrize("cls", PAIRS)
def test_nll_is_added_on_the_chosen_side_alone(cls, toys) -> None:
    """nll_weight times the mean of -log p over all chosen tokens of the step: 3 + 1 of the 10 here."""
    policy, reference = numbers(10, 8, grad=True), numbers(10, 9)
    plain, added = cls(), cls(nll_weight=0.2)
    batch = toys.bare_batch(LENGTHS, ref_logprobs=reference)
    losses = []
    for objective in (plain, added):
        terms = objective(Outputs(policy), batch)
        losses.append(weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch])))
    chosen = [0, 1, 2, 5]
    nll = -float(policy.detach()[chosen].mean())
    assert float((losses[1] - losses[0]).detach()) == pytest.approx(0.2 * nll, rel=1e-12)
    (gradient,) = torch.autograd.grad(losses[1] - losses[0], policy)
    assert gradient.tolist() == pytest.approx([-0.2 / 4 if i in chosen else 0.0 for i in range(10)], abs=1e-15)
    for objective in (plain, added):
        assert float(objective(Outputs(policy), batch).metrics["nll_loss"].mean()) == pytest.approx(nll, rel=1e-12)


@pytest.mark.parametrize("cls", [cls for cls in PAIRS if cls not in (DPOP, APODown)])
def test_identical_sides_have_no_gradient(cls, toys) -> None:
    """Not only a small one: what both sides share is the same parameter, and its pushes cancel exactly.

    But for DPOP and APO-down, which look at the chosen side by itself.
    """
    shared = numbers(3, 10, grad=True)
    policy = torch.cat([shared, shared])
    loss = bound(cls(), toys, policy, torch.cat([numbers(3, 11)] * 2), (3, 3)).losses[0]
    (gradient,) = torch.autograd.grad(loss.sum(), shared)
    assert gradient.tolist() == [0.0, 0.0, 0.0]


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
        "nll_loss": [1.0, 3.0, 1.0, 2.0],
    }


@pytest.mark.parametrize("cls", PAIRS)
def test_metrics_hold_no_graph_and_rewards_are_scaled_sums(cls, toys) -> None:
    policy = numbers(10, 12, grad=True)
    scale = {DPOP: 0.3, DPONorm: 5.0}.get(cls, 0.1)
    metrics = bound(cls(nll_weight=0.1), toys, policy, numbers(10, 13)).metrics
    assert not any(value.requires_grad for value in metrics.values())
    assert metrics["rewards/chosen"].tolist() == pytest.approx(
        [scale * float((policy.detach() - numbers(10, 13))[rows].sum()) for rows in (slice(0, 3), slice(5, 6))],
        rel=1e-12,
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
        (lambda: RobustDPO(label_smoothing=0.5), r"label_smoothing must be in \[0, 0.5\), got 0.5"),
        (lambda: DPOP(penalty=-1.0), "penalty must not be negative, got -1.0"),
        (lambda: RDPO(alpha=-0.1), "alpha must not be negative, got -0.1"),
        (lambda: DPONorm(beta=0.0), "beta must be positive, got 0.0"),
        (lambda: APOZero(beta=float("nan")), "beta must be positive, got nan"),
        (lambda: APODown(nll_weight=-1.0), "nll_weight must not be negative"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
