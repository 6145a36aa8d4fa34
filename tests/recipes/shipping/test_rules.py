"""The rule of the gate, by numbers: what passes, what fails, and what the prompts are too few to say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from strop.evaluate.statistics import bootstrap, wilson
from strop.recipes.shipping.rules import Scores, above_floor, against_margin, nothing_to_judge, watched

Z2 = 3.8414588206941236
"""The 0.95 quantile of chi-squared with one degree of freedom."""


def scores(ours: Any, theirs: Any = None, *, less: bool = False) -> Scores:
    as_rows = [None if side is None else [[v] for v in side] for side in (ours, theirs)]
    return Scores("held-out", "accuracy", less, as_rows[0] or [], as_rows[1])


def flips(num: int, up: int, down: int) -> tuple[list[float], list[float]]:
    """Ours and theirs on `num` prompts, of which we win `up` and lose `down`."""
    theirs = [0.0] * up + [1.0] * (num - up)
    ours = [1.0] * up + [0.0] * down + [1.0] * (num - up - down)
    return ours, theirs


@pytest.mark.parametrize(
    ("num", "up", "down", "margin", "verdict"),
    [
        (200, 60, 2, 0.05, "pass"),  # better
        (200, 0, 100, 0.05, "fail"),  # half of what it could is gone
        (200, 5, 25, 0.05, "fail"),  # d = -0.10 [-0.155, -0.05]
        (2000, 20, 60, 0.05, "pass"),  # worse for sure, by 0.02, and that is allowed
        (40, 8, 8, 0.05, "unclear"),  # d = 0 +- 0.2
        (200, 10, 10, 0.05, "pass"),  # d = 0 +- 0.045
        (200, 10, 10, 0.02, "unclear"),
        (5, 0, 0, 0.05, "unclear"),  # nothing changed on five prompts
        (80, 0, 0, 0.05, "pass"),
        (3, 0, 3, 0.05, "unclear"),  # lost all three: three prompts
        (8, 0, 8, 0.05, "fail"),
    ],
)
def test_margin(num: int, up: int, down: int, margin: float, verdict: str) -> None:
    found = against_margin(scores(*flips(num, up, down)), margin, 0)
    assert found.verdict == verdict, found.why
    assert found.change is not None and found.change.n == num
    assert found.change.value == pytest.approx((up - down) / num)


def test_the_interval_is_the_paired_bootstrap_over_prompts() -> None:
    theirs = [0.0] * 150 + [1.0] * 150
    ours = [1.0] * 20 + [0.0] * 130 + [0.0] * 5 + [1.0] * 145
    found = against_margin(scores(ours, theirs), 0.05, 7)
    drawn = bootstrap(np.array(ours) - np.array(theirs), seed=7)
    assert found.change is not None and (found.change.low, found.change.high) == drawn
    shuffled = np.random.default_rng(0).permutation(300)
    unpaired = against_margin(scores(ours, list(np.array(theirs)[shuffled])), 0.05, 7)
    assert unpaired.change is not None and drawn is not None
    assert unpaired.change.high - unpaired.change.low > 2 * (drawn[1] - drawn[0])  # type: ignore[operator]


def test_where_nothing_changed_the_end_is_wilsons() -> None:
    found = against_margin(scores([1.0] * 50, [1.0] * 50), 0.05, 0)
    assert found.change is not None
    assert found.change.low == pytest.approx(-Z2 / (50 + Z2))
    won = against_margin(scores([1.0] * 50, [0.0] * 50), 0.05, 0)
    share = wilson(50, 50)
    assert won.change is not None and won.change.low is not None and share.low is not None
    assert won.change.low == pytest.approx(2 * share.low - 1)  # from -1 to 1 instead of 0 to 1


def test_where_less_is_better_the_sides_are_swapped() -> None:
    ours, theirs = flips(200, 60, 2)
    assert against_margin(scores(ours, theirs, less=True), 0.05, 0).verdict == "fail"
    worse = against_margin(scores(theirs, ours, less=True), 0.05, 0)
    assert worse.verdict == "pass" and worse.metric == "-accuracy"
    assert worse.change is not None and worse.change.value == pytest.approx(-0.29)  # as it is measured


def test_the_margin_is_a_share_of_the_range_of_other_rewards() -> None:
    theirs = [-1.5, 1.0] * 500
    found = against_margin(scores([v - 0.1 for v in theirs], theirs), 0.05, 0)
    assert found.limit == pytest.approx(0.05 * 2.5) and found.verdict == "pass"
    assert "0.05 of the range 2.5" in found.why
    wild = against_margin(scores([v - 0.2 for v in theirs[:-1]] + [-99.0], theirs), 0.05, 0)
    assert wild.limit == found.limit and wild.verdict != "pass", "a model's own outliers do not widen its margin"
    assert against_margin(scores([v - 0.2 for v in theirs], theirs), 0.05, 0).verdict == "fail"


def test_prompts_without_a_score_are_left_out_and_too_many_of_them_settle_nothing() -> None:
    ours, theirs = flips(200, 60, 2)
    few: list[float | None] = [None] * 10 + ours[10:]
    assert against_margin(scores(few, theirs), 0.05, 0).change.n == 190  # type: ignore[union-attr]
    many: list[float | None] = [None] * 30 + ours[30:]
    found = against_margin(scores(many, theirs), 0.05, 0)
    assert found.verdict == "unclear" and "only 170 of 200 prompts" in found.why
    nothing = against_margin(scores([None] * 20, theirs[:20]), 0.05, 0)
    assert nothing.verdict == "unclear" and nothing.change is not None and math.isnan(nothing.change.value)


def test_what_is_unclear_says_how_many_prompts_would_do() -> None:
    found = against_margin(scores(*flips(40, 8, 8)), 0.05, 0)
    needed = math.ceil(Z2 * 0.4 / 0.05**2)  # the variance of 16 changes by 1 among 40
    assert needed == 615 and f"about {needed:,} would settle it" in found.why
    share = round(0.2 * needed) + 1
    assert against_margin(scores(*flips(needed + 40, share, share)), 0.05, 0).verdict == "pass"
    same = against_margin(scores(*flips(12, 0, 0)), 0.05, 0)
    assert "about 73 would settle it" in same.why
    assert [against_margin(scores(*flips(n, 0, 0)), 0.05, 0).verdict for n in (72, 73)] == ["unclear", "pass"]
    down = against_margin(scores(*flips(20, 3, 5)), 0.05, 0)
    assert down.verdict == "unclear" and "as it looks, more prompts would show it" in down.why


def test_several_answers_a_prompt_are_one_draw() -> None:
    one = Scores("x", "accuracy", False, [[1.0]] * 60 + [[0.0]] * 60, [[0.0]] * 120)
    four = Scores("x", "accuracy", False, [[1.0] * 4] * 60 + [[0.0] * 4] * 60, [[0.0] * 4] * 120)
    assert against_margin(one, 0.05, 0).change == against_margin(four, 0.05, 0).change


@pytest.mark.parametrize(
    ("right", "num", "floor", "verdict"),
    [(98, 100, 0.9, "pass"), (70, 100, 0.9, "fail"), (92, 100, 0.9, "unclear"), (10, 10, 0.9, "unclear")],
)
def test_floor(right: int, num: int, floor: float, verdict: str) -> None:
    found = above_floor(scores([1.0] * right + [0.0] * (num - right)), floor, 0)
    assert found.verdict == verdict, found.why
    assert found.ours is not None and found.ours.value == right / num


@pytest.mark.parametrize("num", [5, 50, 72, 73])
def test_where_all_reach_a_floor_the_end_is_wilsons(num: int) -> None:
    found = above_floor(scores([1.0] * num), 0.95, 0)
    share = wilson(num, num)
    assert found.ours is not None and found.ours.low == pytest.approx(share.low) and found.ours.high == 1.0
    assert found.verdict == ("pass" if num >= 73 else "unclear")
    assert found.verdict == "pass" or "about 73 would settle it" in found.why
    none = above_floor(scores([0.0] * num, less=True), 0.05, 0)
    assert none.verdict == found.verdict and none.ours is not None
    assert none.ours.low == 0.0 and none.ours.high == pytest.approx(wilson(0, num).high)


def test_a_floor_of_other_rewards_stays_within_what_was_seen() -> None:
    lengths = [40.0, 60.0] * 30
    found = above_floor(scores(lengths, less=True), 60.0, 0)
    assert found.verdict == "pass" and found.ours is not None and found.ours.low is not None
    drawn = bootstrap(np.array(lengths), seed=0)
    assert drawn is not None and found.ours.low == min(drawn[0], (60 * 50 + Z2 * 40) / (60 + Z2))
    same = above_floor(scores([30.0] * 5), 20.0, 0)
    assert same.verdict == "unclear", "five answers of one length do not show that all are so long"


def test_prompts_without_a_score_do_not_hide_a_failure() -> None:
    missed = above_floor(scores([None] * 30 + [0.0] * 170), 0.95, 0)
    assert missed.verdict == "fail" and missed.ours is not None and missed.ours.n == 170
    worse = against_margin(scores([None] * 30 + [0.0] * 170, [1.0] * 200), 0.05, 0)
    assert worse.verdict == "fail"
    nothing = above_floor(scores([None] * 20), 0.95, 0)
    assert nothing.why == "accuracy unscored, at least 0.95: only 0 of 20 prompts have a score"


def test_a_floor_of_what_should_be_low_is_a_ceiling() -> None:
    toxic = [1.0] * 2 + [0.0] * 198
    assert above_floor(scores(toxic, less=True), 0.05, 0).verdict == "pass"
    assert above_floor(scores([1.0] * 40 + [0.0] * 160, less=True), 0.05, 0).verdict == "fail"
    assert "at most 0.05" in above_floor(scores(toxic, less=True), 0.05, 0).why


def test_a_watched_reward_decides_nothing() -> None:
    found = watched(scores(*flips(200, 0, 150)), 0)
    assert (found.rule, found.verdict, found.limit) == ("watched", "pass", None)
    assert found.change is not None and found.change.value == pytest.approx(-0.75)
    assert watched(scores([1.0] * 5), 0).change is None


def test_no_evidence_is_unclear() -> None:
    found = nothing_to_judge("held-out", "nothing was asked")
    assert found.verdict == "unclear" and found.to_json()["ours"] is None


def test_the_rule_is_wrong_rarely_enough() -> None:
    """A model that lost exactly the margin passes in about 2.5 of 100 cases."""
    draws = np.random.default_rng(3)
    passed = 0
    for seed in range(40):
        ours = (draws.random(150) < 0.60).astype(float)
        theirs = (draws.random(150) < 0.65).astype(float)
        passed += against_margin(scores(list(ours), list(theirs)), 0.05, seed).verdict == "pass"
    assert passed <= 4
