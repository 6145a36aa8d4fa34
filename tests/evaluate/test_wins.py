"""Win rates: by scores and by judges, and at equal length, against identities and a search by brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from strop.evaluate.statistics import wilson
from strop.evaluate.wins import PRIOR_SD, Match, length_controlled, match_wins, rates_at_zero, score_wins


def rate(ours: Any, theirs: Any) -> float:
    return score_wins(ours, theirs)["win_rate"].value


def test_win_rate_identities() -> None:
    rng = np.random.default_rng(0)
    a = [list(map(float, rng.integers(0, 4, 3))) for _ in range(40)]
    b = [list(map(float, rng.integers(0, 4, 5))) for _ in range(40)]
    assert rate(a, a) == 0.5
    there, back = score_wins(a, b), score_wins(b, a)
    assert there["win_rate"].value + back["win_rate"].value == pytest.approx(1)
    assert there["wins"].value == pytest.approx(back["losses"].value) and there["ties"] == back["ties"]
    assert sum(there[name].value for name in ("wins", "ties", "losses")) == pytest.approx(1)
    by_hand = np.mean([np.mean([(x > y) + 0.5 * (x == y) for x in p for y in q]) for p, q in zip(a, b, strict=True)])
    assert there["win_rate"].value == pytest.approx(by_hand) and there["win_rate"].n == 40
    assert score_wins([[2.0], [1.0], [3.0], [None]], [[1.0], [2.0], [1.0], [0.0]])["win_rate"] == wilson(2, 3)
    assert rate([[x + 1 for x in p] for p in a], b) > rate(a, b)
    everything = score_wins([[1.0]] * 9, [[0.0]] * 9)["win_rate"]
    assert everything.value == 1 and everything.low == wilson(9, 9).low
    with pytest.raises(ValueError, match="2 prompts against 1"):
        score_wins([[1.0], [2.0]], [[1.0]])


def judged(*both: tuple[float | None, float | None]) -> list[Match]:
    """Comparisons by a judge, as `judges.compare` puts both orders together."""
    out = []
    for prompt, (forward, backward) in enumerate(both):
        if forward is None or backward is None:
            out.append(Match(prompt=prompt, probability=None, forward=forward, backward=backward))
            continue
        flipped = (forward - 0.5) * (backward - 0.5) < 0
        p = 0.5 if flipped else (forward + backward) / 2
        out.append(Match(prompt=prompt, probability=p, tie=flipped, forward=forward, backward=backward))
    return out


def test_a_judge_that_only_sees_places_ties_and_a_consistent_one_counts() -> None:
    places = match_wins(judged(*[(1.0, 0.0)] * 10))
    assert places["win_rate"].value == 0.5 and places["ties"] == wilson(10, 10)
    assert places["flip_rate"].value == places["position_bias"].value == 1
    whole = match_wins(judged((1, 1), (0.9, 1), (0, 0.1), (None, 1)))
    assert whole["win_rate"] == wilson(2, 3) and whole["losses"] == wilson(1, 3) and whole["abstained"] == wilson(1, 4)
    assert whole["flip_rate"].value == 0 and whole["position_bias"].value == pytest.approx(0.2 / 3)
    swapped = match_wins(judged((0, 0), (0, 0.1), (0.9, 1), (0, None)))
    assert swapped["win_rate"].value + whole["win_rate"].value == pytest.approx(1)


def test_a_prompt_counts_once_however_often_its_answers_are_compared() -> None:
    won = [Match(prompt=0, probability=0.9)] * 9 + [Match(prompt=1, probability=0.1)]
    figures = match_wins(won)
    assert figures["win_rate"] == wilson(1, 2) and "flip_rate" not in figures and "longer" not in figures
    assert figures["length_controlled"].value == pytest.approx(0.5, abs=1e-9)
    assert match_wins([Match(prompt=0, probability=0.9, tie=True)])["ties"] == wilson(1, 1)


def simulated(n: int, intercept: float, slope: float, bias: float, seed: int) -> list[Match]:
    """Comparisons by a judge that likes length: ours is longer by `bias` deviations on average."""
    rng = np.random.default_rng(seed)
    apart = np.round(100 * (rng.normal(size=n) + bias))
    p = 1 / (1 + np.exp(-(intercept + slope * np.tanh(apart / apart.std()))))
    rows = enumerate(zip((rng.random(n) < p).astype(float), apart, strict=True))
    return [Match(prompt=i, probability=float(w), longer_by=float(d)) for i, (w, d) in rows]


def test_the_rate_at_equal_length_takes_out_what_length_alone_wins() -> None:
    matches = simulated(1200, 0.0, 2.0, 0.8, 3)
    figures = match_wins(matches)
    controlled = figures["length_controlled"]
    assert figures["win_rate"].value > 0.66 and figures["longer"].value > 0.7
    assert abs(controlled.value - 0.5) < 0.06 and controlled.low < 0.5 < controlled.high  # type: ignore[operator]
    better = length_controlled(simulated(1200, 1.0, 2.0, -0.8, 1))  # better, but shorter
    assert better.value == pytest.approx(1 / (1 + np.exp(-1.0)), abs=0.05)


def test_the_interval_holds_the_rate_about_as_often_as_it_says() -> None:
    truth = 1 / (1 + np.exp(-0.4))
    found = [length_controlled(simulated(150, 0.4, 1.0, 0.3, seed), seed=seed) for seed in range(40)]
    held = sum(m.low <= truth <= m.high for m in found)  # type: ignore[operator]
    assert held >= 34


def test_identities_of_the_rate_at_equal_length() -> None:
    matches = simulated(400, 0.5, 1.0, 0.2, 2)
    back = [Match(prompt=m.prompt, probability=1 - (m.probability or 0), longer_by=-m.longer_by) for m in matches]
    there = length_controlled(matches)
    assert there.value + length_controlled(back).value == pytest.approx(1, abs=1e-9)
    itself = [Match(prompt=i, probability=0.5, longer_by=0.0) for i in range(20)]
    assert length_controlled(itself).value == 0.5
    equal = [Match(prompt=m.prompt, probability=m.probability) for m in matches]  # lengths never differ
    assert length_controlled(equal).value == pytest.approx(match_wins(equal)["win_rate"].value, abs=1e-9)
    assert length_controlled([Match(prompt=i, probability=1.0, longer_by=(-1) ** i) for i in range(20)]).value == 1
    assert np.isnan(length_controlled([]).value)


def test_equal_length_is_not_guessed_where_ours_is_always_the_longer() -> None:
    longer = [Match(prompt=i, probability=float(i % 3 > 0), longer_by=10.0 + i) for i in range(60)]
    assert np.isnan(length_controlled(longer).value) and "length_controlled" not in match_wins(longer)
    shorter_once = [*longer, *(Match(prompt=60 + i, probability=1.0, longer_by=-5.0) for i in range(4))]
    assert 0 < length_controlled(shorter_once).value < 1


def test_equal_lengths_tell_of_equal_length() -> None:
    """A model against itself whose answers differ here and there, always to one side."""
    nearly = [Match(prompt=i, probability=0.5, longer_by=float(i == 3)) for i in range(20)]
    assert length_controlled(nearly).value == 0.5
    won = [Match(prompt=i, probability=float(i % 2), longer_by=0.0) for i in range(80)]
    longer = [Match(prompt=80 + i, probability=1.0, longer_by=40.0) for i in range(20)]
    figures = match_wins([*won, *longer])
    assert figures["win_rate"].value == 0.6 and figures["length_controlled"].value == pytest.approx(0.5, abs=0.02)


def test_comparisons_that_all_end_alike_are_not_certain() -> None:
    won = [Match(prompt=i, probability=1.0, longer_by=(-1.0) ** i) for i in range(20)]
    assert length_controlled(won) == match_wins(won)["win_rate"] == wilson(20, 20)
    tied = [Match(prompt=i, probability=0.5, longer_by=(-1.0) ** i) for i in range(20)]
    assert length_controlled(tied).value == 0.5 and length_controlled(tied).low is None


@pytest.mark.parametrize("seed", range(4))
def test_the_regression_finds_what_a_search_finds(seed: int) -> None:
    """The penalised likelihood at its best over a grid, refined; weights, ties and separation among the cases."""
    rng = np.random.default_rng(seed)
    x = np.tanh(rng.normal(size=30))
    won = rng.choice([0.0, 0.5, 1.0], 30) if seed < 3 else (x > 0).astype(float)
    weight = rng.random(30)

    def height(a: Any, b: Any) -> Any:
        z = a[..., None] + b[..., None] * x
        return (weight * (np.logaddexp(0, z) - won * z)).sum(-1) + b**2 / (2 * PRIOR_SD**2)

    middle, width = np.zeros(2), 12.0
    for _ in range(60):
        a, b = np.meshgrid(*(m + width * np.linspace(-1, 1, 11) for m in middle), indexing="ij")
        best = np.unravel_index(height(a, b).argmin(), a.shape)
        middle, width = np.array([a[best], b[best]]), width * 0.7
    both = rates_at_zero(won, x, np.stack([weight, np.zeros(30), 2 * weight * (won == 1)]))
    assert both[0] == pytest.approx(1 / (1 + np.exp(-middle[0])), abs=1e-6)
    assert np.isnan(both[1]) and both[2] == 1


def test_the_regression_agrees_with_statsmodels() -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(5)
    x, weight = np.tanh(rng.normal(size=400)), np.ones(400)
    won = (rng.random(400) < 1 / (1 + np.exp(-(0.7 + x)))).astype(float)
    free = sm.GLM(won, sm.add_constant(x), family=sm.families.Binomial()).fit()
    # A prior that weighs little against 400 comparisons.
    (found,) = rates_at_zero(won, x, weight[None])
    assert found == pytest.approx(1 / (1 + np.exp(-free.params[0])), abs=2e-3)
