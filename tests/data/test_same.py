"""When two texts count as the same."""

from __future__ import annotations

from strop.data.same import normalised, normalised_content
from strop.types import Message


def test_white_space_case_and_unicodes_forms_make_no_difference() -> None:
    assert normalised("  Caf\u0065\u0301\n\tＡ ") == normalised("café a")
    assert normalised("a b") != normalised("ab") != normalised("a.b")


def test_turns_are_told_from_each_other_by_role_and_order() -> None:
    said = (Message("user", "A  b"), Message("assistant", "C"))
    assert normalised_content(said) == "user: a b\nassistant: c"
    assert normalised_content(said[::-1]) != normalised_content(said) != normalised_content("A b\nC")
    assert normalised_content("A  b") == "a b"
