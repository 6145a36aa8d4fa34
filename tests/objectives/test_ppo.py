"""PPO's policy objective: what it is on the first step, where its clips act, and that it learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strop.batch import Batch, Outputs, step_totals, weighted_loss
from strop.objectives import PPO, ClippedValue, PPOWithValue
from strop.token_credit import GAE

LENGTHS = (3, 1, 2, 4)


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.3 * drawn - 2).requires_grad_(grad)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss_of(objective: Any, outputs: Outputs, batch: Batch) -> Tensor:
    return weighted_loss(
        objective(outputs, batch), batch, objective.reductions, step_totals(objective.reductions, [batch])
    )


def means(objective: Any, outputs: Outputs, batch: Batch) -> dict[str, float]:
    return {name: float(value.mean()) for name, value in objective(outputs, batch).metrics.items()}


def test_the_first_step_has_ratio_one_and_the_gradient_of_the_policy_gradient(toys) -> None:
    logprobs, advantages = numbers(10, 0, grad=True), numbers(10, 1) + 2
    batch = toys.bare_batch(LENGTHS, advantages=advantages, old_logprobs=logprobs.detach().clone())
    got = means(PPO(dual_clip=3.0), Outputs(logprobs, -logprobs.detach()), batch)
    assert (got["val/ratio"], got["val/ratio_var"]) == (1.0, 0.0)
    assert (got["policy/clipfrac_avg"], got["policy/approxkl_avg"]) == (0.0, 0.0)
    assert got["sampling/sampling_logp_difference/max"] == 0.0
    loss = loss_of(PPO(), Outputs(logprobs), batch)
    assert float(loss.detach()) == got["loss/policy_avg"] == pytest.approx(-float(advantages.mean()), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    torch.testing.assert_close(gradient, -advantages / 10, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("rho", "advantage", "loss", "slope", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.5, 2.0, -2.4, 0.0, 1),
        (0.5, 2.0, -1.0, -2.0, 0),
        (0.5, -2.0, 1.6, 0.0, 1),
        (1.5, -2.0, 3.0, 2.0, 0),
        (2.9, -2.0, 5.8, 2.0, 0),
        (3.5, -2.0, 6.0, 0.0, 1),  # the dual clip: at most -3 A
        (3.5, 2.0, -2.4, 0.0, 1),
        (3.5, 0.0, 0.0, 0.0, 0),
    ],
)
def test_both_clips(rho: float, advantage: float, loss: float, slope: float, clipped: int, toys) -> None:
    """The slope is d loss / d rho, so that d loss / d logprob is rho times it."""
    logprob = double(math.log(rho)).requires_grad_()
    batch = toys.bare_batch((1,), group_size=1, advantages=double(advantage), old_logprobs=double(0.0))
    terms = PPO(dual_clip=3.0)(Outputs(logprob), batch)
    (gradient,) = torch.autograd.grad(terms.losses[0].sum(), logprob)
    assert float(terms.losses[0].detach()) == pytest.approx(loss, rel=1e-12, abs=1e-15)
    assert float(gradient) == pytest.approx(rho * slope, abs=1e-12)
    assert float(terms.metrics["policy/clipfrac_avg"]) == clipped


def test_without_the_dual_clip_a_large_ratio_rules(toys) -> None:
    batch = toys.bare_batch((1,), group_size=1, advantages=double(-2.0), old_logprobs=double(0.0))
    assert float(PPO()(Outputs(double(math.log(50.0))), batch).losses[0]) == pytest.approx(100.0)


def test_metrics_of_a_later_step(toys) -> None:
    logprobs, old = numbers(10, 2), numbers(10, 3)
    batch = toys.bare_batch(LENGTHS, advantages=numbers(10, 4), old_logprobs=old)
    got = means(PPO(), Outputs(logprobs, -old), batch)
    rho = (logprobs - old).exp()
    assert got["policy/approxkl_avg"] == pytest.approx(float(((logprobs - old) ** 2).mean()) / 2, rel=1e-12)
    assert got["val/ratio"] == pytest.approx(float(rho.mean()), rel=1e-12)
    assert got["val/ratio_var"] == pytest.approx(float(((rho - 1) ** 2).mean()), rel=1e-12)
    assert got["policy/entropy_avg"] == pytest.approx(-float(old.mean()))
    assert not any(v.requires_grad for v in PPO()(Outputs(logprobs.requires_grad_()), batch).metrics.values())


def test_the_entropy_bonus_is_taken_off_the_loss(toys) -> None:
    logprobs, entropy = numbers(10, 5, grad=True), numbers(10, 6, grad=True)
    batch = toys.bare_batch(LENGTHS, advantages=numbers(10, 7), old_logprobs=numbers(10, 8))
    with_bonus = loss_of(PPO(entropy_bonus=0.25), Outputs(logprobs, entropy), batch)
    without = loss_of(PPO(), Outputs(logprobs, entropy), batch)
    assert float((with_bonus - without).detach()) == pytest.approx(-0.25 * float(entropy.detach().mean()), rel=1e-10)
    (gradient,) = torch.autograd.grad(with_bonus, entropy)
    assert gradient.tolist() == pytest.approx([-0.025] * 10)


@pytest.mark.parametrize("objective", [PPO(), PPO(dual_clip=1.4, entropy_bonus=0.1)])
def test_gradcheck(objective: PPO, toys) -> None:
    batch = toys.bare_batch(LENGTHS, advantages=numbers(10, 9) + 2, old_logprobs=numbers(10, 10))

    def loss(logprobs: Tensor, entropy: Tensor) -> Tensor:
        return loss_of(objective, Outputs(logprobs, entropy), batch) + 0 * entropy.sum()

    assert torch.autograd.gradcheck(loss, (numbers(10, 11, grad=True), numbers(10, 12, grad=True)))


def test_no_critic_no_discount_no_whitening_is_reinforce(toys) -> None:
    """With V = 0, lambda = gamma = 1 and a reward at the end: -R d(sum of log-probs), over the step's tokens."""
    returns = (2.0, -1.0, 0.5, 3.0)
    rewards = [np.array([0.0] * (n - 1) + [r]) for n, r in zip(LENGTHS, returns, strict=True)]
    advantages, _ = GAE(lam=1.0, whiten=False)(rewards, [np.zeros(n) for n in LENGTHS])
    logprobs = numbers(10, 13, grad=True)
    batch = toys.bare_batch(
        LENGTHS, advantages=torch.from_numpy(np.concatenate(advantages)), old_logprobs=logprobs.detach().clone()
    )
    (ours,) = torch.autograd.grad(loss_of(PPO(), Outputs(logprobs), batch), logprobs)
    reinforce = -torch.stack(
        [r * part.sum() for r, part in zip(returns, logprobs.split(LENGTHS), strict=True)]
    ).sum() / sum(LENGTHS)
    (theirs,) = torch.autograd.grad(reinforce, logprobs)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_extreme_log_ratios_stay_finite(toys) -> None:
    logprobs = double(-1e4, 0.0, -1.0).requires_grad_()
    batch = toys.bare_batch((3,), group_size=1, advantages=double(1.0, -1.0, 0.0), old_logprobs=double(0.0, -1e4, -1.0))
    (gradient,) = torch.autograd.grad(loss_of(PPO(dual_clip=3.0), Outputs(logprobs), batch), logprobs)
    assert bool(gradient.isfinite().all())


# Learning.


def test_a_bandit_is_learnt(toys) -> None:
    """Four arms, one token an episode, a shared step of policy and value: the best arm's probability passes 0.9."""
    random = torch.Generator().manual_seed(0)
    logits, value = torch.zeros(4, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([logits, value], lr=0.05)
    means_of_arms, objective = torch.tensor([0.2, 0.5, 0.3, 1.0]), PPOWithValue(value=ClippedValue(coefficient=0.5))
    for _ in range(60):
        with torch.no_grad():
            old = logits.log_softmax(-1)
            arms = torch.multinomial(old.exp(), 64, replacement=True, generator=random)
            scores = means_of_arms[arms] + 0.1 * torch.randn(64, generator=random)
        rewards = [np.array([float(s)]) for s in scores]
        old_values = float(value.detach())
        advantages, returns = GAE()(rewards, [np.array([old_values])] * 64)
        batch = toys.bare_batch(
            (1,) * 64,
            advantages=torch.tensor(np.concatenate(advantages), dtype=torch.float32),
            returns=torch.tensor(np.concatenate(returns), dtype=torch.float32),
            old_logprobs=old[arms],
            old_values=torch.full((64,), old_values),
        )
        for _ in range(4):
            outputs = Outputs(logits.log_softmax(-1)[arms], values=value.expand(64))
            optimizer.zero_grad()
            loss_of(objective, outputs, batch).backward()
            optimizer.step()
    assert float(logits.softmax(-1)[3].detach()) > 0.9
    assert float(value.detach()) == pytest.approx(1.0, abs=0.1)


def test_credit_reaches_the_token_that_earned_it(toys) -> None:
    """Three tokens an episode, the score at the end is the first one's: it is learnt, the others stay open."""
    random = torch.Generator().manual_seed(1)
    logits, values = torch.zeros(3, 4, requires_grad=True), torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.Adam([logits, values], lr=0.05)
    place = torch.arange(3).repeat(64)
    for _ in range(60):
        with torch.no_grad():
            old = logits.log_softmax(-1)
            drawn = torch.multinomial(old.exp(), 64, replacement=True, generator=random).t()  # [64, 3]
            # The critic's states: before the first token, and after a first token that was arm 0, 1, 2 or 3.
            state = torch.where(place == 0, 0, 1 + drawn[:, 0].repeat_interleave(3))
            v = values[state]
        rewards = [np.array([0.0, 0.0, float(row[0] == 2)]) for row in drawn]
        advantages, returns = GAE()(rewards, [row.double().numpy() for row in v.split(3)])
        batch = toys.bare_batch(
            (3,) * 64,
            advantages=torch.tensor(np.concatenate(advantages), dtype=torch.float32),
            returns=torch.tensor(np.concatenate(returns), dtype=torch.float32),
            old_logprobs=old[place, drawn.flatten()],
            old_values=v,
        )
        objective = PPOWithValue(value=ClippedValue(coefficient=0.5))
        for _ in range(4):
            outputs = Outputs(logits.log_softmax(-1)[place, drawn.flatten()], values=values[state])
            optimizer.zero_grad()
            loss_of(objective, outputs, batch).backward()
            optimizer.step()
    probabilities = logits.softmax(-1).detach()
    assert float(probabilities[0, 2]) > 0.9
    assert float(probabilities[1:].max()) < 0.6
    assert float(values[3].detach()) > 0.8 and float(values[[1, 2, 4]].max().detach()) < 0.4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip": 0.0}, "clip must be between 0 and 1, got 0.0"),
        ({"clip": 1.0}, "clip must be between 0 and 1, got 1.0"),
        ({"dual_clip": 1.1}, "dual_clip must be more than 1 [+] clip .3 is usual., got 1.1"),
        ({"entropy_bonus": -0.1}, "entropy_bonus must not be negative, got -0.1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PPO(**settings)


def test_needs_and_wants() -> None:
    assert PPO().needs == {"advantages", "old_logprobs"} and PPO().wants == {"entropy"}
    joint = PPOWithValue()
    assert joint.needs == {"advantages", "old_logprobs", "returns", "old_values"}
    assert joint.wants == {"entropy", "values"} and len(joint.reductions) == 2
