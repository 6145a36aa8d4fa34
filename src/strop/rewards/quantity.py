"""Numbers in text, as exact rationals.

Read: 1,234.50 · -3 (also with the Unicode minus) · 3/4 · 1 1/2 · \\frac{3}{4} · 50% · $5 · 1.5e3 ·
1.5\\times10^{3} · 10^6 · 2 million · x = 3 · 42 apples · 12 cm^2. Not read, so never equal to
anything: 6*7 and other arithmetic, 2x, 5!, 40 or 42, lists, sets, intervals, dates, times,
1.000,50. Nothing is evaluated beyond one fraction and a power of ten with a bounded exponent.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 400
"""Longer numerals, and exponents beyond it, are not read: 1e999999 must not fill the memory."""

_MAX_CONTENT = 300
_CURRENCY = r"(?:US\$|[$€£¥₹]|(?:USD|EUR|GBP|Rs\.?)\b)"
_WHOLE = r"(?:(?>[0-9]{1,3}(?:[,\u2009\u202f\u00a0][0-9]{3})++(?![0-9]))|[0-9]++)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]*+)?|\.[0-9]++)"
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_NUMBER = rf"""
    (?P<sign>[-+])? \s{{0,3}} (?:{_CURRENCY}\s{{0,3}})? (?P<sign2>[-+])? \s{{0,3}}
    (?:
        10 \s? \^ \s? \{{? (?P<power>[-+]?[0-9]++) \}}?
      | (?:(?P<whole>[0-9]++) \s{{1,3}})? (?P<over>{_DECIMAL}) \s? / \s? (?P<under>{_DECIMAL})
      | (?P<decimal>{_DECIMAL})
        (?: [eE](?P<exp>[-+]?[0-9]++) | \s?[*x]\s? 10 \s? \^ \s? \{{? (?P<times>[-+]?[0-9]++) \}}? )?
    )
    (?: \s? (?P<percent>%|per\s?cent\b) | \s? (?P<scale>hundred|thousand|million|billion|trillion)\b )?
"""
_FILLER = r"(?:exactly|just|simply|therefore|thus|hence|equal\sto|a\stotal\sof|actually|approximately|about|around)"
_NAME = r"(?P<name>[^\W\d_](?:[^\W\d]|\s){0,40}(?:_\{?\w{1,5}\}?)?)"
_LEAD = rf"[\s,:=≈]{{0,3}} (?:{_FILLER}[\s,:]{{1,3}}){{0,2}} (?:{_NAME}\s?[=≈:])?"
_STRICT = re.compile(rf"{_LEAD}\s{{0,3}}{_NUMBER}(?P<rest>.*)", re.VERBOSE | re.IGNORECASE | re.DOTALL)
_ANYWHERE = re.compile(rf"(?<![\w^.])(?<![0-9],){_NUMBER}", re.VERBOSE | re.IGNORECASE)

_WORD = r"[^\W\d_]+(?:\s?\^\{?-?[0-9]\}?|[²³])?"
_UNIT = re.compile(rf"[\s°'\"(/-]*{_WORD}(?:[\s/'\"°*(),.-]+{_WORD})*[\s)'\"°.]*|[\s°'\"€£¥₹]*\.{{0,3}}\s*")
_FIRST_WORD = re.compile(r"[^\W\d_]+")
_UNIT_LETTERS = frozenset("mshgdlLAVWNJCF")
_ARITHMETIC = frozenset(
    ["squared", "cubed", "factorial", "plus", "minus", "divided", "choose", "mod", "modulo", "point", "half", "halves"]
    + ["thirds", "tenths", "hundredths", "pi", "sqrt", "log", "ln", "exp", "sin", "cos", "tan"]
)
_NO_UNITS = _ARITHMETIC | {"or", "and", "not", "nor", "to", "either", "neither", "maybe", "than", "if", "over"}
_OPERAND_BEFORE = re.compile(r"(?:[*+^÷×<>≤≥≠\\/±]|!=)\s*$|[0-9)]\s*[-–:]\s*$|[a-z]-$", re.IGNORECASE)
_OPERAND_AFTER = re.compile(r"[ ]?[*+^÷×=<>≤≥≠±]|[ ]?[-/–:][ ]?[0-9(]|[\\!,]\S|[.][0-9]")
_NEGATED = re.compile(r"(?:not|\bnever|n't|n’t)(?:\s(?:be|been|equal|equal\sto|exactly|is))?\s*$", re.IGNORECASE)
_HEDGED = re.compile(r"\b(?:or|either|neither|not|never|between)\b|n't|n’t", re.IGNORECASE)
_WORKED_OUT = re.compile(r"[0-9)]\s?[-+*/x]\s?[($]{0,2}[0-9]")
_NUMERAL = re.compile(r"[0-9]++(?:[.,/][0-9]++)*")
_LIST_GAP = re.compile(
    r"[^.\n]*\b(?:or|maybe|perhaps|possibly|out\sof)\b[^.\n]*"
    r"|\s*(?:[,;|/&–-]|and|to|and/or|,\s?and)\s*[$€£]?\s*|[ $€£]*",
    re.IGNORECASE,
)

_CHARS = str.maketrans({"−": "-", "﹣": "-", "－": "-", "⁄": "/", "∕": "/", "×": "*", "·": "*", "⋅": "*", "％": "%"})
_FRACTION = re.compile(r"\\[dtc]?frac\s?(?:\{\s?(-?[0-9.,]+)\s?\}\s?\{\s?([0-9.,]+)\s?\}|([0-9])\s?([0-9]))")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s?\{([^{}]{0,200})\}")
_LATEX = (
    (re.compile(r"\{,\}|,\\!"), ","),
    (re.compile(r"\\\\"), " "),
    (re.compile(r"(?<=[0-9])\\[,;:](?=[0-9])"), "\u2009"),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "*"),
    (re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\degree"), "°"),
    (re.compile(r"\\(?:approx|simeq)(?![a-zA-Z])"), "≈"),
    (re.compile(r"\\(?:left|right|displaystyle|quad)(?![a-zA-Z])|\\[,;:! ()\[\]]|~"), " "),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$"), "$"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r"\s*\n\s*"), "\n"),
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as it was written: 50% has value 50 and `percent`."""

    value: Fraction
    percent: bool
    text: str


def same_quantity(a: Quantity, b: Quantity, tolerance: float = 0.0) -> bool:
    """Whether two numbers are equal, exactly or within tolerance * |b|.

    A percent sign on one side only: 50% equals 1/2, and equals 50 (a question that asks for
    percent), but 0.5% does not equal 0.5: below 1 the sign is no mere unit.
    """
    if a.percent == b.percent:
        return _close(a.value, b.value, tolerance)
    hundredth = _close(_rational(a), _rational(b), tolerance)
    return hundredth or (abs(b.value) >= 1 and _close(a.value, b.value, tolerance))


def _close(a: Fraction, b: Fraction, tolerance: float) -> bool:
    return a == b or (tolerance > 0 and abs(a - b) <= Fraction(tolerance) * abs(b))


def _rational(quantity: Quantity) -> Fraction:
    return quantity.value / 100 if quantity.percent else quantity.value


def parse_number(text: str, *, exclaim: bool = False) -> Quantity | None:
    """The number that the whole text is, with units allowed behind it and `x =` before it, or None.

    Args: exclaim: a "!" at the end is an exclamation mark, not a factorial.
    """
    if len(text) > _MAX_CONTENT:
        return None
    text = _unwrapped(plain(text).replace("$", " ").strip())
    if exclaim:
        text = text.rstrip("! ")
    match = _STRICT.fullmatch(text)
    if match is None or not _is_unit(match["rest"]) or _NO_UNITS & set((match["name"] or "").casefold().split()):
        return None
    return _quantity(match)


def last_number(text: str) -> Quantity | None:
    """The last number of a running text, or None if there is none, or it is part of something else.

    Something else: a list of candidates ("3 or 4"), arithmetic that was not carried out, a range,
    a date, a name (x2, CO2, v1.5), a negation.
    """
    text = plain(text)
    previous, last = None, None
    for match in _ANYWHERE.finditer(text):
        previous, last = last, match
    if last is None:
        return None
    before, after = text[: last.start()], text[last.end() :]
    if last["sign"] and re.search(r"[0-9)]\s?$", before):
        return None  # a minus between two operands
    if last["sign"] and re.match(r"[-+]\s", last[0]):  # "the total - 42", or a list's bullet: a dash
        last = _ANYWHERE.match(text, last.start() + 2) or last
    gap = text[previous.end() : last.start()] if previous else ""
    operand = _OPERAND_BEFORE.search(before[-8:]) or _OPERAND_AFTER.match(after)
    listed = previous is not None and len(gap) <= 80 and _LIST_GAP.fullmatch(gap)
    next_word = re.match(r"\s?([^\W\d_]*)", after)
    arithmetic = next_word is not None and next_word[1].casefold() in _ARITHMETIC
    if operand or listed or arithmetic or _NEGATED.search(before[-24:]) or not _is_unit(_glued(after)):
        return None
    return _quantity(last)


def only_number(text: str) -> Quantity | None:
    """The one number of a sentence ("She sold 72 clips", "48 + 24 = 72"), or None for several or a hedge."""
    text = plain(text)
    if _HEDGED.search(text):
        return None
    left, equals, right = text.rpartition("=")
    if equals and _WORKED_OUT.search(left):
        return parse_number(right)
    return None if len(_NUMERAL.findall(text)) > 1 else last_number(text)


def plain(text: str) -> str:
    """Digits of any script as 0-9, one minus sign, vulgar fractions spelt out, LaTeX for numbers taken off."""
    if not text.isascii():
        text = "".join(map(_ascii_digit, text)).translate(_CHARS)
    for _ in range(2):  # \text{\textbf{...}}
        text = _TEXT.sub(r" \1 ", text)
    for pattern, new in _LATEX:
        text = pattern.sub(new, text)
    return _FRACTION.sub(_slashed, text)


def _slashed(match: re.Match[str]) -> str:
    mixed = match.string[: match.start()][-1:].isdigit()  # 1\\frac12 is one and a half
    return f"{' ' if mixed else ''}{match[1] or match[3]}/{match[2] or match[4]} "


def _ascii_digit(char: str) -> str:
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    parts = unicodedata.decomposition(char).split() if char in _VULGAR else []
    return f" {''.join(chr(int(code, 16)) for code in parts[1:])} " if parts else char


_VULGAR = frozenset("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒")


def _unwrapped(text: str) -> str:
    """The text without brackets around all of it."""
    while len(text) > 1 and (text[0], text[-1]) in (("(", ")"), ("{", "}")) and not set(text[1:-1]) & set("(){}"):
        text = text[1:-1].strip()
    return text.strip("`\"'").strip()


def _glued(after: str) -> str:
    """The letters that stand directly behind a number, without a space."""
    match = re.match(r"[^\W\d_]*", after)
    return match[0] if match else ""


def _is_unit(rest: str) -> bool:
    """Whether what follows a number leaves its value alone: nothing, or words that are units or nouns."""
    if not _UNIT.fullmatch(rest):
        return False
    words = _FIRST_WORD.findall(rest)
    first_is_variable = bool(words) and len(words[0]) == 1 and words[0] not in _UNIT_LETTERS
    return not first_is_variable and not _NO_UNITS & {w.casefold() for w in words}


def _quantity(match: re.Match[str]) -> Quantity | None:
    if sum(c.isdigit() for c in match[0]) > MAX_DIGITS or (match["sign"] and match["sign2"]):
        return None
    value = _magnitude(match)
    if value is None:
        return None
    if match["scale"]:
        value *= 10 ** _SCALES[match["scale"].casefold()]
    sign = match["sign"] or match["sign2"]
    return Quantity(-value if sign == "-" else value, match["percent"] is not None, match[0].strip())


def _magnitude(match: re.Match[str]) -> Fraction | None:
    exponent = int(match["power"] or match["exp"] or match["times"] or 0)
    if abs(exponent) > MAX_DIGITS:
        return None
    scale = Fraction(10) ** exponent
    if match["power"]:
        return scale
    if match["decimal"]:
        return _fraction(match["decimal"]) * scale
    over, under = _fraction(match["over"]), _fraction(match["under"])
    if under == 0 or (match["whole"] and over >= under):
        return None
    return int(match["whole"] or 0) + over / under


def _fraction(numeral: str) -> Fraction:
    return Fraction(re.sub(r"[^0-9.]", "", numeral).removesuffix("."))
