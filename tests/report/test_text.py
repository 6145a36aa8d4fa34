import math

from strop.report.text import clip, duration, first_line, moment, number, short, signed, visible


def test_numbers_keep_four_digits_and_say_what_they_are_not():
    assert [number(v) for v in (0.71834, 1234.5, 12345678, 5e-7, 0, -3.25)] == [
        "0.7183", "1,234", "12,345,678", "5e-7", "0", "−3.250",
    ]  # fmt: skip
    assert [number(v) for v in (None, math.nan, math.inf, -math.inf)] == ["–", "nan", "∞", "−∞"]
    assert number(0.71834, 3) == "0.718" and number(999.96, 4) == "1,000.0"
    assert (signed(0.5, 3), signed(-0.5, 3), signed(0.0)) == ("+0.500", "−0.500", "0")
    assert (short(0.2), short(0.25), short(1e-6), short(100.0)) == ("0.2", "0.25", "1e-6", "100")


def test_durations_name_two_units():
    assert [duration(s) for s in (0.0, 8.24, 59, 200, 14_700, 183_600, None, math.nan)] == [
        "0.0 s", "8.2 s", "59 s", "3 min 20 s", "4 h 05 min", "2 d 3 h", "–", "–",
    ]  # fmt: skip


def test_moments_are_utc_and_never_raise():
    assert moment(1_772_000_000.0) == "2026-02-25 06:13 UTC"
    assert moment(1e300) == moment(None) == moment(math.nan) == "–"


def test_control_characters_and_lone_surrogates_become_visible():
    assert visible("a\x00b\x1b[31m\x7f\ud800\n\t") == "a␀b␛[31m␡\ufffd\n\t"


def test_clipping_counts_what_is_left_out():
    assert clip("abcdef", 4) == ("abcd", 2) and clip("abc", 4) == ("abc", 0)
    assert first_line("a\n  b  c", 10) == "a b c" and first_line("abcdefgh", 5) == "abcd…"
