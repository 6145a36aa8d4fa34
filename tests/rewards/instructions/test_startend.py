"""The last words, and quotation marks around everything."""

from __future__ import annotations

import pytest

from strop.rewards.instructions.startend import end_checker, quotation


@pytest.mark.parametrize(
    "text, ok",
    [
        ("Well. Hope you agree with me.", True),
        ("Well. hope you\nagree with me.  \n", True),
        ('"Well. Hope you agree with me."', True),
        ("Well. Hope you agree with me", False),
        ("Well. Hope you agree with me. Bye.", False),
        ("Hope you agree with me.\n\nP.S. No.", False),
        ("Well. Hope you agree with me!", False),
    ],
)
def test_end_checker(text: str, ok: bool) -> None:
    assert end_checker(text, "Hope you agree with me.").ok is ok


@pytest.mark.parametrize(
    "text, ok",
    [
        ('"All of it."', True),
        (' "All of it."\n', True),
        ("“All of it.”", True),
        ("'All of it.'", False),
        ('"All of it.', False),
        ('"All" of it.', False),
        ('""', False),
        ('"', False),
    ],
)
def test_quotation(text: str, ok: bool) -> None:
    assert quotation(text).ok is ok
