"""The critic's objective: what the clip does to a squared error, and both losses on one trunk."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from strop.batch import Outputs, step_totals, weighted_loss
from strop.objectives import PPO, ClippedValue, PPOWithValue
from strop.objectives.value import clipped_value_loss, value_loss

LENGTHS = (3, 1, 2, 4)


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_(grad)


def outputs_of(values: Tensor) -> Outputs:
    return Outputs(values.new_empty(0), values=values)


def test_values_that_have_not_moved_are_not_clipped() -> None:
    values, returns = numbers(20, 0), numbers(20, 1)
    clipped = clipped_value_loss(values, returns, values.clone(), clip=0.2)
    assert clipped.tolist() == value_loss(values, returns).tolist()


@pytest.mark.parametrize(
    ("value", "old", "returned", "loss", "slope"),
    [
        (0.0, 0.0, 1.0, 0.5, -1.0),
        (0.1, 0.0, 1.0, 0.405, -0.9),
        (0.5, 0.0, 1.0, 0.32, 0.0),  # moved towards the return by more than 0.2: (0.2 - 1)^2 / 2, and no pull
        (1.5, 0.0, 1.0, 0.32, 0.0),  # past it, but nearer than the bound is
        (3.0, 0.0, 1.0, 2.0, 2.0),  # past it by more
        (-0.5, 0.0, 1.0, 1.125, -1.5),  # moved away: the plain error
    ],
)
def test_the_clip(value: float, old: float, returned: float, loss: float, slope: float) -> None:
    v = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    got = clipped_value_loss(v, torch.tensor(returned), torch.tensor(old), clip=0.2)
    (gradient,) = torch.autograd.grad(got, v)
    assert float(got.detach()) == pytest.approx(loss, rel=1e-6)
    assert float(gradient) == pytest.approx(slope, abs=1e-6)


def test_a_critic_that_knows_the_returns_has_no_loss(toys) -> None:
    returns = numbers(10, 2)
    batch = toys.bare_batch(LENGTHS, returns=returns, old_values=returns)
    terms = ClippedValue()(outputs_of(returns), batch)
    assert terms.losses[0].tolist() == [0.0] * 10
    assert {name: float(value.mean()) for name, value in terms.metrics.items()} == {
        "loss/value_avg": 0.0,
        "val/clipfrac_avg": 0.0,
    }


def test_the_coefficient_weighs_the_loss_and_not_the_metric(toys) -> None:
    values = numbers(10, 3)
    batch = toys.bare_batch(LENGTHS, returns=numbers(10, 4), old_values=numbers(10, 5))
    one, half = (ClippedValue(coefficient=c)(outputs_of(values), batch) for c in (1.0, 0.5))
    torch.testing.assert_close(half.losses[0], 0.5 * one.losses[0], rtol=1e-15, atol=0)
    assert torch.equal(half.metrics["loss/value_avg"], one.losses[0])


def test_without_a_clip_it_is_half_the_squared_error(toys) -> None:
    values, returns = numbers(10, 6), numbers(10, 7)
    batch = toys.bare_batch(LENGTHS, returns=returns, old_values=numbers(10, 8))
    terms = ClippedValue(clip=None, coefficient=1.0)(outputs_of(values), batch)
    torch.testing.assert_close(terms.losses[0], (values - returns) ** 2 / 2, rtol=1e-12, atol=0)
    assert float(terms.metrics["val/clipfrac_avg"].sum()) == 0


@pytest.mark.parametrize("clip", [None, 0.2])
def test_gradcheck(clip: float | None, toys) -> None:
    batch = toys.bare_batch(LENGTHS, returns=numbers(10, 9), old_values=numbers(10, 10))
    objective = ClippedValue(clip=clip)

    def loss(values: Tensor) -> Tensor:
        return objective(outputs_of(values), batch).losses[0]

    assert torch.autograd.gradcheck(loss, (numbers(10, 11, grad=True),))


def test_on_one_trunk_both_losses_are_added(toys) -> None:
    """One number a token from one parameter: its gradient is the sum of the two objectives' own."""
    shared = numbers(10, 12, grad=True)
    columns = {name: numbers(10, seed) for seed, name in enumerate(("advantages", "old_logprobs"), start=13)}
    batch = toys.bare_batch(LENGTHS, **columns, returns=numbers(10, 15), old_values=numbers(10, 16))
    policy, value = PPO(dual_clip=3.0), ClippedValue(coefficient=0.3)
    joint = PPOWithValue(policy=policy, value=value)

    def gradient(objective) -> Tensor:
        outputs = Outputs(shared, values=2 * shared)
        totals = step_totals(objective.reductions, [batch])
        loss = weighted_loss(objective(outputs, batch), batch, objective.reductions, totals)
        return torch.autograd.grad(loss, shared)[0]

    torch.testing.assert_close(gradient(joint), gradient(policy) + gradient(value), rtol=1e-12, atol=1e-15)
    names = joint(Outputs(shared, values=shared), batch).metrics.keys()
    assert {"loss/policy_avg", "loss/value_avg", "policy/clipfrac_avg", "val/clipfrac_avg"} <= names


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip": 0.0}, "clip must be positive, or null for none, got 0.0"),
        ({"coefficient": 0.0}, "coefficient must be positive, got 0.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClippedValue(**settings)
