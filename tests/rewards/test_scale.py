"""Scores on one scale: what ensembles must not notice, what lengths must not explain, figures in files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from strop.rewards.scale import FILE, Figures, combined, figures_of, normalised, read_figures, residual

HOWS = ("mean", "mean_minus_std", "min", "uwo")


def figures(mean: float = 0.0, within: float = 1.0, std: float = 1.0) -> Figures:
    return Figures(mean, std, within, 0.0, 1.0, 10, "test")


def drawn(members: int, completions: int, seed: int = 0) -> list[list[float]]:
    return np.random.default_rng(seed).normal(0, 2, (members, completions)).tolist()


def scores(members, how, weight=0.5, known=None) -> list[float | None]:
    return [j.score for j in combined(members, known or [figures()] * len(members), how, weight)]


# Ensembles.


@pytest.mark.parametrize("how", HOWS)
def test_identical_members_are_their_mean(how) -> None:
    """And the mean is the member itself, centred and in units of its deviation."""
    (one,) = drawn(1, 5)
    want = [(s - np.mean(one)) / 2.5 for s in one]
    found = combined([one] * 4, [figures(within=2.5)] * 4, how, 0.7)
    assert [j.score for j in found] == pytest.approx(want, abs=1e-12)
    assert [j.spread for j in found] == pytest.approx([0.0] * 5, abs=1e-12)


@pytest.mark.parametrize("how", HOWS)
def test_a_constant_added_to_a_member_changes_nothing(how) -> None:
    """Scores are known up to a constant a prompt; a factor goes with the member's deviation."""
    members = drawn(3, 6)
    moved = [members[0], [s + 17.0 for s in members[1]], [5 * s - 40.0 for s in members[2]]]
    known = [figures(), figures(), figures(within=5.0)]
    assert scores(moved, how, known=known) == pytest.approx(scores(members, how), abs=1e-12)


def test_what_each_way_computes() -> None:
    members = drawn(4, 7, seed=1)
    z = np.array(members) - np.mean(members, 1, keepdims=True)
    mean, std = z.mean(0), z.std(0)
    assert scores(members, "mean") == pytest.approx(mean.tolist())
    assert scores(members, "mean_minus_std", 0.8) == pytest.approx((mean - 0.8 * std).tolist())
    assert scores(members, "uwo", 0.8) == pytest.approx((mean - 0.8 * std**2).tolist())
    assert scores(members, "min") == pytest.approx(z.min(0).tolist())
    assert [j.spread for j in combined(members, [figures()] * 4, "mean", 0.0)] == pytest.approx(std.tolist())


@pytest.mark.parametrize("how", ["mean_minus_std", "uwo"])
def test_without_weight_it_is_the_mean(how) -> None:
    members = drawn(3, 5, seed=2)
    assert scores(members, how, 0.0) == pytest.approx(scores(members, "mean"))


def test_order_of_members_and_completions_does_not_count() -> None:
    members = drawn(3, 5, seed=3)
    assert scores(members[::-1], "uwo") == pytest.approx(scores(members, "uwo"))
    assert scores([m[::-1] for m in members], "uwo")[::-1] == pytest.approx(scores(members, "uwo"))


def test_what_one_member_cannot_score_is_unscorable_and_no_part_of_the_centre() -> None:
    members: list[list[float | None]] = [[1.0, 2.0, 30.0], [0.0, 4.0, None]]
    assert scores(members, "mean") == [pytest.approx(-1.25), pytest.approx(1.25), None]


def test_a_lone_completion_is_centred_by_the_frozen_mean() -> None:
    """One completion a prompt, as PPO draws them: its own mean would make every score 0."""
    known = [figures(mean=1.0, within=2.0), figures(mean=-3.0, within=0.5)]
    assert scores([[2.0], [-2.0]], "mean", known=known) == [pytest.approx((0.5 + 2.0) / 2)]


# Lengths and frozen figures.


def test_residual_is_over_what_is_scorable() -> None:
    assert residual([1.0, None, 5.0], [10, 99, 20], 0.2) == [pytest.approx(2.0), None, pytest.approx(4.0)]
    assert residual([3.0], [50], 0.2) == [3.0] and residual([None], [50], 0.2) == [None]


def test_normalised_has_mean_0_and_deviation_1_on_what_it_was_fitted_on() -> None:
    rows = drawn(6, 4, seed=4)
    known = figures_of(rows, length_slope=0.1, temperature=1.3, fitted_on="here")
    out = np.array([normalised(row, known) for row in rows], float)
    assert out.mean() == pytest.approx(0.0, abs=1e-12) and out.std() == pytest.approx(1.0)
    assert normalised([None, known.mean], known) == [None, 0.0]
    assert known.std_within == pytest.approx((np.array(rows) - np.mean(rows, 1, keepdims=True)).std())
    assert known.num_completions == 24


def test_figures_of_single_completions_know_no_deviation_within(tmp_path: Path) -> None:
    known = figures_of([[1.0], [3.0]], length_slope=math.nan, temperature=1.0, fitted_on="here")
    assert (known.mean, known.std, known.length_slope) == (2.0, 1.0, 0.0) and math.isnan(known.std_within)
    known.write(tmp_path)
    assert "null" in (tmp_path / FILE).read_text() and "NaN" not in (tmp_path / FILE).read_text()
    back = read_figures(str(tmp_path))
    assert back is not None and math.isnan(back.std_within) and back.mean == 2.0


def test_figures_in_files(tmp_path: Path) -> None:
    assert read_figures(str(tmp_path)) is None and read_figures("some/hub-name") is None
    known = Figures(0.1 + 0.2, 2.0, 1.5, 0.03, 1.7, 640, "samples.jsonl")
    known.write(tmp_path)
    assert read_figures(str(tmp_path)) == known
    for text in ("{", "[]", '{"mean": 1}', '{"mean": "x"}'):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(ValueError, match=r"reward.json: not the figures of a reward model"):
            read_figures(str(tmp_path))
