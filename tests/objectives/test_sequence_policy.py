"""One ratio a sequence: closed forms, the identities that tie GSPO, its token form, RLOO and GRPO together."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from strop.batch import PER_SEQUENCE, SEQUENCE_MEAN, Outputs, step_totals, weighted_loss
from strop.credit import GroupRelative, LeaveOneOut
from strop.objectives.policy import GRPO, dr_grpo
from strop.objectives.sequence_policy import GSPO, RLOO, GSPOToken, mean_ratio, product_ratio

LENGTHS = (3, 1, 2, 4)
ADVANTAGES = (0.5, -1.5, 2.0, -0.25)
ANY = (GSPO(), GSPOToken(), RLOO())


def numbers(count: int, seed: int, *, grad: bool = False, spread: float = 0.3) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (spread * drawn - 2).requires_grad_(grad)


def batch_of(toys, **columns: Tensor):
    per_token = torch.repeat_interleave(torch.tensor(ADVANTAGES, dtype=torch.float64), torch.tensor(LENGTHS))
    return toys.bare_batch(LENGTHS, **{"advantages": per_token, **columns})


def value_and_gradient(objective, logprobs: Tensor, batch) -> tuple[float, Tensor]:
    terms = objective(Outputs(logprobs), batch)
    loss = weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch]))
    return float(loss.detach()), torch.autograd.grad(loss, logprobs)[0]


def test_ratios_are_the_geometric_mean_and_the_product(toys) -> None:
    new, old = numbers(10, 0), numbers(10, 1)
    batch = batch_of(toys)
    parts = [d.tolist() for d in (new - old).split(list(LENGTHS))]
    assert mean_ratio(new, old, batch).tolist() == pytest.approx([math.exp(sum(p) / len(p)) for p in parts], rel=1e-12)
    assert product_ratio(new, old, batch).tolist() == pytest.approx([math.exp(sum(p)) for p in parts], rel=1e-12)


@pytest.mark.parametrize("objective", [GSPO(), GSPOToken()], ids=str)
def test_on_policy_gspo_is_grpo_with_the_mean_over_sequences(objective, toys) -> None:
    logprobs = numbers(10, 2, grad=True)
    batch = batch_of(toys, old_logprobs=logprobs.detach().clone())
    value, gradient = value_and_gradient(objective, logprobs, batch)
    want_value, want = value_and_gradient(GRPO(aggregate="sequence"), logprobs, batch)
    assert value == pytest.approx(want_value, rel=1e-12)
    torch.testing.assert_close(gradient, want, rtol=1e-12, atol=1e-15)


def test_on_policy_rloo_is_reinforce_on_whole_sequences(toys) -> None:
    """Value - mean A, gradient - A / S at every token: a long sequence is not divided by its length."""
    logprobs = numbers(10, 3, grad=True)
    value, gradient = value_and_gradient(RLOO(), logprobs, batch_of(toys, old_logprobs=logprobs.detach().clone()))
    assert value == pytest.approx(-sum(ADVANTAGES) / 4, rel=1e-12)
    want = [-a / 4 for a, n in zip(ADVANTAGES, LENGTHS, strict=True) for _ in range(n)]
    assert gradient.tolist() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_gspo_token_is_gspo_where_the_advantage_is_one_a_sequence(seed: int, beta: float, toys) -> None:
    logprobs = numbers(10, seed, grad=True)
    batch = batch_of(toys, old_logprobs=numbers(10, seed + 10), ref_logprobs=numbers(10, seed + 20))
    clips = {"clip_low": 0.15, "clip_high": 0.1, "beta": beta, "kl": "k3"}
    value, gradient = value_and_gradient(GSPO(**clips), logprobs, batch)
    token_value, token_gradient = value_and_gradient(GSPOToken(**clips), logprobs, batch)
    assert token_value == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(token_gradient, gradient, rtol=1e-10, atol=1e-14)


def test_gspo_token_follows_each_tokens_advantage(toys) -> None:
    logprobs = numbers(10, 5, grad=True)
    advantages = numbers(10, 6) + 2
    batch = batch_of(toys, advantages=advantages, old_logprobs=logprobs.detach().clone())
    _, gradient = value_and_gradient(GSPOToken(), logprobs, batch)
    weight = torch.tensor([1 / (4 * n) for n in LENGTHS for _ in range(n)], dtype=torch.float64)
    torch.testing.assert_close(gradient, -advantages * weight, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("objective", [GSPO(clip_low=0.2, clip_high=0.2), RLOO()], ids=str)
def test_a_sequence_is_clipped_as_a_whole(objective, toys) -> None:
    """Ratios 1.5 and 1 / 1.5 of single tokens, with either sign."""
    up = math.log(1.5)
    logprobs = torch.tensor([up, -up, up, -up], dtype=torch.float64, requires_grad=True)
    batch = toys.bare_batch(
        (1, 1, 1, 1), advantages=torch.tensor([1.0, -1.0, -1.0, 1.0]), old_logprobs=torch.zeros(4, dtype=torch.float64)
    )
    terms = objective(Outputs(logprobs), batch)
    _, gradient = value_and_gradient(objective, logprobs, batch)
    assert [g == 0 for g in gradient.tolist()] == [True, True, False, False]
    assert terms.metrics["clip_ratio/high_mean"].tolist() == [1, 0, 0, 0]
    assert terms.metrics["clip_ratio/low_mean"].tolist() == [0, 1, 0, 0]
    assert terms.losses[0].tolist() == pytest.approx([-1.2, 0.8, 1.5, -1 / 1.5], rel=1e-6)


def test_leave_one_out_is_dr_grpo_times_g_over_g_minus_1(toys) -> None:
    """The whole losses: the same gradient once the constant length stands for RLOO's sum."""
    rewards = [(1.0, 0.0), (0.25, 3.0)]
    logprobs = numbers(10, 7, grad=True)

    def gradient(credit, objective) -> Tensor:
        flat = [a for row in credit(rewards) for a in row]
        per_token = torch.tensor(flat, dtype=torch.float64).repeat_interleave(torch.tensor(LENGTHS))
        return value_and_gradient(
            objective, logprobs, batch_of(toys, advantages=per_token, old_logprobs=logprobs.detach().clone())
        )[1]

    ours = gradient(LeaveOneOut(), RLOO())
    theirs = gradient(GroupRelative(scale="none"), dr_grpo(1.0))
    torch.testing.assert_close(ours, 2 / (2 - 1) * theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("objective", ANY, ids=str)
def test_zero_advantages_give_exactly_no_gradient(objective, toys) -> None:
    logprobs = numbers(10, 8, grad=True)
    batch = batch_of(toys, advantages=torch.zeros(10, dtype=torch.float64), old_logprobs=numbers(10, 9))
    assert value_and_gradient(objective, logprobs, batch)[1].tolist() == [0.0] * 10


@pytest.mark.parametrize("objective", [GSPO(clip_low=0.2, clip_high=0.2, beta=0.1), RLOO()], ids=str)
def test_gradcheck(objective, toys) -> None:
    batch = batch_of(toys, old_logprobs=numbers(10, 11, spread=0.1), ref_logprobs=numbers(10, 12))
    assert torch.autograd.gradcheck(
        lambda new: objective(Outputs(new), batch).losses[0], (numbers(10, 13, grad=True, spread=0.1),)
    )


def test_the_kl_of_gspo_is_averaged_over_each_sequence(toys) -> None:
    logprobs, ref = numbers(10, 14), numbers(10, 15)
    batch = batch_of(toys, old_logprobs=logprobs.clone(), ref_logprobs=ref)
    with_kl, without = (GSPO(beta=b, kl="k3")(Outputs(logprobs), batch) for b in (0.5, 0.0))
    d = ref - logprobs
    means = [float(part.mean()) for part in (d.exp() - d - 1).split(list(LENGTHS))]
    assert (with_kl.losses[0] - without.losses[0]).tolist() == pytest.approx([0.5 * m for m in means], rel=1e-9)
    assert "kl" not in without.metrics


@pytest.mark.parametrize("objective", [GSPO(weighted=True), GSPOToken(weighted=True), RLOO(weighted=True)], ids=str)
def test_weights_scale_whole_sequences(objective, toys) -> None:
    """One weight a sequence, as sequence corrections give: the loss of that sequence times it."""
    weights = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    logprobs = numbers(10, 16, grad=True)
    per_token = weights.repeat_interleave(torch.tensor(LENGTHS))
    batch = batch_of(toys, old_logprobs=numbers(10, 17), policy_weight=per_token)
    plain = type(objective)()
    _, got = value_and_gradient(objective, logprobs, batch)
    _, want = value_and_gradient(plain, logprobs, batch)
    torch.testing.assert_close(got, per_token * want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("objective", [GSPO(off_policy_delta=0.5), RLOO(off_policy_delta=0.5)], ids=str)
def test_bad_sequences_far_off_policy_are_left_out(objective, toys) -> None:
    logprobs = numbers(10, 18, grad=True)
    batch = batch_of(toys, old_logprobs=logprobs.detach() + 1.0)
    losses = objective(Outputs(logprobs), batch).losses[0]
    assert [value == 0 for value in losses.tolist()] == [a < 0 for a in ADVANTAGES]


@pytest.mark.parametrize("objective", ANY, ids=str)
def test_finite_far_away(objective, toys) -> None:
    logprobs = torch.tensor([-1e4, 0.0, -1e4, 0.0], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([0.0, -1e4, 0.0, -1e4], dtype=torch.float64)
    batch = toys.bare_batch((1, 1, 1, 1), advantages=torch.tensor([1.0, -1.0, -1.0, 1.0]), old_logprobs=old)
    value, gradient = value_and_gradient(objective, logprobs, batch)
    assert math.isfinite(value) and bool(gradient.isfinite().all())


def test_needs_and_reductions() -> None:
    assert all(o.needs == {"advantages", "old_logprobs"} for o in ANY)
    assert GSPO().reductions == RLOO().reductions == (PER_SEQUENCE,)
    assert GSPOToken().reductions == (SEQUENCE_MEAN,)
    assert GSPO(beta=0.1).needs == {"advantages", "old_logprobs", "ref_logprobs"}


@pytest.mark.parametrize("kind", [GSPO, GSPOToken, RLOO])
def test_settings_that_make_no_sense_are_refused(kind) -> None:
    with pytest.raises(ValueError, match="clip_low and clip_high must not be negative, got -0.1"):
        kind(clip_low=-0.1)
    with pytest.raises(ValueError, match="off_policy_delta must not be negative"):
        kind(off_policy_delta=-1.0)
