"""Token-level credit: the identities of GAE, what whitening does and over what, and the shaped reward."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from strop import dist
from strop.token_credit import (
    GAE,
    ReinforcePP,
    ReinforcePPBaseline,
    explained_variance,
    gae,
    kl_shaped_rewards,
    moments,
    rewards_to_go,
    terminal_reward,
    whiten,
)


def row(seed: int, length: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=length)


LAMBDAS = (0.0, 0.3, 0.95, 1.0)


# GAE.


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_lambda_one_plus_the_value_is_the_monte_carlo_return(gamma: float) -> None:
    rewards, values = row(0), row(1)
    got = gae(rewards, values, gamma=gamma, lam=1.0) + values
    np.testing.assert_allclose(got, rewards_to_go(rewards, gamma=gamma), rtol=1e-12)
    np.testing.assert_allclose(got[0], sum(gamma**t * r for t, r in enumerate(rewards)), rtol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_lambda_zero_is_the_td_error(gamma: float) -> None:
    rewards, values = row(2), row(3)
    want = [rewards[t] + gamma * (values[t + 1] if t < 7 else 0.0) - values[t] for t in range(8)]
    np.testing.assert_allclose(gae(rewards, values, gamma=gamma, lam=0.0), want, rtol=1e-12)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_a_critic_that_knows_the_return_leaves_no_advantage(lam: float) -> None:
    rewards = row(4)
    values = rewards_to_go(rewards, gamma=0.97)
    np.testing.assert_allclose(gae(rewards, values, gamma=0.97, lam=lam), np.zeros(8), atol=1e-14)


def test_with_no_values_and_no_discount_each_token_has_the_terminal_reward() -> None:
    """REINFORCE: the section's cross identity; its gradient is held in tests/objectives/test_ppo.py."""
    rewards = np.array([0.0, 0.0, 0.0, 2.5])
    advantages, returns = GAE(lam=1.0, whiten=False)([rewards], [np.zeros(4)])
    assert advantages[0].tolist() == returns[0].tolist() == [2.5] * 4


def test_returns_are_taken_before_whitening_and_by_their_own_lambda() -> None:
    rewards, values = [row(5), row(6, 3)], [row(7), row(8, 3)]
    plain, returns = GAE(lam=0.9, whiten=False)(rewards, values)
    for a, v, target in zip(plain, values, returns, strict=True):
        np.testing.assert_allclose(target, a + v, rtol=1e-12)
    whitened, same = GAE(lam=0.9)(rewards, values)
    assert [r.tolist() for r in same] == [r.tolist() for r in returns]
    assert whitened[0].tolist() == whiten(plain)[0].tolist()
    _, targets = GAE(lam=0.5, lam_value=1.0)(rewards, values)
    for r, target in zip(rewards, targets, strict=True):
        np.testing.assert_allclose(target, rewards_to_go(r), rtol=1e-12)


def test_one_token() -> None:
    advantages, returns = GAE(whiten=False)([np.array([2.0])], [np.array([0.5])])
    assert advantages[0].tolist() == [1.5] and returns[0].tolist() == [2.0]


# Whitening.


def test_whitened_numbers_have_mean_zero_and_variance_one() -> None:
    rows = [3 + 5 * row(9, 50), row(10, 7), 10 * row(11, 1)]
    together = np.concatenate(whiten(rows))
    assert together.mean() == pytest.approx(0.0, abs=1e-12)
    assert together.var(ddof=1) == pytest.approx(1.0, rel=1e-8)
    mean, variance = np.concatenate(rows).mean(), np.concatenate(rows).var(ddof=1)
    np.testing.assert_allclose(together, (np.concatenate(rows) - mean) / math.sqrt(variance + 1e-8), rtol=1e-12)


def test_whitening_does_not_see_how_tokens_lie_in_rows() -> None:
    numbers = row(12, 20)
    (whole,) = whiten([numbers])
    np.testing.assert_allclose(np.concatenate(whiten([numbers[:3], numbers[3:4], numbers[4:]])), whole, rtol=1e-12)


@pytest.mark.parametrize("rows", [[], [np.array([7.0])], [np.array([7.0]), np.array([])], [np.full(4, 0.3)]])
def test_nothing_to_compare_is_zero_not_nan(rows: Sequence[np.ndarray]) -> None:
    assert [x for r in whiten(rows) for x in r] == pytest.approx([0.0] * sum(map(len, rows)), abs=1e-10)


def test_whitening_is_over_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks whose sums are added up: each gets its part of what one process would."""
    parts = [[row(13, 4), row(14, 2)], [100 + row(15, 5)]]
    whole = whiten([r for part in parts for r in part])
    asked: list[list[list[float]]] = []
    for part in parts:  # the first of the two sums does not depend on the other rank
        calls: list[list[float]] = []
        monkeypatch.setattr(dist, "sum_numbers", lambda v, calls=calls: calls.append(list(v)) or list(v))
        moments(part)
        asked.append(calls)
    first = [sum(column) for column in zip(asked[0][0], asked[1][0], strict=True)]
    mean = first[0] / first[1]
    squares = [sum(float(((r - mean) ** 2).sum()) for part in parts for r in part)]
    got = []
    for part in parts:
        answers = iter([first, squares])
        monkeypatch.setattr(dist, "sum_numbers", lambda _, answers=answers: next(answers))
        got += whiten(part)
    for ours, theirs in zip(got, whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_explained_variance() -> None:
    returns = [row(16), row(17, 3)]
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance([r + 9 for r in returns], returns) == pytest.approx(1.0)
    assert explained_variance([np.zeros(8), np.zeros(3)], returns) == 0.0
    assert explained_variance([-r for r in returns], returns) == pytest.approx(-3.0)
    assert math.isnan(explained_variance([np.array([1.0])], [np.array([2.0])]))


# Rewards.


@pytest.mark.parametrize(
    ("score", "ended", "clip", "penalty", "want"),
    [
        (0.7, True, 5.0, 1.0, 0.7),
        (0.7, False, 5.0, 1.0, -0.3),
        (9.0, True, 5.0, 1.0, 5.0),
        (-9.0, False, 5.0, 1.0, -6.0),  # clipped first: the penalty is always felt
        (9.0, True, None, 1.0, 9.0),
        (0.7, False, None, 0.0, 0.7),
    ],
)
def test_terminal_reward(score: float, ended: bool, clip: float | None, penalty: float, want: float) -> None:
    assert terminal_reward(score, ended=ended, clip=clip, missing_eos_penalty=penalty) == pytest.approx(want)


def test_shaped_rewards_sum_to_the_score_less_beta_times_the_log_ratio() -> None:
    logprobs, ref = row(18), row(19)
    rewards = kl_shaped_rewards(logprobs, ref, 2.0, beta=0.1)
    assert rewards.sum() == pytest.approx(2.0 - 0.1 * (logprobs - ref).sum(), rel=1e-12)
    np.testing.assert_allclose(rewards[:-1], -0.1 * (logprobs - ref)[:-1], rtol=1e-12)
    assert kl_shaped_rewards(logprobs, logprobs, 2.0, beta=0.1).tolist() == [*[0.0] * 7, 2.0]


# REINFORCE++.


def test_reinforce_pp_is_gae_without_a_critic() -> None:
    rewards = [row(20), row(21, 3)]
    advantages, _ = GAE(lam=1.0)(rewards, [np.zeros(8), np.zeros(3)])
    for ours, theirs in zip(ReinforcePP().tokens(rewards), advantages, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert ReinforcePP()([[1.0, None], [0.5]]) == [[1.0, None], [0.5]]


def test_the_baseline_is_the_groups_mean_and_unscorable_ones_have_none() -> None:
    settings = ReinforcePPBaseline()
    assert settings([[1.0, 0.0, None], [2.0, 2.0]]) == [[0.5, -0.5, None], [0.0, 0.0]]
    rows = [np.full(3, 0.5), np.full(1, -0.5), np.zeros(2)]
    together = np.concatenate(settings.tokens(rows))
    assert together.mean() == pytest.approx(0.0, abs=1e-12) and together.var(ddof=1) == pytest.approx(1.0, rel=1e-6)
    assert together[0] - together[4] == pytest.approx(0.5 / np.concatenate(rows).std(ddof=1), rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gamma": 1.1}, r"gamma must be in \[0, 1\], got 1.1"),
        ({"lam": -0.1}, r"lam must be in \[0, 1\], got -0.1"),
        ({"lam_value": 2.0}, r"lam_value must be in \[0, 1\], got 2.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GAE(**settings)
    with pytest.raises(ValueError, match="beta must not be negative, got -1"):
        ReinforcePP(beta=-1)
