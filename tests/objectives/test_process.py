"""Process rewards: the step loss against the field's two-class head, and the implicit rewards' identities."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from strop.batch import Outputs, step_totals, weighted_loss
from strop.data.pack import pack
from strop.objectives.process import (
    ImplicitPRM,
    ProcessLoss,
    implicit_rewards,
    implicit_step_rewards,
    step_loss,
    step_metrics,
)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_(grad)


def loss_of(objective: ProcessLoss | ImplicitPRM, outputs: Outputs, batch) -> Tensor:
    totals = step_totals(objective.reductions, [batch])
    return weighted_loss(objective(outputs, batch), batch, objective.reductions, totals)


# The step loss.


def test_an_undecided_head_loses_log_2_a_step_whatever_the_labels() -> None:
    assert step_loss(torch.zeros(5, dtype=torch.float64), double(0, 1, 0.5, 0.25, 1)).tolist() == pytest.approx(
        [math.log(2)] * 5, rel=1e-15
    )


@pytest.mark.parametrize("soft", [0.1, 0.25, 0.5, 0.875])
def test_a_soft_label_is_the_optimum(soft: float) -> None:
    """The minimum stands at the label's own logit, and is the label's entropy."""
    at = double(math.log(soft / (1 - soft))).requires_grad_()
    loss = step_loss(at, double(soft))
    assert float(loss.detach()) == pytest.approx(-soft * math.log(soft) - (1 - soft) * math.log(1 - soft), rel=1e-12)
    assert float(torch.autograd.grad(loss.sum(), at)[0]) == pytest.approx(0.0, abs=1e-15)


def test_a_two_class_head_is_the_same_loss_on_the_difference_of_its_logits() -> None:
    """The field's token-classification loss: cross-entropy over two classes, -100 where nothing is labelled."""
    two = random(14, 0).view(7, 2).requires_grad_()
    labels = torch.tensor([1, -100, 0, 0, -100, 1, 1])
    theirs = F.cross_entropy(two, labels, ignore_index=-100)
    known = labels >= 0
    ours = step_loss((two[:, 1] - two[:, 0])[known], labels[known].double()).mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, two)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-15)


def test_soft_labels_and_weights_against_torch() -> None:
    logits, labels = 3 * random(50, 1), torch.rand(50, generator=torch.Generator().manual_seed(2)).double()
    theirs = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    torch.testing.assert_close(step_loss(logits, labels), theirs, rtol=1e-12, atol=1e-15)
    weighted = F.binary_cross_entropy_with_logits(logits, labels, reduction="none", pos_weight=double(0.25)) * 2
    torch.testing.assert_close(
        step_loss(logits, labels, right_weight=0.5, wrong_weight=2.0), weighted, rtol=1e-12, atol=1e-15
    )


def test_gradcheck_and_extreme_logits() -> None:
    assert torch.autograd.gradcheck(
        lambda z: step_loss(z, double(1, 0, 0.3), right_weight=0.7, wrong_weight=2.0), random(3, 3, grad=True)
    )
    far = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    loss = step_loss(far, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert loss.tolist() == [0.0, 0.0, 1e4, 1e4]
    assert torch.autograd.grad(loss.sum(), far)[0].tolist() == [0.0, 0.0, 1.0, -1.0]


def test_the_loss_is_the_mean_over_the_labels_of_the_whole_step(toys) -> None:
    """Three steps in one solution, one in another: four labels, each a quarter."""
    values = double(0.5, -1.0, 2.0, 0.25).requires_grad_()
    batch = toys.bare_batch((3, 1), group_size=1, step_labels=torch.tensor([1.0, 0.0, 0.5, 1.0]))
    got = loss_of(ProcessLoss(), Outputs(torch.empty(0), values=values), batch)
    want = step_loss(values, double(1.0, 0.0, 0.5, 1.0)).mean()
    assert float(got.detach()) == pytest.approx(float(want.detach()), rel=1e-12)
    (gradient,) = torch.autograd.grad(got, values)
    torch.testing.assert_close(
        gradient, (torch.sigmoid(values) - double(1, 0, 0.5, 1)).detach() / 4, rtol=1e-12, atol=0
    )


def test_metrics_tell_the_classes_apart(toys) -> None:
    logits = double(2.0, -1.0, 0.5, 3.0, -2.0)
    got = step_metrics(logits, double(1.0, 0.9, 0.0, 0.75, 0.25))
    assert {name: values.tolist() for name, values in got.items()} == {
        "accuracy": [1, 0, 0, 1, 1],
        "recall/right": [1, 0, 1],
        "recall/wrong": [0, 1],
        "precision/right": [1, 0, 1],
        "precision/wrong": [0, 1],
    }
    assert step_metrics(double(1.0), double(1.0))["recall/wrong"].numel() == 0  # none to count, not 0 found


@pytest.mark.parametrize("side", ["right_weight", "wrong_weight"])
def test_a_weight_must_be_positive(side: str) -> None:
    with pytest.raises(ValueError, match=f"{side} must be positive, got 0"):
        ProcessLoss(**{side: 0.0})


# The implicit process reward model.


def test_at_the_reference_an_outcome_costs_log_2_and_pulls_by_half_beta(toys) -> None:
    ref = random(6, 4) - 2
    batch = toys.bare_batch((4, 2), group_size=1, ref_logprobs=ref, labels=torch.tensor([1.0, 0.0]))
    logprobs = ref.clone().requires_grad_()
    got = loss_of(ImplicitPRM(beta=0.2), Outputs(logprobs), batch)
    assert float(got.detach()) == pytest.approx(math.log(2), rel=1e-12)
    (gradient,) = torch.autograd.grad(got, logprobs)
    assert gradient.tolist() == pytest.approx([-0.05] * 4 + [0.05] * 2, rel=1e-12)  # +-beta / 2, mean of two


def test_the_outcome_loss_is_cross_entropy_of_the_summed_log_ratio(toys) -> None:
    logprobs, ref = (random(9, 5) - 2).requires_grad_(), random(9, 6) - 2
    labels = torch.tensor([1.0, 0.0, 0.25])
    batch = toys.bare_batch((4, 2, 3), group_size=1, ref_logprobs=ref, labels=labels)
    terms = ImplicitPRM(beta=0.3)(Outputs(logprobs), batch)
    r = torch.stack([part.sum() for part in (0.3 * (logprobs - ref)).detach().split([4, 2, 3])])
    want = F.binary_cross_entropy_with_logits(r, labels.double(), reduction="none")
    torch.testing.assert_close(terms.losses[0], want, rtol=1e-12, atol=1e-15)
    assert terms.metrics["rewards/chosen"].tolist() == pytest.approx([float(r[0])])
    assert terms.metrics["rewards/rejected"].tolist() == pytest.approx([float(r[1]), float(r[2])])
    assert terms.metrics["accuracy"].tolist() == [float(r[0] > 0), float(r[1] <= 0), float(r[2] <= 0)]
    with pytest.raises(ValueError, match="beta must be positive"):
        ImplicitPRM(beta=0.0)


def test_gradcheck_of_the_outcome_loss(toys) -> None:
    batch = toys.bare_batch((3, 2), group_size=1, ref_logprobs=random(5, 7), labels=torch.tensor([1.0, 0.0]))
    assert torch.autograd.gradcheck(
        lambda lp: ImplicitPRM(beta=0.5)(Outputs(lp), batch).losses[0], random(5, 8, grad=True)
    )


def test_step_rewards_telescope_to_the_outcome() -> None:
    rewards = implicit_rewards(random(12, 9), random(12, 10), beta=0.05).tolist()
    got = implicit_step_rewards(rewards, (3, 4, 9, 11))
    assert got == pytest.approx(
        [math.fsum(part) for part in (rewards[:4], rewards[4:5], rewards[5:10], rewards[10:])], abs=1e-15
    )
    assert math.fsum(got) == pytest.approx(math.fsum(rewards), abs=1e-14)
    assert implicit_step_rewards(rewards, (11,)) == pytest.approx([math.fsum(rewards)], abs=1e-15)
    assert implicit_step_rewards(rewards, ()) == []


def test_a_prefix_sum_is_the_soft_expectation_of_the_outcome() -> None:
    """q_t = beta log E_{reference}[exp(r / beta) | first t tokens], by summing over all texts of three tokens."""
    beta, vocab, length = 0.4, 3, 3
    generator = torch.Generator().manual_seed(11)

    def language() -> dict[tuple[int, ...], Tensor]:
        prefixes = [p for n in range(length) for p in itertools.product(range(vocab), repeat=n)]
        drawn = torch.randn(len(prefixes), vocab, generator=generator, dtype=torch.float64).log_softmax(-1)
        return dict(zip(prefixes, drawn, strict=True))

    policy, reference = language(), language()

    def logprobs(model: dict[tuple[int, ...], Tensor], text: tuple[int, ...]) -> Tensor:
        return torch.stack([model[text[:t]][token] for t, token in enumerate(text)])

    text = (2, 0, 1)
    q = implicit_rewards(logprobs(policy, text), logprobs(reference, text), beta=beta).cumsum(0)
    for t in range(1, length + 1):
        expectation = 0.0
        for rest in itertools.product(range(vocab), repeat=length - t):
            whole = text[:t] + rest
            r = float(implicit_rewards(logprobs(policy, whole), logprobs(reference, whole), beta=beta).sum())
            expectation += float(logprobs(reference, whole)[t:].sum().exp()) * math.exp(r / beta)
        assert float(q[t - 1]) == pytest.approx(beta * math.log(expectation), rel=1e-12)


def test_a_label_missing_from_the_columns_is_named(toys) -> None:
    (batch,) = pack([toys.group((1, 2), (3, 4))], max_tokens=99).batches
    with pytest.raises(KeyError, match="step_labels"):
        ProcessLoss()(Outputs(torch.empty(0), values=torch.zeros(2)), batch)
