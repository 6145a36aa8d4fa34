"""The parts of the math verifier: reading, bounds of size, units, values at points."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest

from strop.rewards.math.box import MAX_DIGITS, boxed, refusal_of_size
from strop.rewards.math.nodes import Node, number, plain, show, spread
from strop.rewards.math.numeric import Undefined, equal
from strop.rewards.math.read import read
from strop.rewards.math.same import region
from strop.rewards.math.tokens import Unread, key, tokens
from strop.rewards.math.units import unit


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        (r"\dfrac12", ["div", "1", "2"]),
        (r"\frac1{23}", ["div", "1", "23"]),
        (r"1\frac12", "3/2"),
        ("2 1/3", "7/3"),
        (r"2\frac{x}{3}", ["mul", "2", ["div", "x", "3"]]),
        (r"0.1\overline{6}", "1/6"),
        ("1,234,567.5", "2469135/2"),
        (r"1{,}000\,000", "1000000"),
        ("2.5e-3", "1/400"),
        ("-x^2", ["neg", ["pow", "x", "2"]]),
        (r"\sin^2 2x", ["pow", ["call", "sin", ["mul", "2", "x"]], "2"]),
        (r"\sin^{-1}x", ["call", "arcsin", "x"]),
        (r"\log_2 8", ["call", "log", "8", "2"]),
        (r"\sqrt[3]{x}", ["root", "x", "3"]),
        ("[0,1)", ["tuple", "[)", "0", "1"]),
        ("]0,1[", ["tuple", "()", "0", "1"]),
        (r"\{1,2\}", ["set", "1", "2"]),
        ("1, 2 or 3", ["list", "or", "1", "2", "3"]),
        ("-1<x\\le 2", ["rel", "< <=", ["neg", "1"], "x", "2"]),
        (r"\{x \mid x>3\}", ["rel", ">", "x", "3"]),
        (r"5\text{ cm}^2", ["unit", "cm^2", "5"]),
        (r"\$2.5\text{ million}", ["unit", "dollar", "2500000"]),
        (r"\text{No solution.}", "no solution"),
        ("x_{12}'", "x_12'"),
    ],
)
def test_reading(text: str, tree: object) -> None:
    assert show(read(text)) == tree


@pytest.mark.parametrize(
    "text", ["", "4 2", "x2", "(1", "1)", "[42]", "{1", "1+", "=", "x=", r"\foo", "a^b^c", "1,,2}", r"\frac{1}", "1__2"]
)
def test_what_is_not_understood_to_the_last_sign_is_not_read(text: str) -> None:
    with pytest.raises(Unread):
        read(text)


def test_the_key_forgets_layout_and_nothing_else() -> None:
    same = [
        r"\left( \dfrac{1}{2} ,\; x \right)",
        r"(\frac{1}{2},x)",
        r"$(\tfrac{1}{2}, x)$.",
        r"\(\bigl(\frac{1}{2},x\bigr)\)",
    ]
    assert len({key(tokens(text)) for text in same}) == 1
    assert key(tokens("(1,x)")) != key(tokens("[1,x)"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-3/4", Fraction(-3, 4)),
        ("10^{-2}", Fraction(1, 100)),
        (r"3\times10^{2}", 300),
        ("2/4", Fraction(1, 2)),
    ],
)
def test_plain_numbers(text: str, value: Fraction) -> None:
    found = plain(read(text))
    assert found is not None and found.rational == value


@pytest.mark.parametrize(
    "text", [r"6\cdot7", "84/2", "2^3", r"\sqrt4", "5!", "1+1", "--3", "10^{9999}", "1/0", r"3\%\%"]
)
def test_computations_are_no_plain_numbers(text: str) -> None:
    with contextlib.suppress(Unread):
        assert plain(read(text)) is None


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("10^{4000}", False), ("10^{6000}", True), ("x^{2024}", False), (r"2^{n(n+1)/2}", False),
        (r"e^{i\pi/3}", False), ("9^{9^9}", True), ("(10^{10})!", True), ("100!", False),
        ("5000!", True), (r"\exp(\exp(9))", True),
        (r"2^{2^{2^{2}}}", False), (r"2^{2^{2^{2^{2}}}}", True), (r"\binom{100}{50}", False), (r"\sinh(99999)", True),
    ],
)  # fmt: skip
def test_sizes(text: str, refused: bool) -> None:
    assert bool(refusal_of_size(read(text))) == refused
    assert MAX_DIGITS == 5000


def test_units_have_dimensions_and_sizes() -> None:
    assert unit("km/h") == ((("length", 1), ("time", -1)), Fraction(1000, 3600))
    assert unit("km per hour") == unit("km/h") and unit("square cm") == unit("cm^2")
    assert unit("m s^-1") == unit("m/s")
    assert unit("apples") == ((("apple", 1),), 1)
    for words in ("or so", "is wrong", "million", "not", "halves", "2"):
        assert unit(words) is None


def test_plus_or_minus_is_two_answers() -> None:
    assert [show(n) for n in spread(read(r"1\pm\sqrt2"))] == [
        ["add", "1", ["root", "2", "2"]],
        ["add", "1", ["neg", ["root", "2", "2"]]],
    ]
    assert spread(number(3)) == [number(3)]


def test_regions_of_the_line() -> None:
    def shown(text: str) -> object:
        pieces = region(read(text))
        return None if pieces is None else [(show(a), left + right, show(b)) for a, left, right, b in pieces]

    assert shown("1<x\\le2") == [("1", "(]", "2")]
    assert shown("3>x") == [(["neg", "oo"], "()", "3")]
    assert shown(r"x\ne0") == [(["neg", "oo"], "()", "0"), ("0", "()", "oo")]
    assert shown("x>3 and x<5") == [("3", "()", "5")]
    assert shown("x+y<3") is None


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        (r"\sqrt{5+2\sqrt6}", r"\sqrt2+\sqrt3", True),
        (r"\pi", "3." + "14159265358979323846264338327950288419716939937510582097494459230781640628620899", False),
        (r"\ln(640320^3+744)", r"\pi\sqrt{163}", False),
        ("x^2", "x^2+10^{-60}", False),
        (r"\sqrt{x^2}", "x", False),
        (r"2\ln x", r"\ln x^2", True),
        (r"\ln|x|", r"\ln x", False),
        ("x^2+C", "x^2+c", True),
        (r"10^{-90}\pi", r"2\cdot10^{-90}\pi", False),
        (r"\infty", r"-\infty", False),
    ],
)
def test_values(gold: str, answer: str, same: bool) -> None:
    assert equal(read(gold), read(answer)) == same


def test_proportions_keep_the_direction_of_an_inequality() -> None:
    def ratio(text: str, sign: str) -> Node:
        return Node("ratio", (read(text),), sign)

    assert equal(ratio("x+y", "="), ratio("-2x-2y", "="))
    assert not equal(ratio("x+y", "<"), ratio("-2x-2y", "<"))
    assert equal(ratio("x+y", "<"), ratio("2x+2y", "<"))
    assert not equal(ratio("x+y", "="), ratio("x+2y", "="))


def test_what_has_no_value_is_undefined() -> None:
    with pytest.raises(Undefined):
        equal(read(r"\infty-\infty"), read("1"))


def test_boxes_of_a_long_text_are_found_in_one_pass() -> None:
    assert boxed("x" * 200_000 + r"\boxed{\frac{1}{\{2\}}}" + "}" * 200_000) == (r"\frac{1}{\{2\}}", "")
