"""Maximum likelihood: uniform logits give log V, and the average is over what it says."""

from __future__ import annotations

import math

import pytest
import torch

from strop.batch import SEQUENCE_MEAN, TOKEN_MEAN, Outputs, step_totals, weighted_loss
from strop.objectives.supervised import SFT, nll_loss

LENGTHS = (3, 1, 2, 4)


def loss_of(objective: SFT, logprobs: torch.Tensor, batch) -> torch.Tensor:
    terms = objective(Outputs(logprobs), batch)
    return weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch]))


@pytest.mark.parametrize("objective", [SFT(), SFT(average="sequence")])
def test_uniform_logits_cost_log_v(objective: SFT, toys) -> None:
    logprobs = torch.zeros(10, 50, dtype=torch.float64).log_softmax(-1)[:, 7]
    assert float(loss_of(objective, logprobs, toys.bare_batch(LENGTHS))) == pytest.approx(math.log(50), rel=1e-14)


def test_the_token_mean_is_cross_entropy(toys) -> None:
    logits = torch.randn(10, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.arange(10)
    logprobs = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    want = float(torch.nn.functional.cross_entropy(logits, target))
    assert float(loss_of(SFT(), logprobs, toys.bare_batch(LENGTHS))) == pytest.approx(want, rel=1e-13)


def test_gradients_are_minus_the_weights(toys) -> None:
    for objective, weights in ((SFT(), [1 / 10] * 4), (SFT(average="sequence"), [1 / (4 * n) for n in LENGTHS])):
        logprobs = torch.linspace(-3, -1, 10, dtype=torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(objective, logprobs, toys.bare_batch(LENGTHS)), logprobs)
        want = [-w for w, n in zip(weights, LENGTHS, strict=True) for _ in range(n)]
        assert gradient.tolist() == pytest.approx(want, rel=1e-14)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(nll_loss, (torch.randn(4, dtype=torch.float64, requires_grad=True),))


def test_metrics_are_those_of_the_forward(toys) -> None:
    logprobs = torch.full((10,), -1.0, requires_grad=True)
    entropy, correct = (logprobs * -2), torch.tensor([1.0, 0.0] * 5)
    metrics = SFT()(Outputs(logprobs, entropy, correct), toys.bare_batch(LENGTHS)).metrics
    assert set(metrics) == {"mean_token_accuracy", "entropy"}
    assert torch.equal(metrics["mean_token_accuracy"], correct) and metrics["entropy"].tolist() == [2.0] * 10
    assert not metrics["entropy"].requires_grad
    assert SFT()(Outputs(logprobs), toys.bare_batch(LENGTHS)).metrics == {}


def test_needs_wants_and_reductions() -> None:
    assert SFT().needs == set() and SFT().wants == {"entropy", "correct"}
    assert SFT().reductions == (TOKEN_MEAN,) and SFT(average="sequence").reductions == (SEQUENCE_MEAN,)
