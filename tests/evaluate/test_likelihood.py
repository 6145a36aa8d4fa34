"""Which side is the likelier: figures on numbers made by hand."""

from __future__ import annotations

import pytest

from strop.evaluate.likelihood import Likelihoods
from strop.evaluate.statistics import Measure, bootstrap, wilson
from strop.types import Completion, Group

OURS = Likelihoods(((-10.0, -8.0), (-4.0, -9.0), (-6.0, -6.0)), ((-1.0, -2.0), (-2.0, -1.5), (-1.0, -1.0)))
BASE = Likelihoods(((-12.0, -9.0), (-5.0, -7.0), (-6.0, -7.0)), ((0.0, 0.0),) * 3)


def test_the_likelier_side_summed_and_per_token() -> None:
    figures = OURS.measures(seed=0)
    assert figures["logps/accuracy"] == wilson(1, 3)  # a tie is no win
    assert figures["logps/accuracy_per_token"] == wilson(1, 3)
    chosen = figures["logps/chosen"]
    assert (chosen.value, chosen.n) == (pytest.approx(-20 / 3), 3)
    assert (chosen.low, chosen.high) == bootstrap([-10.0, -4.0, -6.0])
    assert figures["logps/rejected"].value == pytest.approx(-23 / 3)


def test_implicit_rewards_are_log_ratios_to_the_baseline() -> None:
    assert OURS.rewards(BASE) == ((2.0, 1.0), (1.0, -2.0), (0.0, 1.0))
    figures = OURS.against(BASE, seed=0)
    assert figures["rewards/accuracies"] == wilson(2, 3)
    assert figures["rewards/margins"].value == pytest.approx((1 + 3 - 1) / 3)
    assert figures["rewards/chosen"].value == 1 and figures["rewards/rejected"].value == 0


def test_a_baseline_that_is_the_model_itself_gives_zero_margins_and_no_wins() -> None:
    figures = OURS.against(OURS, seed=0)
    assert figures["rewards/margins"] == Measure(0.0, None, None, 3)
    assert figures["rewards/accuracies"] == wilson(0, 3)


def test_swapping_the_models_turns_the_margins_round() -> None:
    there, back = OURS.against(BASE, seed=0), BASE.against(OURS, seed=0)
    assert back["rewards/margins"].value == -there["rewards/margins"].value
    assert back["rewards/accuracies"].value == pytest.approx(1 - there["rewards/accuracies"].value)


def test_a_ranking_counts_each_of_its_pairs() -> None:
    three = Likelihoods(((-1.0, -3.0, -2.0),), ((-1.0, -1.0, -1.0),))
    figures = three.measures(seed=0)
    assert figures["logps/accuracy"].value == pytest.approx(2 / 3)  # 1 > 3, 1 > 2, not 3 > 2
    assert (figures["logps/chosen"].value, figures["logps/rejected"].value) == (-1.0, -2.5)


def test_rows_are_written_with_their_log_probs_and_scores() -> None:
    groups = [Group(f"q{i}", (Completion("a"), Completion("b")), origin=f"f:{i}") for i in range(3)]
    first = OURS.scored(groups, OURS.rewards(BASE))[0]
    assert [c.score for c in first.completions] == [2.0, 1.0]
    assert first.completions[0].rewards == {"logps": -10.0, "logps_per_token": -1.0}
    assert (first.prompt, first.origin) == ("q0", "f:0")
