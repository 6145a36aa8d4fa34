"""Commas."""

from __future__ import annotations

import pytest

from strop.rewards.instructions.punctuation import no_comma


@pytest.mark.parametrize(
    "text, ok",
    [
        ("No comma here; none.", True),
        ("'Single' quotes and a low ‚ quote", True),
        ("One, two", False),
        ("1,000", False),
        ("一，二", False),
        ("واحد، اثنان", False),
    ],
)
def test_no_comma(text: str, ok: bool) -> None:
    assert no_comma(text).ok is ok
