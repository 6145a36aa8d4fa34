from __future__ import annotations

from strop.recipes.words import brief, clean, duration, number


def test_times_and_texts() -> None:
    assert [duration(s) for s in (42, 200, 7500)] == ["42 s", "3 min 20 s", "2 h 05 min"]
    assert clean("a\nb\x1b[0m" + "x" * 500, 10) == "a b [0m..."
    assert number(0.123456) == "0.1235"


def test_figures_of_a_table_are_short_and_halves_go_up() -> None:
    assert [brief(v) for v in (0.0, 1, 0.345, -0.485, 0.0012, 23.456, 12345.6, 2.5e7)] == [
        *("0.00", "1.00", "0.35", "-0.49", "0.0012", "23.5", "12346", "2.5e+07")
    ]
    assert brief(None) == "-" and brief(float("nan")) == "nan"
