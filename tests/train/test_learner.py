"""An update is one optimizer step: its gradient, its clipping, its schedule, and what it does not do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from strop.batch import TOKEN_MEAN, Batch, Outputs, Step, Terms, step_totals, weighted_loss
from strop.data.pack import pack
from strop.model.forward import LanguageModel, forward
from strop.model.load import prepare
from strop.objectives import DPO, GRPO, SFT, Objective
from strop.train.learner import Learner, NonFinite
from strop.train.optim import AdamW


def constant(step: int, num_steps: int) -> float:
    return 1.0


def learner_of(toys, objective: Objective | None = None, *, lr: float = 0.5, **settings: Any) -> Learner:
    """A tiny Llama with plain gradient descent, so that a step is -lr times the gradient."""
    model = prepare(toys.stock("Llama"), say=pytest.fail)
    optimizer = torch.optim.SGD(model.module.parameters(), lr=lr)
    for group in optimizer.param_groups:
        group["initial_lr"] = lr
    known = {"schedule": constant, "num_updates": 10, "max_grad_norm": 0.0}
    return Learner(model=model, objective=objective or SFT(), optimizer=optimizer, **{**known, **settings})


def weights(learner: Learner) -> list[torch.Tensor]:
    return [p.detach().clone() for p in learner.model.module.parameters()]


def moved(learner: Learner, before: list[torch.Tensor]) -> list[torch.Tensor]:
    return [p.detach() - b for p, b in zip(learner.model.module.parameters(), before, strict=True)]


def norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


def loss_and_gradient(
    model: LanguageModel, objective: Objective, batch: Batch, temperature: float = 1.0
) -> tuple[float, list[torch.Tensor]]:
    outputs = forward(model, batch, temperature=temperature, wants=objective.wants)
    loss = weighted_loss(
        objective(outputs, batch), batch, objective.reductions, step_totals(objective.reductions, [batch])
    )
    grads = torch.autograd.grad(loss, list(model.module.parameters()))
    return float(loss.detach()), list(grads)


def step_of(toys, objective: Objective, *, max_tokens: int = 1 << 30, seed: int = 0) -> Step:
    groups = toys.step_of(objective, seed=seed)
    return pack(groups, max_tokens=max_tokens)


@pytest.mark.parametrize("objective", [SFT(), DPO(nll_weight=0.1), GRPO()], ids=lambda o: o.name)
@pytest.mark.parametrize("max_tokens", [1 << 30, 20])
def test_an_update_is_one_step_along_the_gradient(objective: Objective, max_tokens: int, toys) -> None:
    learner = learner_of(toys, objective, temperature=0.8)
    loss, grads = loss_and_gradient(learner.model, objective, step_of(toys, objective).batches[0], 0.8)
    before = weights(learner)
    metrics = learner.update(step_of(toys, objective, max_tokens=max_tokens))
    for change, grad in zip(moved(learner, before), grads, strict=True):
        torch.testing.assert_close(change, -0.5 * grad, rtol=1e-3, atol=2e-6 * max(1.0, float(grad.abs().max())))
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert metrics["grad_norm"] == pytest.approx(norm(grads), rel=1e-4)
    assert metrics["learning_rate"] == 0.5 and learner.updates == 1
    assert all(p.grad is None for p in learner.parameters)


@pytest.mark.parametrize("share", [0.1, 0.5, 2.0])
def test_clipping(share: float, toys) -> None:
    """A gradient longer than the limit is cut to it, a shorter one left; what is logged is the norm before."""
    plain = learner_of(toys)
    before = weights(plain)
    full = plain.update(step_of(toys, SFT()))["grad_norm"]
    unclipped = moved(plain, before)
    learner = learner_of(toys, max_grad_norm=share * full)
    before = weights(learner)
    assert learner.update(step_of(toys, SFT()))["grad_norm"] == pytest.approx(full, rel=1e-6)
    change = moved(learner, before)
    assert norm(change) == pytest.approx(0.5 * full * min(1.0, share), rel=1e-4)
    for ours, theirs in zip(change, unclipped, strict=True):
        torch.testing.assert_close(ours, theirs * min(1.0, share), rtol=1e-3, atol=1e-6)


def test_the_schedule_sees_the_update_and_how_many_there_are(toys) -> None:
    asked: list[tuple[int, int]] = []

    def schedule(step: int, num_steps: int) -> float:
        asked.append((step, num_steps))
        return 1 / (step + 1)

    learner = learner_of(toys, schedule=schedule, num_updates=7, updates=2)
    rates = [learner.update(step_of(toys, SFT()))["learning_rate"] for _ in range(3)]
    assert asked == [(2, 7), (3, 7), (4, 7)] and rates == pytest.approx([0.5 / 3, 0.5 / 4, 0.5 / 5])
    assert learner.updates == 5


def test_the_factor_scales_the_step(toys) -> None:
    full, half = learner_of(toys), learner_of(toys, schedule=lambda step, num: 0.5)
    changes = []
    for learner in (full, half):
        before = weights(learner)
        learner.update(step_of(toys, SFT()))
        changes.append(norm(moved(learner, before)))
    assert changes[1] == pytest.approx(changes[0] / 2, rel=1e-4)


def spoiled(toys, name: str, value: float) -> Step:
    """A step in which one number is not finite."""
    objective = DPO() if name == "ref_logprobs" else GRPO()
    batch = step_of(toys, objective).batches[0]
    column = batch.columns[name].clone()
    column[3] = value
    return Step((batch.with_columns(**{name: column}),))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(value: float, toys) -> None:
    objective = DPO()
    learner = learner_of(toys, objective)
    learner.optimizer = AdamW(lr=0.1)(learner.model.module)
    before = weights(learner)
    metrics = learner.update(spoiled(toys, "ref_logprobs", value))
    assert norm(moved(learner, before)) == 0.0
    assert metrics["train/nonfinite"] == 1.0
    assert not math.isfinite(metrics["loss"]) or not math.isfinite(metrics["grad_norm"])
    assert all(p.grad is None for p in learner.parameters), "the bad gradient is gone"
    metrics = learner.update(step_of(toys, objective))
    assert norm(moved(learner, before)) > 0 and math.isfinite(metrics["loss"])
    assert metrics["train/nonfinite"] == 1.0, "the count stands in every later step's metrics"
    assert (learner.updates, learner.skipped, learner.skipped_in_a_row) == (2, 1, 0)
    assert all(bool(p.isfinite().all()) for p in learner.parameters)


class Steep:
    """A finite loss whose gradient overflows fp32 when it is squared."""

    needs: frozenset[str] = frozenset()
    wants: frozenset[str] = frozenset()
    reductions = (TOKEN_MEAN,)

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        return Terms((1e30 * outputs.logprobs,))


def test_a_finite_loss_with_an_infinite_gradient_norm_is_skipped_too(toys) -> None:
    learner = learner_of(toys, Steep())
    before = weights(learner)
    metrics = learner.update(step_of(toys, SFT()))
    assert math.isfinite(metrics["loss"]) and not math.isfinite(metrics["grad_norm"])
    assert norm(moved(learner, before)) == 0.0 and learner.skipped == 1


def test_too_many_in_a_row_raise_and_say_what_to_do(toys) -> None:
    learner = learner_of(toys, DPO(), nonfinite_limit=3)
    bad = spoiled(toys, "ref_logprobs", math.nan)
    for update in (bad, bad, step_of(toys, DPO()), bad, bad):
        learner.update(update)
    with pytest.raises(NonFinite, match=r"3 steps in a row .*lower optimizer\.lr"):
        learner.update(bad)
    assert learner.skipped == 5


def test_what_is_frozen_stays(toys) -> None:
    learner = learner_of(toys)
    embedding = learner.model.module.get_input_embeddings().weight
    embedding.requires_grad_(False)
    again = Learner(learner.model, SFT(), learner.optimizer, constant, 10)
    assert len(again.parameters) == len(learner.parameters) - 1
    frozen = embedding.detach().clone()
    again.update(step_of(toys, SFT()))
    assert torch.equal(embedding, frozen)


def test_metrics_are_means_over_the_step(toys) -> None:
    """Token metrics over all tokens of the step, pair metrics over its pairs, whatever the micro-batches."""
    for objective in (SFT(), DPO(), GRPO()):
        one, many = (learner_of(toys, objective).update(step_of(toys, objective, max_tokens=n)) for n in (1 << 30, 20))
        assert one.keys() == many.keys()
        for name, value in one.items():
            assert many[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_a_missing_column_is_named(toys) -> None:
    with pytest.raises(AssertionError, match=r"DPO needs the columns \['ref_logprobs'\]"):
        learner_of(toys, DPO()).update(pack(toys.ragged(0), max_tokens=1 << 30))


def test_an_empty_step_makes_no_step(toys) -> None:
    """A rank without groups takes part in the sums; alone it moves nothing."""
    learner = learner_of(toys)
    before = weights(learner)
    metrics = learner.update(Step(()))
    assert metrics["loss"] == 0.0 and metrics["grad_norm"] == 0.0 and norm(moved(learner, before)) == 0.0


def test_learning_lowers_the_loss(toys) -> None:
    learner = learner_of(toys, lr=0.1)
    losses = [learner.update(step_of(toys, SFT()))["loss"] for _ in range(8)]
    assert losses[-1] < 0.7 * losses[0] and losses == sorted(losses, reverse=True)
