"""The clipped policy gradient: the clip's behaviour, the estimators of KL, and credit through the reductions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from strop.batch import SEQUENCE_MEAN, TOKEN_MEAN, Outputs, constant_mean, step_totals, weighted_loss
from strop.objectives.policy import (
    GRPO,
    clip_metrics,
    clipped_loss,
    dapo,
    deepseek_grpo,
    dr_grpo,
    kl_penalty,
    off_policy_keep,
    ratio,
)

LENGTHS = (3, 1, 2, 4)
ADVANTAGES = (0.5, -1.5, 2.0, -0.25)
KINDS = ("k1", "k2", "k3", "ratio_k1", "ratio_k3")


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.3 * drawn - 2).requires_grad_(grad)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def batch_of(toys, **columns: Tensor):
    per_token = torch.repeat_interleave(torch.tensor(ADVANTAGES, dtype=torch.float64), torch.tensor(LENGTHS))
    return toys.bare_batch(LENGTHS, advantages=per_token, **columns)


def loss_of(objective: GRPO, logprobs: Tensor, batch) -> Tensor:
    terms = objective(Outputs(logprobs), batch)
    return weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch]))


# The clip.


@pytest.mark.parametrize(
    ("rho", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.2, 2.0, -2.4, -2.0),  # above 1 + low, below 1 + high
        (1.5, 2.0, -2.56, 0.0),  # a gain is not followed beyond 1 + high
        (0.5, 2.0, -1.0, -2.0),  # a loss always is
        (0.5, -2.0, 1.6, 0.0),  # nor is a fall beyond 1 - low
        (0.9, -2.0, 1.8, 2.0),
        (1.5, -2.0, 3.0, 2.0),
        (100.0, -2.0, 200.0, 2.0),  # no upper bound where the advantage is negative
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_clip(rho: float, advantage: float, loss: float, slope: float) -> None:
    r = double(rho).requires_grad_()
    got = clipped_loss(r, double(advantage), clip_low=0.2, clip_high=0.28)
    (gradient,) = torch.autograd.grad(got.sum(), r)
    assert float(got.detach()) == pytest.approx(loss, rel=1e-12, abs=1e-15)
    assert float(gradient) == pytest.approx(slope, abs=1e-12)


def test_clip_metrics_count_lost_gradients() -> None:
    rho, advantages = double(1.5, 1.5, 0.5, 0.5, 1.0), double(1.0, -1.0, 1.0, -1.0, 1.0)
    got = clip_metrics(rho, advantages, clip_low=0.2, clip_high=0.28)
    assert {name: value.tolist() for name, value in got.items()} == {
        "clip_ratio/low_mean": [0, 0, 0, 1, 0],
        "clip_ratio/high_mean": [1, 0, 0, 0, 0],
        "clip_ratio/region_mean": [1, 0, 0, 1, 0],
    }


def test_ratio_is_the_exponential_and_stays_finite() -> None:
    new = double(-1.0, -2.0, 0.0, -100.0).requires_grad_()
    rho = ratio(new, double(-1.0, -1.5, -100.0, 0.0))
    assert rho.tolist() == pytest.approx([1.0, math.exp(-0.5), math.exp(20), math.exp(-20)], rel=1e-12)
    (gradient,) = torch.autograd.grad(rho.sum(), new)
    assert gradient.tolist() == pytest.approx([1.0, math.exp(-0.5), 0.0, 0.0], rel=1e-12)


@pytest.mark.parametrize("delta", [1.5, 3.0])
def test_the_two_sided_clip_is_the_dual_clip(delta: float, toys) -> None:
    """min over the ratio's bound, or max over the loss's: where A < 0 the loss is at most delta |A|."""
    log_ratio = torch.linspace(-3, 3, 60, dtype=torch.float64)
    for sign in (1.0, -1.0):
        batch = toys.bare_batch((30, 30), advantages=torch.full((60,), sign), old_logprobs=torch.zeros(60))
        new = log_ratio.clone().requires_grad_()
        got = GRPO(delta=delta)(Outputs(new), batch).losses[0]
        once = clipped_loss(log_ratio.exp(), torch.full((60,), sign), clip_low=0.2, clip_high=0.28)
        want = once if sign > 0 else once.clamp(max=delta)
        torch.testing.assert_close(got.detach(), want, rtol=1e-12, atol=1e-12)
        (gradient,) = torch.autograd.grad(got.sum(), new)
        free = (log_ratio.exp() < 1.28) if sign > 0 else (log_ratio.exp() > 0.8) & (log_ratio.exp() < delta)
        assert (gradient != 0).tolist() == free.tolist()


# Sequences left out.


def test_bad_sequences_the_policy_has_left_are_dropped(toys) -> None:
    """Mean drifts of 1, 1, 0.25 and nothing known; only the second is both bad and far."""
    sampled = double(0.0, -1.0, -1.0, -1.0, -1.75, math.nan)
    logprobs = double(-1.0, -2.0, -2.0, -2.0, -2.0, -9.0)
    batch = toys.bare_batch((2, 2, 1, 1))
    advantages = double(1, 1, -1, -1, -1, -1)
    keep = off_policy_keep(logprobs, sampled, advantages, batch, delta=0.5)
    assert keep.tolist() == [True, True, False, False, True, True]
    assert off_policy_keep(logprobs, sampled, advantages, batch, delta=0.0).tolist() == [True] * 2 + [False] * 3 + [
        True
    ]


def test_a_dropped_sequence_gives_no_gradient_but_its_kl_does_and_it_still_counts(toys) -> None:
    logprobs = numbers(10, 30, grad=True)
    batch = batch_of(toys, old_logprobs=logprobs.detach() + 1.0, ref_logprobs=numbers(10, 31))
    dropped = [a < 0 for a, n in zip(ADVANTAGES, LENGTHS, strict=True) for _ in range(n)]
    objective = GRPO(off_policy_delta=0.5, clip_low=0.9)
    (gradient,) = torch.autograd.grad(loss_of(objective, logprobs, batch), logprobs)
    assert [g == 0 for g in gradient.tolist()] == dropped
    (plain,) = torch.autograd.grad(loss_of(GRPO(clip_low=0.9), logprobs, batch), logprobs)
    assert gradient[0] == plain[0]  # the mean is still over every token
    metrics = objective(Outputs(logprobs), batch).metrics
    assert metrics["sampling/masked"].tolist() == [float(d) for d in dropped]
    with_kl = GRPO(off_policy_delta=0.5, clip_low=0.9, beta=0.1)
    (gradient,) = torch.autograd.grad(loss_of(with_kl, logprobs, batch), logprobs)
    assert (gradient != 0).all()


# Weights for another sampler.


def test_weights_multiply_the_policy_term_and_not_the_kl(toys) -> None:
    logprobs, weights = numbers(10, 32), torch.linspace(0, 2, 10, dtype=torch.float64)
    columns = {"old_logprobs": numbers(10, 33), "ref_logprobs": numbers(10, 34), "policy_weight": weights}
    batch = batch_of(toys, **columns)
    plain = GRPO()(Outputs(logprobs), batch).losses[0]
    both = GRPO(beta=0.3)(Outputs(logprobs), batch).losses[0]
    weighed = GRPO(beta=0.3, weighted=True)(Outputs(logprobs), batch).losses[0]
    torch.testing.assert_close(weighed, weights * plain + (both - plain), rtol=1e-12, atol=1e-14)


def test_weights_of_one_change_nothing(toys) -> None:
    logprobs = numbers(10, 35)
    batch = batch_of(toys, old_logprobs=numbers(10, 36), policy_weight=torch.ones(10))
    assert torch.equal(*(GRPO(weighted=w)(Outputs(logprobs), batch).losses[0] for w in (False, True)))


def test_with_weights_the_sampler_is_what_off_policy_is_measured_against(toys) -> None:
    logprobs = numbers(4, 37)
    far, near = logprobs + 1.0, logprobs.clone()
    batch = toys.bare_batch(
        (2, 2), advantages=-torch.ones(4), old_logprobs=near, sampler_logprobs=far, policy_weight=torch.ones(4)
    )
    assert GRPO(off_policy_delta=0.5, weighted=True)(Outputs(logprobs), batch).losses[0].tolist() == [0.0] * 4
    assert GRPO(off_policy_delta=0.5)(Outputs(logprobs), batch).losses[0].tolist() == [1.0] * 4
    assert GRPO(off_policy_delta=0.5, weighted=True).needs >= {"sampler_logprobs", "policy_weight"}


# The KL estimators, on a categorical where every expectation is a finite sum.


def categorical() -> tuple[Tensor, Tensor]:
    return double(0.3, -1.0, 0.8, 0.1).requires_grad_(), double(-0.5, 0.2, 0.4, -0.9).log_softmax(0)


def expected(kind: str, logits: Tensor, reference: Tensor) -> tuple[float, Tensor]:
    """The estimator's mean over tokens of the policy, and the mean of its gradient there."""
    logprobs = logits.log_softmax(0)
    values = kl_penalty(logprobs, reference, ratio(logprobs, logprobs.detach()), kind)
    mean = (logprobs.detach().exp() * values).sum()  # weights detached: the tokens were drawn before
    return float(mean.detach()), torch.autograd.grad(mean, logits)[0]


def kl_gradient(of: str) -> Tensor:
    logits, reference = categorical()
    logprobs = logits.log_softmax(0)
    forward = (logprobs.exp() * (logprobs - reference)).sum()
    backward = (reference.exp() * (reference - logprobs)).sum()
    return torch.autograd.grad({"policy": forward, "reference": backward}[of], logits)[0]


@pytest.mark.parametrize("kind", ["k1", "k3", "ratio_k1", "ratio_k3"])
def test_kl_value_is_unbiased(kind: str) -> None:
    logits, reference = categorical()
    logprobs = logits.detach().log_softmax(0)
    kl = float((logprobs.exp() * (logprobs - reference)).sum())
    assert expected(kind, logits, reference)[0] == pytest.approx(kl, rel=1e-12)


def test_k2_is_the_mean_square_over_two() -> None:
    logits, reference = categorical()
    logprobs = logits.detach().log_softmax(0)
    want = float((logprobs.exp() * (logprobs - reference) ** 2).sum() / 2)
    assert expected("k2", logits, reference)[0] == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "of"),
    [("k1", "nothing"), ("k2", "policy"), ("k3", "reference"), ("ratio_k1", "policy"), ("ratio_k3", "policy")],
)
def test_kl_gradient_in_the_loss(kind: str, of: str) -> None:
    """k1 regularises nothing; k2 and both with the ratio give KL(policy || reference), k3 the other direction."""
    got = expected(kind, *categorical())[1]
    want = torch.zeros(4, dtype=torch.float64) if of == "nothing" else kl_gradient(of)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-15)
    assert float((kl_gradient("policy") - kl_gradient("reference")).abs().max()) > 0.01  # the two are told apart


@pytest.mark.parametrize("kind", KINDS)
def test_kl_is_zero_at_the_reference_and_finite_far_away(kind: str) -> None:
    same = numbers(4, 0)
    assert kl_penalty(same, same, torch.ones_like(same), kind).abs().tolist() == [0.0] * 4
    assert bool(kl_penalty(double(-500.0), double(0.0), double(1.0), kind).isfinite().all())
    if kind == "k3":
        assert bool((kl_penalty(numbers(99, 1), numbers(99, 2), torch.ones(99), kind) >= 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_kl(kind: str) -> None:
    old = numbers(5, 3)

    def penalty(new: Tensor, ref: Tensor) -> Tensor:
        return kl_penalty(new, ref, ratio(new, old), kind)

    assert torch.autograd.gradcheck(penalty, (numbers(5, 4, grad=True), numbers(5, 5, grad=True)))


def test_gradcheck_clip() -> None:
    old, advantages = numbers(20, 6), torch.linspace(-1, 1, 20, dtype=torch.float64)

    def loss(new: Tensor) -> Tensor:
        return clipped_loss(ratio(new, old), advantages, clip_low=0.2, clip_high=0.28)

    assert torch.autograd.gradcheck(loss, (numbers(20, 7, grad=True),))


# The binding.


@pytest.mark.parametrize(
    ("objective", "weights"),
    [
        (GRPO(), [1 / 10] * 4),
        (GRPO(aggregate="sequence"), [1 / (4 * n) for n in LENGTHS]),
        (GRPO(aggregate="constant", constant_length=7.0), [1 / (4 * 7)] * 4),
    ],
    ids=["token", "sequence", "constant"],
)
def test_on_policy_the_gradient_is_minus_advantage_times_weight(objective: GRPO, weights, toys) -> None:
    logprobs = numbers(10, 8, grad=True)
    batch = batch_of(toys, old_logprobs=logprobs.detach().clone())
    loss = loss_of(objective, logprobs, batch)
    want = [-a * w for a, w, n in zip(ADVANTAGES, weights, LENGTHS, strict=True) for _ in range(n)]
    assert float(loss) == pytest.approx(sum(want), rel=1e-12)  # - sum A_i |o_i| / N for the token mean
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert gradient.tolist() == pytest.approx(want, rel=1e-12)


def test_the_mean_over_sequences_of_centred_advantages_is_zero_but_its_gradient_is_not(toys) -> None:
    """A loss of 0 is no bug."""
    logprobs = numbers(10, 9, grad=True)
    advantages = double(1.0, -1.0, 0.5, -0.5).repeat_interleave(torch.tensor(LENGTHS))
    batch = toys.bare_batch(LENGTHS, advantages=advantages, old_logprobs=logprobs.detach().clone())
    loss = loss_of(GRPO(aggregate="sequence"), logprobs, batch)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert float(loss) == pytest.approx(0.0, abs=1e-15) and float(gradient.abs().sum()) == pytest.approx(3 / 4)


def test_token_and_sequence_means_agree_where_lengths_are_equal(toys) -> None:
    advantages = double(1.0, -2.0, 0.5, 3.0).repeat_interleave(3)
    batch = toys.bare_batch((3, 3, 3, 3), advantages=advantages, old_logprobs=numbers(12, 10))
    losses = [
        float(loss_of(objective, numbers(12, 11), batch))
        for objective in (GRPO(), GRPO(aggregate="sequence"), GRPO(aggregate="constant", constant_length=3.0))
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-14)


def test_zero_advantages_give_exactly_no_gradient(toys) -> None:
    logprobs = numbers(10, 12, grad=True)
    batch = toys.bare_batch(LENGTHS, advantages=torch.zeros(10), old_logprobs=numbers(10, 13))
    (gradient,) = torch.autograd.grad(loss_of(GRPO(), logprobs, batch), logprobs)
    assert gradient.tolist() == [0.0] * 10


@pytest.mark.parametrize("kind", KINDS)
def test_beta_adds_the_penalty_and_the_logged_kl_is_k3(kind: str, toys) -> None:
    logprobs, old, ref = numbers(10, 14), numbers(10, 15), numbers(10, 16)
    batch = batch_of(toys, old_logprobs=old, ref_logprobs=ref)
    with_kl, without = GRPO(beta=0.04, kl=kind), GRPO()
    difference = loss_of(with_kl, logprobs, batch) - loss_of(without, logprobs, batch)
    penalty = kl_penalty(logprobs, ref, ratio(logprobs, old), kind)
    assert float(difference) == pytest.approx(0.04 * float(penalty.mean()), rel=1e-10)
    logged = with_kl(Outputs(logprobs), batch).metrics["kl"]
    d = ref - logprobs
    torch.testing.assert_close(logged, d.exp() - d - 1, rtol=1e-10, atol=1e-14)
    assert "kl" not in without(Outputs(logprobs), batch).metrics


def test_metrics_hold_no_graph_and_have_the_known_names(toys) -> None:
    logprobs = numbers(10, 17, grad=True)
    entropy = numbers(10, 18, grad=True).abs()
    batch = batch_of(toys, old_logprobs=numbers(10, 19), ref_logprobs=numbers(10, 20))
    metrics = GRPO(beta=0.1)(Outputs(logprobs, entropy), batch).metrics
    assert set(metrics) == {
        "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean",
        "sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max", "entropy", "kl",
    }  # fmt: skip
    assert not any(value.requires_grad for value in metrics.values())
    difference = (logprobs.detach() - numbers(10, 19)).abs()
    assert torch.equal(metrics["sampling/sampling_logp_difference/max"], difference)
    assert torch.equal(metrics["entropy"], entropy.detach())


def test_needs_wants_and_reductions() -> None:
    assert GRPO().needs == {"advantages", "old_logprobs"}
    assert GRPO(beta=0.1).needs == {"advantages", "old_logprobs", "ref_logprobs"}
    assert GRPO().wants == {"entropy"}
    assert GRPO().reductions == (TOKEN_MEAN,) and GRPO(aggregate="sequence").reductions == (SEQUENCE_MEAN,)
    assert GRPO(aggregate="constant", constant_length=5.0).reductions == (constant_mean(5.0),)


def test_the_papers_settings() -> None:
    assert dapo() == GRPO(clip_low=0.2, clip_high=0.28, aggregate="token", beta=0.0)
    assert dr_grpo(512.0) == GRPO(clip_low=0.2, clip_high=0.2, aggregate="constant", constant_length=512.0)
    assert deepseek_grpo() == GRPO(clip_low=0.2, clip_high=0.2, aggregate="sequence", beta=0.04, kl="k3")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"delta": 1.28}, r"delta must be more than 1 \+ clip_high \(1.28\), got 1.28"),
        ({"off_policy_delta": -0.1}, "off_policy_delta must not be negative, got -0.1"),
        ({"clip_low": -0.1}, "clip_low and clip_high must not be negative, got -0.1, 0.28"),
        ({"clip_high": -0.1}, "clip_low and clip_high must not be negative, got 0.2, -0.1"),
        ({"beta": -0.1}, "beta must not be negative, got -0.1"),
        ({"aggregate": "constant"}, "constant_length belongs with aggregate: constant"),
        ({"constant_length": 5.0}, "constant_length belongs with aggregate: constant"),
        ({"aggregate": "constant", "constant_length": 0.0}, "constant_length must be positive, got 0.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GRPO(**settings)
