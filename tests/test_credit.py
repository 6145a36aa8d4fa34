"""Credit within a group: closed forms, exact zeros, and what unscorable means."""

from __future__ import annotations

import math
import random

import pytest

from strop import dist
from strop.credit import (
    GroupRelative,
    LeaveOneOut,
    ProcessRelative,
    all_equal,
    centred,
    group_relative,
    leave_one_out,
    standard_deviation,
)

REWARDS = (0.25, -1.5, 3.0, 0.0, 0.25, 2.125)


def test_standard_deviation_is_the_sample_one() -> None:
    assert standard_deviation((1.0, 3.0)) == pytest.approx(math.sqrt(2), rel=1e-15)
    assert standard_deviation((1.0, None, 3.0, None)) == standard_deviation((1.0, 3.0))
    assert standard_deviation((5.0,)) == standard_deviation(()) == standard_deviation((None,)) == 0.0


@pytest.mark.parametrize(("size", "right"), [(2, 1), (8, 1), (8, 3), (8, 7), (16, 8)])
def test_binary_rewards_follow_the_rate_formula(size: int, right: int) -> None:
    """sqrt((1-p)/p) sqrt((G-1)/G) for a right answer, -sqrt(p/(1-p)) sqrt((G-1)/G) for a wrong one, at eps = 0."""
    p, shrink = right / size, math.sqrt((size - 1) / size)
    advantages = group_relative([1.0] * right + [0.0] * (size - right), eps=0.0)
    for a in advantages[:right]:
        assert a == pytest.approx(math.sqrt((1 - p) / p) * shrink, rel=1e-12)
    for a in advantages[right:]:
        assert a == pytest.approx(-math.sqrt(p / (1 - p)) * shrink, rel=1e-12)


def test_eps_is_added_to_the_deviation() -> None:
    assert group_relative((0.0, 1.0)) == pytest.approx([-0.5 / (math.sqrt(0.5) + 1e-4), 0.5 / (math.sqrt(0.5) + 1e-4)])
    assert group_relative((0.0, 1.0), eps=1.0)[1] == pytest.approx(0.5 / (math.sqrt(0.5) + 1.0), rel=1e-12)


def test_leave_one_out_is_the_centred_reward_times_n_over_n_minus_1() -> None:
    n = len(REWARDS)
    for i, a in enumerate(leave_one_out(REWARDS)):
        others = [r for j, r in enumerate(REWARDS) if j != i]
        assert a == pytest.approx(REWARDS[i] - sum(others) / (n - 1), rel=1e-12)
    assert leave_one_out(REWARDS) == pytest.approx([c * n / (n - 1) for c in centred(REWARDS)], rel=1e-12)


@pytest.mark.parametrize("credit", [centred, group_relative, leave_one_out])
def test_advantages_sum_to_zero_and_ignore_a_constant(credit) -> None:
    assert math.fsum(credit(REWARDS)) == pytest.approx(0.0, abs=1e-12)
    shifted = credit([r + 7.0 for r in REWARDS])
    assert shifted == pytest.approx(credit(REWARDS), abs=1e-12)


@pytest.mark.parametrize("credit", [centred, group_relative, leave_one_out])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.3, 1e-12, 1e6])
def test_equal_rewards_give_exactly_zero(credit, value: float) -> None:
    assert credit([value] * 5) == [0.0] * 5


@pytest.mark.parametrize("credit", [centred, group_relative, leave_one_out])
def test_rounding_is_no_signal(credit) -> None:
    """The same sum in different orders differs in the last bit; a division by it would make that an advantage of 1."""
    parts = [0.1, 0.2, 0.3, 0.7, 1e-3]
    shuffled = random.Random(0)
    rewards = []
    for _ in range(8):
        shuffled.shuffle(parts)
        rewards.append(sum(parts))
    assert len(set(rewards)) > 1
    assert all_equal(rewards) and credit(rewards) == [0.0] * 8
    scaled = [1e9 * r for r in rewards]
    assert len(set(scaled)) > 1 and credit(scaled) == [0.0] * 8


def test_where_rounding_ends_and_signal_begins() -> None:
    """The deviation (ddof 0) of (m - d, m + d) is d; the bar is 1e-6 max(1, |m|)."""
    assert all_equal((1 - 0.9e-6, 1 + 0.9e-6)) and not all_equal((1 - 1.1e-6, 1 + 1.1e-6))
    assert all_equal((100 - 0.9e-4, 100 + 0.9e-4)) and not all_equal((100 - 1.1e-4, 100 + 1.1e-4))
    assert not all_equal((0.0, 3e-6))


@pytest.mark.parametrize("credit", [centred, group_relative, leave_one_out])
def test_unscorable_takes_no_part(credit) -> None:
    with_none = (0.25, None, -1.5, 3.0, None)
    got = credit(with_none)
    assert got[1] is None and got[4] is None
    assert [a for a in got if a is not None] == credit((0.25, -1.5, 3.0))
    assert credit((None, 2.0, None)) == [None, 0.0, None]
    assert credit((None, None)) == [None, None]
    assert credit(()) == []


GROUPS = ((1.0, 0.0, 0.0, 1.0), (5.0, 5.0), (0.5, None, -2.5))


def test_scales() -> None:
    assert GroupRelative()(GROUPS) == [group_relative(g) for g in GROUPS]
    assert GroupRelative(scale="none")(GROUPS) == [centred(g) for g in GROUPS]
    everything = [1.0, 0.0, 0.0, 1.0, 5.0, 5.0, 0.5, -2.5]
    mean = sum(everything) / 8
    spread = math.sqrt(sum((r - mean) ** 2 for r in everything) / 7)
    got = GroupRelative(scale="batch", eps=0.25)(GROUPS)
    want = [[None if a is None else a / (spread + 0.25) for a in centred(g)] for g in GROUPS]
    for ours, theirs in zip(got, want, strict=True):
        assert [a is None for a in ours] == [a is None for a in theirs]
        assert [a for a in ours if a is not None] == pytest.approx([a for a in theirs if a is not None], rel=1e-12)
    assert got[1] == [0.0, 0.0] and got[2][1] is None


def test_leave_one_out_is_dr_grpo_times_g_over_g_minus_1_group_by_group() -> None:
    for ours, theirs in zip(LeaveOneOut()(GROUPS[:1]), GroupRelative(scale="none")(GROUPS[:1]), strict=True):
        assert ours == pytest.approx([a * 4 / 3 for a in theirs], rel=1e-12)


def test_the_batch_scale_is_over_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks with a group each divide by what one process with both divides by."""
    groups = [(0.0, 1.0, None, 0.0), (10.0, 0.0, 5.0, 3.0)]
    credit = GroupRelative(scale="batch")
    want = credit(groups)
    sums = [[0.0 + 1 + 0 + 18, 7.0], [math.fsum((r - 19 / 7) ** 2 for g in groups for r in g if r is not None)]]
    for rank in range(2):
        left = iter(sums)
        monkeypatch.setattr(dist, "sum_numbers", lambda values, left=left: next(left))
        (got,) = credit([groups[rank]])
        assert [a for a in got if a is not None] == pytest.approx([a for a in want[rank] if a is not None], rel=1e-12)
        assert next(left, None) is None


@pytest.mark.parametrize("settings", [GroupRelative, ProcessRelative])
def test_eps_must_be_positive(settings) -> None:
    """Equal rewards have deviation 0, and 0 / 0 is no advantage."""
    with pytest.raises(ValueError, match=r"eps must be positive, got 0"):
        settings(eps=0)
