"""Bullets, highlights, sections, titles, fixed answers, JSON."""

from __future__ import annotations

import time

import pytest

from strop.rewards.instructions.detectable_format import (
    OPTIONS,
    constrained_response,
    json_format,
    multiple_sections,
    number_bullet_lists,
    number_highlighted_sections,
    title,
)


@pytest.mark.parametrize(
    "text, ok",
    [
        ("* a\n* b", True),
        ("Here:\n - a\n  + b", True),
        ("* a\n* b\n* c", False),
        ("* a", False),
        ("*a* and *b*", False),
        ("**a**\n**b**", False),
        ("* a\n---\n* ", False),
        ("• a\n• b", False),
        ("1. a\n2. b", False),
    ],
)
def test_exactly_two_bullets(text: str, ok: bool) -> None:
    assert number_bullet_lists(text, 2).ok is ok


@pytest.mark.parametrize(
    "text, ok",
    [
        ("*one* and *two words*", True),
        ("**one** and *two*", True),
        ("***one*** and *two*", True),
        ("* *one*\n* *two*", True),
        ("*one* and two", False),
        ("* one\n* two\n* three", False),
        ("2 * 3 * 4 * 5", False),
        ("** ** and * *", False),
        ("*one\ntwo* and *three*", False),
    ],
)
def test_two_highlights(text: str, ok: bool) -> None:
    assert number_highlighted_sections(text, 2).ok is ok


@pytest.mark.parametrize(
    "text, ok",
    [
        ("SECTION 1\nOne.\nSECTION 2\nTwo.", True),
        ("**SECTION 1:** One.\n\n## SECTION 2\nTwo.", True),
        ('"SECTION 1: One. SECTION 2: Two."', True),
        ("SECTION I\nOne.\nSECTION II\nTwo.", True),
        ("SECTION 1\nOne.\nSECTION 1\nTwo.", False),
        ("SECTION 1\nSECTION 2\nTwo.", False),
        ("SECTION 1\nAs SECTION 2 will show.", False),
        ("Section 1\nOne.\nSection 2\nTwo.", False),
        ("SECTION one\nOne.\nSECTION two\nTwo.", False),
        ("SECTION I am.\nSECTION I was.\nSECTION 1\nOne.", False),
    ],
)
def test_two_sections(text: str, ok: bool) -> None:
    assert multiple_sections(text, "SECTION", 2).ok is ok


@pytest.mark.parametrize(
    "text, ok",
    [
        ("<<A day out>>\nIt began.", True),
        ("It began. <<end>>", True),
        ("<A day out>", False),
        ("<< >>", False),
        ("<<A day\nout>>", False),
        ("<<A day out>", False),
    ],
)
def test_title(text: str, ok: bool) -> None:
    assert title(text).ok is ok


@pytest.mark.parametrize(
    "text, ok",
    [
        ("My answer is yes.", True),
        ("I thought about it. My answer is maybe.", True),
        ("My answer is yes", False),
        ("my answer is no.", False),
        ("Yes.", False),
        ("My answer is yes. My answer is no.", False),
        (" ".join(OPTIONS), False),
    ],
)
def test_constrained_response(text: str, ok: bool) -> None:
    assert constrained_response(text).ok is ok


@pytest.mark.parametrize(
    "text, ok",
    [
        ('{"a": [1, 2]}', True),
        ('```json\n{"a": 1}\n```', True),
        ("```\n[1]\n```", True),
        ('Here: {"a": 1}', False),
        ('{"a": 1} Done.', False),
        ('{"a": 1,}', False),
        ('{"a": NaN}', False),
        ('{"a": 1, "a": 2}', False),
        ('"all of it is a text"', False),
        ("42", False),
        ("[" * 100_000, False),
    ],
)
def test_json_format(text: str, ok: bool) -> None:
    assert json_format(text).ok is ok


def test_hostile_texts_are_cheap() -> None:
    began = time.process_time()
    for text in ("*" * 100_000, "*a" * 50_000, "<" * 100_000, "```" * 30_000, "." * 100_000, "SECTION" * 20_000):
        for check in (title, constrained_response, json_format):
            check(text)
        number_bullet_lists(text, 2)
        number_highlighted_sections(text, 2)
        multiple_sections(text, "SECTION", 2)
    assert time.process_time() - began < 3
