"""DPO and its logistic relatives: closed forms, identities and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from strop.batch import Outputs
from strop.objectives.preference import DPO, dpo_loss, dpop_loss, rdpo_loss, robust_loss

LENGTHS = (3, 2, 1, 4)  # chosen, rejected, chosen, rejected


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 2
    return drawn.requires_grad_(grad)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_at_the_reference() -> None:
    same = numbers(4, 0)
    for eps in (0.0, 0.1, 0.49):
        loss = dpo_loss(same, same, beta=0.3, label_smoothing=eps)
        assert loss.tolist() == pytest.approx([math.log(2)] * 4, rel=1e-15)
        loss = robust_loss(same, same, beta=0.3, label_smoothing=eps)
        assert loss.tolist() == pytest.approx([math.log(2)] * 4, rel=1e-13)
    zero = torch.zeros(4, dtype=torch.float64)
    assert dpop_loss(zero, zero, beta=0.3, penalty=50.0).tolist() == pytest.approx([math.log(2)] * 4, rel=1e-15)
    assert rdpo_loss(zero, zero, (zero, zero), beta=0.3, alpha=0.1).tolist() == pytest.approx([math.log(2)] * 4)


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
    assert float(loss.detach()) == pytest.approx(-eps * math.log(eps) - (1 - eps) * math.log(1 - eps), rel=1e-13)
    assert float(dpo_loss(h + 1, torch.zeros_like(h), beta=beta, label_smoothing=eps).detach()) > float(loss.detach())


def test_no_smoothing_makes_robust_and_smoothed_dpo_plain() -> None:
    chosen, rejected = numbers(5, 0), numbers(5, 1)
    plain = dpo_loss(chosen, rejected, beta=0.3)
    assert torch.equal(robust_loss(chosen, rejected, beta=0.3, label_smoothing=0.0), plain)
    assert torch.equal(dpo_loss(chosen, rejected, beta=0.3, label_smoothing=0.0), plain)


@pytest.mark.parametrize("eps", [0.05, 0.3])
def test_robust_dpo_is_unbiased_under_flipped_labels(eps: float) -> None:
    """Its mean over labels flipped at rate eps is the DPO loss of the true ones, and so is its gradient."""
    chosen, rejected = numbers(5, 0, grad=True), numbers(5, 1)
    kept = robust_loss(chosen, rejected, beta=0.3, label_smoothing=eps)
    flipped = robust_loss(rejected, chosen, beta=0.3, label_smoothing=eps)
    true = dpo_loss(chosen, rejected, beta=0.3)
    expected = (1 - eps) * kept + eps * flipped
    torch.testing.assert_close(expected, true, rtol=1e-13, atol=1e-13)
    ours, theirs = (torch.autograd.grad(x.sum(), chosen)[0] for x in (expected, true))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_robust_dpo_falls_without_end_at_its_slope() -> None:
    h = double(900.0, 901.0)
    loss = robust_loss(h, torch.zeros_like(h), beta=1.0, label_smoothing=0.1)
    assert float(loss[1] - loss[0]) == pytest.approx(-0.1 / 0.8, rel=1e-12) and float(loss[0]) < -100


def test_dpop_is_dpo_until_the_chosen_side_falls_below_the_reference() -> None:
    chosen, rejected = double(0.5, -0.2), double(-1.0, -1.0)
    want = [math.log1p(math.exp(-0.3 * 1.5)), math.log1p(math.exp(-0.3 * (0.8 - 50 * 0.2)))]
    assert dpop_loss(chosen, rejected, beta=0.3, penalty=50.0).tolist() == pytest.approx(want, rel=1e-13)
    assert torch.equal(dpop_loss(chosen, rejected, beta=0.3, penalty=0.0), dpo_loss(chosen, rejected, beta=0.3))


def test_rdpo_takes_alpha_off_for_each_token_the_chosen_side_is_longer() -> None:
    """A longer chosen side explains its win in part, so less is left to learn: the slope is smaller."""
    chosen = double(1.0, 1.0, 1.0).requires_grad_()
    lengths = double(5.0, 9.0, 1.0), double(5.0, 5.0, 5.0)
    loss = rdpo_loss(chosen, torch.zeros(3), lengths, beta=0.2, alpha=0.1)
    assert loss.tolist() == pytest.approx([math.log1p(math.exp(-x)) for x in (0.2, 0.6, -0.2)], rel=1e-13)
    (gradient,) = torch.autograd.grad(loss.sum(), chosen)
    assert gradient[2] < gradient[0] < gradient[1] < 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda w, r: dpo_loss(w, r, beta=0.7),
        lambda w, r: dpo_loss(w, r, beta=0.7, label_smoothing=0.2),
        lambda w, r: dpo_loss(w, r, beta=0.7, probability=torch.linspace(0, 1, 5), margin=0.3),
        lambda w, r: robust_loss(w, r, beta=0.7, label_smoothing=0.2),
        lambda w, r: dpop_loss(w, r, beta=0.7, penalty=3.0),
        lambda w, r: rdpo_loss(w, r, (torch.arange(5), torch.arange(5, 0, -1)), beta=0.7, alpha=0.1),
    ],
    ids=["dpo", "cdpo", "soft", "robust", "dpop", "r_dpo"],
)
def test_gradcheck(loss) -> None:
    assert torch.autograd.gradcheck(loss, (numbers(5, 1, grad=True), numbers(5, 2, grad=True)))


def test_words_alone_count_where_formatting_is_masked(toys) -> None:
    """The tokens marked 0 say nothing and learn nothing, whatever they hold; the likelihood keeps them."""
    content = double(1, 1, 0, 1, 0, 0, 1, 1, 1, 0)
    policy, reference = numbers(10, 6, grad=True), numbers(10, 7)
    batch = toys.bare_batch(LENGTHS, ref_logprobs=reference, content=content)
    objective = DPO(beta=0.3, nll_weight=0.2, mask_formatting=True)
    assert objective.needs == {"ref_logprobs", "content"}
    loss, nll = objective(Outputs(policy), batch).losses
    ratio = (policy - reference).detach() * content
    sums = [float(part.sum()) for part in ratio.split(LENGTHS)]
    want = [math.log1p(math.exp(-0.3 * (w - r))) for w, r in (sums[:2], sums[2:])]
    assert loss.tolist() == pytest.approx(want, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss.sum(), policy, retain_graph=True)
    assert [g == 0 for g in gradient.tolist()] == [c == 0 for c in content.tolist()]
    assert nll.tolist() == pytest.approx((-0.2 * policy.detach()).tolist(), rel=1e-15)
    odd = torch.where(content > 0, reference, torch.full_like(reference, float("nan")))
    (again, _) = objective(Outputs(policy), batch.with_columns(ref_logprobs=odd)).losses
    assert torch.equal(torch.autograd.grad(again.sum(), policy)[0], gradient)


def test_masking_nothing_is_plain_dpo(toys) -> None:
    policy, reference = numbers(10, 6), numbers(10, 7)
    batch = toys.bare_batch(LENGTHS, ref_logprobs=reference, content=torch.ones(10))
    masked, plain = (DPO(mask_formatting=m)(Outputs(policy), batch) for m in (True, False))
    assert torch.equal(masked.losses[0], plain.losses[0])


def test_a_soft_label_is_least_at_its_log_odds() -> None:
    """At P = 0.8 and margin m: beta h = m + log 4, where the loss is the entropy of 0.8; P = 1/2 holds h at m."""
    probability, margin, beta = double(0.8, 0.5), double(0.3, 0.2), 0.25
    h = ((margin + double(math.log(4), 0.0)) / beta).requires_grad_()
    loss = dpo_loss(h, torch.zeros_like(h), beta=beta, probability=probability, margin=margin)
    (gradient,) = torch.autograd.grad(loss.sum(), h)
    assert gradient.tolist() == pytest.approx([0.0, 0.0], abs=1e-15)
    assert loss.tolist() == pytest.approx([-0.8 * math.log(0.8) - 0.2 * math.log(0.2), math.log(2)], rel=1e-13)


def test_a_soft_label_is_the_mean_over_flipped_ones() -> None:
    chosen, rejected = numbers(5, 0), numbers(5, 1)
    soft = dpo_loss(chosen, rejected, beta=0.3, probability=double(1.0, 0.9, 0.5, 0.2, 0.0))
    kept, flipped = dpo_loss(chosen, rejected, beta=0.3), dpo_loss(rejected, chosen, beta=0.3)
    weight = double(1.0, 0.9, 0.5, 0.2, 0.0)
    torch.testing.assert_close(soft, weight * kept + (1 - weight) * flipped, rtol=1e-13, atol=1e-14)
    assert torch.equal(dpo_loss(chosen, rejected, beta=0.3, probability=torch.ones(5)), kept)
    smoothed = dpo_loss(chosen, rejected, beta=0.3, probability=0.9, label_smoothing=0.1)
    torch.testing.assert_close(smoothed, dpo_loss(chosen, rejected, beta=0.3, label_smoothing=0.18))


def test_probability_and_margin_come_from_the_batch(toys) -> None:
    policy, reference = numbers(10, 6), numbers(10, 7)
    columns = {"ref_logprobs": reference, "probability": double(0.7, 0.5), "margin": double(0.2, 0.0)}
    batch = toys.bare_batch(LENGTHS, **columns)
    objective = DPO(beta=0.3, soft_labels=True, margin=True)
    assert objective.needs == {"ref_logprobs", "probability", "margin"}
    sums = [float(part.sum()) for part in (policy - reference).split(LENGTHS)]
    logits = [0.3 * (sums[0] - sums[1]) - 0.2, 0.3 * (sums[2] - sums[3])]
    want = [
        q * math.log1p(math.exp(-x)) + (1 - q) * math.log1p(math.exp(x))
        for q, x in zip((0.7, 0.5), logits, strict=True)
    ]
    assert objective(Outputs(policy), batch).losses[0].tolist() == pytest.approx(want, rel=1e-12)
