"""Process supervision: the reverse sum by hand, one step as outcome GRPO, and who takes no part."""

from __future__ import annotations

import math

import pytest

from strop.credit import ProcessRelative, group_relative, process_advantages

REWARDS = ((0.5, -1.0, 2.0), (0.25,), (1.0, 1.0))
ENDS = ((2, 5, 6), (3,), (0, 4))
LENGTHS = (7, 4, 6)


def normalised() -> list[list[float]]:
    pool = [r for rewards in REWARDS for r in rewards]
    mean = math.fsum(pool) / len(pool)
    std = math.sqrt(math.fsum((r - mean) ** 2 for r in pool) / (len(pool) - 1))
    return [[(r - mean) / (std + 1e-4) for r in rewards] for rewards in REWARDS]


def test_each_token_has_the_rewards_of_the_steps_still_to_end() -> None:
    """The definition, token by token: A_t is the sum over steps that end at t or later."""
    got = process_advantages(REWARDS, ENDS, LENGTHS)
    for credit, ends, length, tokens in zip(normalised(), ENDS, LENGTHS, got, strict=True):
        assert tokens is not None and len(tokens) == length
        want = [math.fsum(r for r, end in zip(credit, ends, strict=True) if end >= t) for t in range(length)]
        assert tokens == pytest.approx(want, rel=1e-12)
    assert got[2][5] == 0.0  # behind the last step


def test_the_mean_does_not_grow_with_the_number_of_steps() -> None:
    got = process_advantages(REWARDS, ENDS, LENGTHS, mean=True)
    a, b, c = normalised()[0]
    assert got[0] == pytest.approx([(a + b + c) / 3] * 3 + [(b + c) / 2] * 3 + [c], rel=1e-12)
    assert got[1] == pytest.approx([normalised()[1][0]] * 4, rel=1e-12)


@pytest.mark.parametrize("mean", [False, True])
def test_one_step_that_ends_at_the_last_token_is_the_outcomes_advantage(mean: bool) -> None:
    rewards, lengths = (1.0, 0.0, 0.25, 0.75), (3, 1, 8, 2)
    got = process_advantages([(r,) for r in rewards], [(n - 1,) for n in lengths], lengths, mean=mean)
    assert got == [[a] * n for a, n in zip(group_relative(rewards), lengths, strict=True)]


def test_equal_rewards_give_exactly_zero() -> None:
    assert process_advantages([(0.7, 0.7), (0.7,)], [(0, 1), (1,)], (2, 2)) == [[0.0, 0.0], [0.0, 0.0]]
    assert process_advantages([(0.7,)], [(1,)], (2,)) == [[0.0, 0.0]]


def test_an_unscorable_step_leaves_its_completion_out_of_the_pool() -> None:
    rewards = [REWARDS[0], (5.0, None), REWARDS[1], (), REWARDS[2]]
    ends = [ENDS[0], (0, 1), ENDS[1], (), ENDS[2]]
    got = process_advantages(rewards, ends, (7, 2, 4, 3, 6))
    assert got[1] is None and got[3] is None
    assert [got[0], got[2], got[4]] == process_advantages(REWARDS, ENDS, LENGTHS)


def test_steps_that_one_token_ends_count_together() -> None:
    got = process_advantages([(1.0, 0.0, 0.5)], [(1, 1, 2)], (3,))
    (a, b, c) = group_relative((1.0, 0.0, 0.5))
    assert got[0] == pytest.approx([a + b + c, a + b + c, c], abs=1e-12)


def test_settings_add_the_outcome_and_cut_at_the_cap() -> None:
    scores = (1.0, 0.0, 0.0)
    steps = process_advantages(REWARDS, ENDS, LENGTHS)
    outcome = group_relative(scores)
    both = ProcessRelative(outcome=0.5).tokens(scores, REWARDS, ENDS, LENGTHS)
    for tokens, process, whole in zip(both, steps, outcome, strict=True):
        assert tokens == pytest.approx([p + 0.5 * whole for p in process], rel=1e-12)
    capped = ProcessRelative(cap=0.3).tokens(scores, REWARDS, ENDS, LENGTHS)
    for tokens, process in zip(capped, steps, strict=True):
        assert tokens == [min(max(p, -0.3), 0.3) for p in process]
    assert ProcessRelative(combine="mean").tokens(scores, REWARDS, ENDS, LENGTHS) == process_advantages(
        REWARDS, ENDS, LENGTHS, mean=True
    )


def test_a_score_that_is_missing_matters_only_where_it_is_used() -> None:
    scores = (1.0, None, 0.0)
    alone = ProcessRelative().tokens(scores, REWARDS, ENDS, LENGTHS)
    assert alone == process_advantages(REWARDS, ENDS, LENGTHS)
    both = ProcessRelative(outcome=1.0).tokens(scores, REWARDS, ENDS, LENGTHS)
    assert both[1] is None
    others = process_advantages([REWARDS[0], REWARDS[2]], [ENDS[0], ENDS[2]], (7, 6))
    assert both[0] == pytest.approx([a + group_relative((1.0, 0.0))[0] for a in others[0]], rel=1e-12)


@pytest.mark.parametrize(("name", "value"), [("cap", 0.0), ("outcome", -1.0)])
def test_settings_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must"):
        ProcessRelative(**{name: value})
