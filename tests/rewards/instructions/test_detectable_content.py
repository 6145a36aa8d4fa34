"""Placeholders and postscripts."""

from __future__ import annotations

import time

import pytest

from strop.rewards.instructions.detectable_content import number_placeholders, postscript


@pytest.mark.parametrize(
    "text, ok",
    [
        ("Dear [name], I live in [city of birth].", True),
        ("[a][b]", True),
        ("Dear [name].", False),
        ("Dear [name] and [].", False),
        ("[x] done, [ ] open", False),
        ("See [this](https://a.org) and [that](https://b.org).", False),
        ("Dear (name) in {city}.", False),
        ("Dear [name and [city]", False),
    ],
)
def test_two_placeholders(text: str, ok: bool) -> None:
    assert number_placeholders(text, 2).ok is ok


@pytest.mark.parametrize(
    "text, marker, ok",
    [
        ("Bye.\n\nP.S. Call me.", "P.S.", True),
        ("Bye. P.S. Call me.", "P.S.", True),
        ("Bye.\n\n**P.S.** Call me.", "P.S.", True),
        ("Bye.\n\np. s. call me", "P.S.", True),
        ("Bye.\nP.P.S Call me.", "P.P.S", True),
        ("Bye.\n\nP.S.", "P.S.", False),
        ("P.S. Call me.", "P.S.", False),
        ("Bye.\n\nPS Call me.", "P.S.", False),
        ("Bye.\n\nP.P.S. Call me.", "P.S.", False),
        ("Bye.\n\nP.S. Call me.", "P.P.S", False),
        ("I wrote a P.S. in it.", "P.S.", False),
    ],
)
def test_postscript(text: str, marker: str, ok: bool) -> None:
    assert postscript(text, marker).ok is ok


def test_hostile_texts_are_cheap() -> None:
    began = time.process_time()
    for text in ("[" * 100_000, "[" + "a" * 100_000, "\n" * 100_000, "." * 100_000, " " * 100_000, ". " * 50_000):
        number_placeholders(text, 1)
        postscript(text, "P.S.")
    assert time.process_time() - began < 2
