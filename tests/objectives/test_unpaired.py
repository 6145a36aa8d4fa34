"""KTO: closed forms, gradients, the annotated baseline, and steps that lack a class."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from strop.batch import Outputs, step_totals, weighted_loss
from strop.objectives.unpaired import KTO, kto_loss

LENGTHS = (3, 2, 1, 4)


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 2
    return drawn.requires_grad_(grad)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def batch_of(toys, reference: Tensor, labels: Tensor, baseline: float = 0.0):
    columns = {"ref_logprobs": reference, "labels": labels, "kl_baseline": torch.full_like(labels, baseline)}
    return toys.bare_batch(LENGTHS, group_size=1, **columns)


def step_loss(objective: KTO, policy: Tensor, batch) -> Tensor:
    terms = objective(Outputs(policy), batch)
    return weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch]))


def test_half_the_mean_weight_at_the_reference() -> None:
    zero, labels = torch.zeros(4, dtype=torch.float64), double(1, 1, 1, 0)
    loss = kto_loss(zero, labels, zero, beta=0.1, desirable=1.0, undesirable=2.0)
    assert loss.tolist() == [0.5, 0.5, 0.5, 1.0]


def test_by_hand() -> None:
    """Desirable: lambda_D (1 - sigmoid(beta (r - z0))); undesirable: lambda_U (1 - sigmoid(beta (z0 - r)))."""
    ratio, labels = double(2.0, 2.0, -3.0, -3.0), double(1, 0, 1, 0)
    loss = kto_loss(ratio, labels, torch.full_like(ratio, 0.5), beta=0.4, desirable=1.5, undesirable=0.8)
    want = [1.5 * (1 - sigmoid(0.6)), 0.8 * (1 - sigmoid(-0.6)), 1.5 * (1 - sigmoid(-1.4)), 0.8 * (1 - sigmoid(1.4))]
    assert loss.tolist() == pytest.approx(want, rel=1e-13)


def test_it_keeps_its_digits_far_out_and_is_bounded_by_its_weight() -> None:
    """1 - sigmoid(60) is 0 in float64; sigmoid(-60) is not."""
    ratio = double(60.0, -60.0, 1e4, -1e4).requires_grad_()
    loss = kto_loss(ratio, torch.ones(4), torch.zeros(4), beta=1.0, desirable=1.0, undesirable=1.0)
    (gradient,) = torch.autograd.grad(loss.sum(), ratio)
    assert loss.tolist() == pytest.approx([math.exp(-60), 1.0, 0.0, 1.0], rel=1e-13)
    assert float(gradient[0]) == pytest.approx(-math.exp(-60), rel=1e-13) and bool(gradient.isfinite().all())


def test_a_desirable_row_is_an_undesirable_one_seen_in_the_mirror() -> None:
    ratio, zero = numbers(5, 0), torch.zeros(5, dtype=torch.float64)
    good = kto_loss(ratio, zero + 1, zero, beta=0.3, desirable=1.0, undesirable=1.0)
    bad = kto_loss(-ratio, zero, zero, beta=0.3, desirable=1.0, undesirable=1.0)
    assert torch.equal(good, bad)


def test_a_shift_of_ratio_and_baseline_changes_nothing() -> None:
    ratio, labels, zero = numbers(4, 1), double(1, 0, 1, 0), torch.zeros(4, dtype=torch.float64)
    settings = {"beta": 0.3, "desirable": 1.0, "undesirable": 1.3}
    torch.testing.assert_close(
        kto_loss(ratio + 2, labels, zero + 2, **settings), kto_loss(ratio, labels, zero, **settings), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("labels", [(1, 0, 1, 0, 1), (1, 1, 1, 1, 1), (0, 0, 0, 0, 0)])
def test_gradcheck(labels: tuple[int, ...]) -> None:
    def loss(ratio: Tensor) -> Tensor:
        return kto_loss(ratio, double(*labels), double(0.4).expand(5), beta=0.7, desirable=1.0, undesirable=1.3)

    assert torch.autograd.gradcheck(loss, (numbers(5, 2, grad=True),))


def test_the_binding_is_the_mean_over_sequences(toys) -> None:
    policy, reference, labels = numbers(10, 3, grad=True), numbers(10, 4), double(1, 0, 0, 1)
    objective = KTO(beta=0.3, desirable_weight=1.2, undesirable_weight=0.9)
    loss = step_loss(objective, policy, batch_of(toys, reference, labels, 0.7))
    ratios = [float(part.sum()) for part in (policy - reference).detach().split(LENGTHS)]
    want = 0.0
    for r, label in zip(ratios, labels.tolist(), strict=True):
        want += 1.2 * (1 - sigmoid(0.3 * (r - 0.7))) if label else 0.9 * (1 - sigmoid(0.3 * (0.7 - r)))
    assert float(loss.detach()) == pytest.approx(want / 4, rel=1e-12)


def test_gradient_at_the_reference(toys) -> None:
    """Tokens of desirable rows go up and of undesirable ones down by beta lambda / 4, over the rows."""
    policy = numbers(10, 5, grad=True)
    objective = KTO(beta=0.2, undesirable_weight=3.0)
    loss = step_loss(objective, policy, batch_of(toys, policy.detach().clone(), double(1, 0, 1, 0)))
    (gradient,) = torch.autograd.grad(loss, policy)
    want = [x for n, g in zip(LENGTHS, (-1, 3, -1, 3), strict=True) for x in [g * 0.2 / 4 / 4] * n]
    assert gradient.tolist() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("label", "missing"), [(1, "rejected"), (0, "chosen")])
def test_a_step_of_one_class(label: int, missing: str, toys) -> None:
    policy, reference = numbers(10, 6, grad=True), numbers(10, 7)
    batch = batch_of(toys, reference, double(*[label] * 4), 0.3)
    terms = KTO()(Outputs(policy), batch)
    (gradient,) = torch.autograd.grad(step_loss(KTO(), policy, batch), policy)
    assert bool((gradient < 0).all()) if label else bool((gradient > 0).all())
    assert terms.metrics[f"rewards/{missing}"].numel() == terms.metrics[f"logps/{missing}"].numel() == 0


def test_metrics(toys) -> None:
    policy, reference = numbers(10, 8, grad=True), numbers(10, 9)
    metrics = KTO(beta=0.5)(Outputs(policy), batch_of(toys, reference, double(0, 1, 1, 0), 0.7)).metrics
    sums = [float(part.sum()) for part in policy.detach().split(LENGTHS)]
    ratios = [0.5 * float(part.sum()) for part in (policy - reference).detach().split(LENGTHS)]
    assert not any(value.requires_grad for value in metrics.values())
    assert metrics["rewards/chosen"].tolist() == pytest.approx([ratios[1], ratios[2]], rel=1e-12)
    assert metrics["rewards/rejected"].tolist() == pytest.approx([ratios[0], ratios[3]], rel=1e-12)
    assert metrics["logps/chosen"].tolist() == pytest.approx([sums[1], sums[2]], rel=1e-12)
    assert metrics["logps/rejected"].tolist() == pytest.approx([sums[0], sums[3]], rel=1e-12)
    assert metrics["kl"].tolist() == [0.7] * 4


def test_needs_and_wants() -> None:
    assert KTO().needs == {"ref_logprobs", "labels", "kl_baseline"} and KTO().wants == set()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KTO(beta=0.0), "beta must be positive, got 0.0"),
        (lambda: KTO(desirable_weight=0.0), "desirable_weight must be positive, got 0.0"),
        (lambda: KTO(undesirable_weight=-1.0), "undesirable_weight must be positive, got -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
