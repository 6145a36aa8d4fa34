"""A judge's figures on comparisons with known numbers."""

from __future__ import annotations

from typing import Any

import pytest

from strop.evaluate.judging import Trial, judge_measures
from strop.judges import Comparison


def trial(prompt: int, forward: float | None, backward: float | None, people: float | None, lengths: Any) -> Trial:
    if forward is None or backward is None:
        said = Comparison(probability=None, forward=forward, backward=backward)
    else:
        flipped = (forward - 0.5) * (backward - 0.5) < 0
        p = 0.5 if flipped else (forward + backward) / 2
        said = Comparison(probability=p, forward=forward, backward=backward, flipped=flipped, tie=flipped)
    return Trial(prompt=prompt, comparison=said, people=(people,), lengths=lengths)


def test_the_figures() -> None:
    found = judge_measures(
        [
            trial(0, 0.9, 0.7, 1.0, (5, 3)),
            trial(1, 0.9, 0.2, 1.0, (5, 3)),
            trial(2, 0.1, 0.3, 1.0, (5, 3)),
            trial(3, 0.8, 1.0, 1.0, (2, 3)),
            trial(4, 0.8, None, 1.0, (2, 3)),
        ]
    )
    assert found["position_bias"].value == pytest.approx((0.2 + 0.7 + 0.2 + 0.2) / 4) and found["position_bias"].n == 4
    assert found["flip_rate"].value == 0.25 and found["ties"].value == 0.25
    assert found["abstained"].value == 0.2 and found["abstained"].n == 5
    assert found["accuracy"].value == pytest.approx((1 + 0.5 + 0 + 1) / 4) and found["accuracy"].n == 4
    assert found["longer_preferred"].value == pytest.approx(1 / 3) and found["longer_preferred"].n == 3
    assert all(m.low is not None and m.low <= m.value <= (m.high or 0) for m in (found["accuracy"], found["flip_rate"]))


def test_without_gold_only_its_own_figures_are_told() -> None:
    found = judge_measures([trial(i, 0.9, 0.8, None, (1, 1)) for i in range(3)])
    assert set(found) == {"position_bias", "flip_rate", "ties", "abstained"}


def test_pairs_that_were_not_asked_do_not_count_as_steady() -> None:
    same = Comparison(probability=0.5, reason="the same", tie=True)
    found = judge_measures([Trial(prompt=0, comparison=same, people=(1.0,), lengths=(1, 1))])
    assert "flip_rate" not in found and "position_bias" not in found and found["ties"].value == 1
