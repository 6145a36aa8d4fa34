"""Losses of reward models: closed forms, gradients, what they are to one another, and what they log."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor

from strop.batch import PER_GROUP, Batch, Outputs, step_totals, weighted_loss
from strop.objectives.preference import dpo_loss
from strop.objectives.reward import (
    AllPairs,
    BradleyTerry,
    PlackettLuce,
    all_pairs_loss,
    bradley_terry_loss,
    entropy_of_sigmoid,
    plackett_luce_loss,
    rankings,
)

EVERY = (BradleyTerry(), AllPairs(), PlackettLuce())
PLAIN = (
    BradleyTerry(label_smoothing=0.0, center_rewards_coefficient=0.0),
    AllPairs(label_smoothing=0.0, center_rewards_coefficient=0.0),
    PlackettLuce(center_rewards_coefficient=0.0),
)
by_class = pytest.mark.parametrize("objective", EVERY, ids=lambda o: o.name)
plain = pytest.mark.parametrize("objective", PLAIN, ids=lambda o: o.name)


def numbers(count: int, seed: int, *, grad: bool = False) -> Tensor:
    drawn = 2 * torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_(grad)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def batch_of(toys, *sizes: int, **columns: Tensor) -> Batch:
    """Groups of so many completions of one token each."""
    from dataclasses import replace

    whole = toys.bare_batch([1] * sum(sizes), group_size=1, **columns)
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    place = torch.cat([torch.arange(n) for n in sizes])
    return replace(whole, group=group, place=place, num_groups=len(sizes))


def losses(objective, toys, scores: Tensor, *sizes: int, **columns: Tensor) -> Tensor:
    (loss,) = objective(Outputs(scores.new_empty(0), scores=scores), batch_of(toys, *sizes, **columns)).losses
    return loss


def padded(*rows: Tensor) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    valid = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    return torch.stack([torch.cat([row, row.new_zeros(width - len(row))]) for row in rows]), valid


# Bradley and Terry.


def test_log_2_at_no_difference() -> None:
    for eps in (0.0, 0.1, 0.4):
        for probability in (1.0, 0.5, 0.2):
            loss = bradley_terry_loss(double(0.0), probability=probability, label_smoothing=eps)
            assert loss.item() == pytest.approx(math.log(2), rel=1e-15)
    assert bradley_terry_loss(double(0.7), margin=0.7).item() == pytest.approx(math.log(2), rel=1e-15)


def test_minus_log_sigmoid() -> None:
    delta = double(1.5, -3.0, 40.0)
    want = [math.log1p(math.exp(-d)) for d in (1.5, -3.0, 40.0)]
    assert bradley_terry_loss(delta).tolist() == pytest.approx(want, rel=1e-14)


@pytest.mark.parametrize("q", [0.5, 0.75, 0.9])
def test_a_soft_label_is_least_at_its_log_odds(q: float) -> None:
    """At log(q / (1 - q)), where the loss is the entropy of q: for q = 1/2 at 0, log 2."""
    delta = double(math.log(q / (1 - q))).requires_grad_()
    loss = bradley_terry_loss(delta, probability=q)
    (gradient,) = torch.autograd.grad(loss.sum(), delta)
    assert float(gradient) == pytest.approx(0.0, abs=1e-15)
    assert loss.item() == pytest.approx(-q * math.log(q) - (1 - q) * math.log(1 - q), rel=1e-13)
    for step in (-0.5, 0.5):
        assert bradley_terry_loss(delta + step, probability=q).item() > loss.item()


def test_smoothing_bounds_the_difference() -> None:
    """eps = 0.1 is a soft label of 0.9: the optimum is log 9 = 2.197; and 0.05 gives 2.944, as the docs say."""
    delta = double(math.log(9.0)).requires_grad_()
    (gradient,) = torch.autograd.grad(bradley_terry_loss(delta, label_smoothing=0.1).sum(), delta)
    assert float(delta.detach()) == pytest.approx(2.197, abs=5e-4) and float(gradient) == pytest.approx(0.0, abs=1e-15)
    assert math.log(0.95 / 0.05) == pytest.approx(2.944, abs=5e-4)
    soft = bradley_terry_loss(delta, probability=0.9)
    assert bradley_terry_loss(delta, label_smoothing=0.1).item() == pytest.approx(soft.item(), rel=1e-15)


def test_a_soft_label_is_the_mean_over_its_votes() -> None:
    """7 of 10 annotators preferred the first; smoothing mixes once more."""
    delta = numbers(5, 0)
    votes = 0.7 * bradley_terry_loss(delta) + 0.3 * bradley_terry_loss(-delta)
    torch.testing.assert_close(
        bradley_terry_loss(delta, probability=torch.tensor(0.7).double()), votes, rtol=1e-6, atol=0
    )
    flipped = 0.8 * bradley_terry_loss(delta, probability=0.7) + 0.2 * bradley_terry_loss(-delta, probability=0.7)
    torch.testing.assert_close(bradley_terry_loss(delta, probability=0.7, label_smoothing=0.2), flipped)


def test_scores_that_are_scaled_log_ratios_give_dpo() -> None:
    chosen, rejected, beta = numbers(6, 1), numbers(6, 2), 0.3
    for eps in (0.0, 0.1):
        ours = bradley_terry_loss(beta * chosen - beta * rejected, label_smoothing=eps)
        torch.testing.assert_close(ours, dpo_loss(chosen, rejected, beta=beta, label_smoothing=eps), rtol=1e-13, atol=0)


def test_it_is_finite_far_out() -> None:
    delta = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = bradley_terry_loss(delta, label_smoothing=0.1)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([1e3, 9e3], rel=1e-6) and delta.grad.tolist() == pytest.approx([0.1, -0.9])


def test_entropy() -> None:
    assert entropy_of_sigmoid(double(0.0)).item() == pytest.approx(math.log(2), rel=1e-15)
    p = 1 / (1 + math.exp(-1.3))
    want = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert entropy_of_sigmoid(double(1.3, -1.3)).tolist() == pytest.approx([want] * 2, rel=1e-14)
    assert entropy_of_sigmoid(double(1e4, -1e4)).tolist() == [0.0, 0.0]


def test_the_penalties_are_added(toys) -> None:
    scores = double(1.5, 0.5, -1.0, 2.0)
    bare = losses(PLAIN[0], toys, scores, 2, 2)
    settings = {"label_smoothing": 0.0, "center_rewards_coefficient": 0.0}
    centred = losses(BradleyTerry(**{**settings, "center_rewards_coefficient": 0.1}), toys, scores, 2, 2)
    assert (centred - bare).tolist() == pytest.approx([0.1 * 2.0**2, 0.1 * 1.0**2], rel=1e-13)
    scaled = losses(BradleyTerry(**settings, scale_penalty=0.1), toys, scores, 2, 2)
    assert (scaled - bare).tolist() == pytest.approx([0.1 * 1.0, 0.1 * 9.0], rel=1e-13)
    unsure = losses(BradleyTerry(**settings, confidence_penalty=0.1), toys, scores, 2, 2)
    want = (-0.1 * entropy_of_sigmoid(double(1.0, -3.0))).tolist()
    assert (unsure - bare).tolist() == pytest.approx(want, rel=1e-12)


def test_columns_are_read_where_they_are_asked_for(toys) -> None:
    scores, margin, probability = numbers(4, 3), double(1.0, 0.3), double(0.8, 0.5)
    asked = BradleyTerry(label_smoothing=0.0, center_rewards_coefficient=0.0, margin=True, soft_labels=True)
    assert asked.needs == {"margin", "probability"} and BradleyTerry().needs == frozenset()
    got = losses(asked, toys, scores, 2, 2, margin=margin, probability=probability)
    delta = scores[::2] - scores[1::2]
    torch.testing.assert_close(got, bradley_terry_loss(delta, probability=probability, margin=margin))


# Rankings.


def test_equal_scores_are_log_k_factorial() -> None:
    for k in (2, 3, 5, 8):
        scores, valid = padded(torch.full((k,), 0.7, dtype=torch.float64))
        assert plackett_luce_loss(scores, valid).item() == pytest.approx(math.lgamma(k + 1), rel=1e-14)
        assert all_pairs_loss(scores, valid).item() == pytest.approx(math.log(2), rel=1e-14)


def test_plackett_luce_is_a_distribution_over_orders() -> None:
    """The probabilities of the 24 orders of four scores sum to one."""
    scores = numbers(4, 4)
    orders = torch.stack([scores[list(order)] for order in permutations(range(4))])
    loss = plackett_luce_loss(orders, torch.ones_like(orders, dtype=torch.bool))
    assert float((-loss).exp().sum()) == pytest.approx(1.0, rel=1e-13)


def test_all_pairs_is_the_mean_over_the_pairs() -> None:
    rows = [numbers(k, k) for k in (2, 3, 5)]
    want = [
        sum(
            bradley_terry_loss(row[i] - row[j], label_smoothing=0.1).item() for i, j in combinations(range(len(row)), 2)
        )
        / math.comb(len(row), 2)
        for row in rows
    ]
    assert all_pairs_loss(*padded(*rows), label_smoothing=0.1).tolist() == pytest.approx(want, rel=1e-13)


@pytest.mark.parametrize(
    ("pairwise", "ranked"),
    [
        (BradleyTerry(), AllPairs()),
        (BradleyTerry(label_smoothing=0.0), PlackettLuce()),
        (
            BradleyTerry(label_smoothing=0.2, center_rewards_coefficient=0.5),
            AllPairs(label_smoothing=0.2, center_rewards_coefficient=0.5),
        ),
    ],
    ids=["all pairs", "plackett-luce", "all pairs with more"],
)
def test_a_ranking_of_two_is_a_pair(pairwise, ranked, toys) -> None:
    """Centring and all."""
    scores = numbers(6, 5)
    torch.testing.assert_close(
        losses(ranked, toys, scores, 2, 2, 2), losses(pairwise, toys, scores, 2, 2, 2), rtol=1e-13, atol=0
    )


@by_class
def test_the_order_counts(objective, toys) -> None:
    better, worse = double(3.0, -1.0), double(-1.0, 3.0)
    assert losses(objective, toys, better, 2).item() < losses(objective, toys, worse, 2).item()


@plain
def test_a_shift_of_a_whole_group_changes_nothing(objective, toys) -> None:
    """Without centring scores are known up to a constant a prompt; with it they are not."""
    sizes = (2, 2) if objective.name == "bradley_terry" else (2, 4, 3)
    scores = numbers(sum(sizes), 6)
    shift = torch.repeat_interleave(double(*range(5, 5 + len(sizes))), torch.tensor(sizes))
    torch.testing.assert_close(losses(objective, toys, scores + shift, *sizes), losses(objective, toys, scores, *sizes))
    centred = type(objective)()
    assert (
        float((losses(centred, toys, scores + shift, *sizes) - losses(centred, toys, scores, *sizes)).abs().min()) > 0.1
    )


@by_class
def test_centring_is_least_around_zero(objective, toys) -> None:
    scores = double(1.0, -1.0).requires_grad_()
    (gradient,) = torch.autograd.grad(losses(objective, toys, scores, 2).sum(), scores)
    assert float(gradient.sum()) == pytest.approx(0.0, abs=1e-15), "a shift of both would change the loss"


@by_class
def test_gradcheck(objective, toys) -> None:
    sizes = (2, 2, 2) if objective.name == "bradley_terry" else (3, 2, 4)
    scores = numbers(sum(sizes), 7, grad=True)
    assert torch.autograd.gradcheck(lambda s: losses(objective, toys, s, *sizes), (scores,))


def test_gradcheck_of_every_term(toys) -> None:
    columns = {"margin": double(0.5, 1.0), "probability": double(0.9, 0.4)}
    full = BradleyTerry(soft_labels=True, margin=True, scale_penalty=0.1, confidence_penalty=0.2)
    assert torch.autograd.gradcheck(lambda s: losses(full, toys, s, 2, 2, **columns), (numbers(4, 8, grad=True),))


@by_class
def test_far_apart_and_close_to_nothing(objective, toys) -> None:
    """Scores of +-1e4 in fp32 and rankings beside shorter ones: loss and gradient are finite."""
    sizes = (2, 2) if objective.name == "bradley_terry" else (2, 4)
    scores = 1e4 * torch.tensor([1.0, -1.0, -1.0, 1.0, 0.5, 1.0])[: sum(sizes)]
    scores.requires_grad_()
    loss = losses(objective, toys, scores, *sizes)
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert bool(loss.isfinite().all()) and bool(gradient.isfinite().all())


def test_rankings_fill_up_on_the_right(toys) -> None:
    ranked, valid = rankings(double(1, 2, 3, 4, 5), batch_of(toys, 2, 3))
    assert ranked.tolist() == [[1, 2, 0], [3, 4, 5]] and valid.tolist() == [[True, True, False], [True] * 3]


@pytest.mark.parametrize("objective", [AllPairs(), PlackettLuce()], ids=lambda o: o.name)
def test_rankings_beside_each_other_do_not_touch(objective, toys) -> None:
    rows = [numbers(k, k) for k in (2, 5, 3)]
    together = losses(objective, toys, torch.cat(rows), 2, 5, 3)
    alone = torch.cat([losses(objective, toys, row, len(row)) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=0)


# Their metrics and settings.


@by_class
def test_metrics(objective, toys) -> None:
    """Wins, ties and losses over each group's pairs; a model that says one number has accuracy 0 and tie rate 1."""
    terms = objective(Outputs(torch.empty(0), scores=double(2.0, 0.5, 1.0, 1.0, -1.0, 0.0)), batch_of(toys, 2, 2, 2))
    metrics = {name: values.tolist() for name, values in terms.metrics.items()}
    assert metrics["accuracy"] == [1, 0, 0] and metrics["tie_rate"] == [0, 1, 0]
    assert metrics["margin"] == pytest.approx([1.5, 0.0, -1.0])
    assert metrics["mean_reward"] == metrics["min_reward"] == metrics["max_reward"] == [2.0, 0.5, 1.0, 1.0, -1.0, 0.0]
    assert not any(values.requires_grad for values in terms.metrics.values())
    assert objective.reductions == (PER_GROUP,)


def test_metrics_of_a_ranking(toys) -> None:
    """3 > 1 = 1 of a wanted order of three: two wins and a tie."""
    terms = PlackettLuce()(Outputs(torch.empty(0), scores=double(3.0, 1.0, 1.0)), batch_of(toys, 3))
    assert terms.metrics["accuracy"].item() == pytest.approx(2 / 3) and terms.metrics[
        "tie_rate"
    ].item() == pytest.approx(1 / 3)
    assert terms.metrics["margin"].item() == pytest.approx(4 / 3)


def test_a_step_is_the_mean_over_groups(toys) -> None:
    """A ranking of four counts as much as a pair."""
    scores, batch = numbers(6, 9), batch_of(toys, 2, 4)
    terms = PLAIN[1](Outputs(torch.empty(0), scores=scores), batch)
    step = weighted_loss(terms, batch, PLAIN[1].reductions, step_totals(PLAIN[1].reductions, [batch]))
    assert step.item() == pytest.approx(terms.losses[0].mean().item(), rel=1e-14)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (BradleyTerry, {"label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\), got 0.5"),
        (AllPairs, {"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 0.5\), got -0.1"),
        (
            PlackettLuce,
            {"center_rewards_coefficient": -1.0},
            "center_rewards_coefficient must not be negative, got -1.0",
        ),
        (
            BradleyTerry,
            {"scale_penalty": -1.0},
            "scale_penalty and confidence_penalty must not be negative, got -1.0, 0.0",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(cls, settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**settings)
