"""Ranges that settings of objectives must keep; each says the value and what would be right."""

from __future__ import annotations


def positive(name: str, value: float) -> None:
    """Raises: ValueError unless value > 0."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")


def not_negative(name: str, value: float) -> None:
    """Raises: ValueError unless value >= 0."""
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, got {value}")


def flip_rate(name: str, value: float) -> None:
    """Raises: ValueError unless 0 <= value < 1/2: with half the labels flipped nothing is left to learn."""
    if not 0 <= value < 0.5:
        raise ValueError(f"{name} must be in [0, 0.5), got {value}")
