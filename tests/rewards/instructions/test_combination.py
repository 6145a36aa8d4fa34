"""A repeated request, and two responses."""

from __future__ import annotations

import pytest

from strop.rewards.instructions.combination import repeat_prompt, two_responses


@pytest.mark.parametrize(
    "text, ok",
    [
        ("Write a poem, please.\n\nRoses are red.", True),
        ("  write a  poem,\nplease. Roses.", True),
        ("Write a poem, please.", False),
        ("Write a poem please. Roses.", False),
        ("Sure! Write a poem, please. Roses.", False),
        ("Roses are red. Write a poem, please.", False),
    ],
)
def test_repeat_prompt(text: str, ok: bool) -> None:
    assert repeat_prompt(text, "Write a poem, please.").ok is ok


@pytest.mark.parametrize(
    "text, ok",
    [
        ("One.\n******\nTwo.", True),
        ("******\nOne.\n******\nTwo.\n******", True),
        ("One. ****** Two.", True),
        ("One.\n***\nTwo.", False),
        ("One.\n*******\nTwo.", False),
        ("One.\n******\nOne!", False),
        ("One.\n******\n", False),
        ("One.\n******\nTwo.\n******\nThree.", False),
        ("One.\n******\n******\nTwo.", False),
    ],
)
def test_two_responses(text: str, ok: bool) -> None:
    assert two_responses(text).ok is ok
