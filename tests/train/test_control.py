"""The KL's weight: how it moves, that it stays where the KL is right, and that it comes back as it was."""

from __future__ import annotations

import json

import pytest

from strop.train.control import AdaptiveKL, FixedKL, KLControl


def test_at_the_target_the_weight_stays() -> None:
    assert AdaptiveKL(target=6.0)(0.2, kl=6.0, num_sequences=512) == 0.2


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.6, 1 + 0.1 * 0.05), (5.4, 1 - 0.1 * 0.05), (600.0, 1.01), (0.0, 0.99), (-3.0, 0.99)],
)
def test_the_weight_moves_by_the_error_at_most_a_fifth(kl: float, factor: float) -> None:
    assert AdaptiveKL(target=6.0, horizon=10_000)(0.2, kl=kl, num_sequences=500) == pytest.approx(0.2 * factor)


def test_a_simulated_policy_is_held_near_the_target() -> None:
    """A policy whose KL is 1 / beta: the weight finds 1 / 6, from either side."""
    for start in (0.02, 2.0):
        control = KLControl(AdaptiveKL(coefficient=start, target=6.0, horizon=1000))
        for _ in range(400):
            control.update(kl=1 / control.coefficient, num_sequences=100)
        assert 1 / control.coefficient == pytest.approx(6.0, rel=0.01)


def test_a_fixed_weight_is_fixed() -> None:
    control = KLControl(FixedKL(coefficient=0.05))
    control.update(kl=1e9, num_sequences=10_000)
    assert control.coefficient == 0.05
    assert control.wants_reference and not KLControl(FixedKL(coefficient=0.0)).wants_reference


def test_the_weight_comes_back_from_a_checkpoint_to_the_bit() -> None:
    control = KLControl(AdaptiveKL())
    for kl in (3.0, 11.0, 7.3):
        control.update(kl=kl, num_sequences=64)
    again = KLControl(AdaptiveKL())
    again.restore(control.tensors(), json.loads(json.dumps(control.plain())))
    assert again.coefficient == control.coefficient != 0.2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (lambda: FixedKL(coefficient=-0.1), "coefficient must not be negative, got -0.1"),
        (lambda: AdaptiveKL(coefficient=0.0), "coefficient must be positive, got 0.0"),
        (lambda: AdaptiveKL(target=0.0), "target must be positive, got 0.0"),
        (lambda: AdaptiveKL(horizon=0), "horizon must be positive, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings()
