"""Units behind a number: which words are one, and how much one is of another."""

from __future__ import annotations

import re
from fractions import Fraction


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LENGTH: dict[str, int | str] = {
    "m": 1, "meter": 1, "metre": 1, "cm": "1/100", "centimeter": "1/100", "centimetre": "1/100", "mm": "1/1000",
    "millimeter": "1/1000", "millimetre": "1/1000", "km": 1000, "kilometer": 1000, "kilometre": 1000,
    "in": "127/5000", "inch": "127/5000", "ft": "381/1250", "foot": "381/1250", "feet": "381/1250",
    "yd": "1143/1250", "yard": "1143/1250", "mi": "201168/125", "mile": "201168/125",
}  # fmt: skip
_TIME: dict[str, int | str] = {
    "s": 1, "sec": 1, "second": 1, "ms": "1/1000", "millisecond": "1/1000", "min": 60, "minute": 60, "h": 3600,
    "hr": 3600, "hour": 3600, "day": 86400, "week": 604800,
}  # fmt: skip
_MASS: dict[str, int | str] = {"g": 1, "gram": 1, "kg": 1000, "kilogram": 1000, "mg": "1/1000", "milligram": "1/1000"}
_VOLUME: dict[str, int | str] = {"l": 1, "liter": 1, "litre": 1, "ml": "1/1000", "milliliter": "1/1000"}
_MONEY: dict[str, int | str] = {"dollar": 1, "usd": 1, "buck": 1, "cent": "1/100", "penny": "1/100", "pennies": "1/100"}
_OTHER = _words(
    "euro pound yen rupee lb oz ounce gallon quart pint mph kph degree radian rad unit piece people person year month"
    " newton joule watt volt amp ampere ohm hz khz hertz n j w v a k pa mol mole kelvin celsius fahrenheit c f"
    " square cubic times ways"
)
_SIZES = {
    **{word: ("length", Fraction(size)) for word, size in _LENGTH.items()},
    **{word: ("time", Fraction(size)) for word, size in _TIME.items()},
    **{word: ("mass", Fraction(size)) for word, size in _MASS.items()},
    **{word: ("volume", Fraction(size)) for word, size in _VOLUME.items()},
    **{word: ("money", Fraction(size)) for word, size in _MONEY.items()},
}
_PLURALS = {"inches": "inch", "pennies": "penny", "people": "person"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_STOP = _words(
    "a an the or and nor not no never none neither either maybe perhaps possibly probably if but then so because since"
    " is are was be equals equal to than from for with without wrong incorrect false untrue right correct true answer"
    " choose choice mod modulo plus minus divided over point half halves third thirds tenth tenths hundredth"
    " hundredths thousandth squared cubed factorial hundred thousand million billion trillion dozen score pi root"
    " approx approximately about around almost nearly roughly at on by also except unless otherwise where when which"
    " that this it any all some unknown undefined infinite infinity less more least most between"
    " greater smaller larger fewer up down two three four five six seven eight nine ten zero"
)
_TERM = re.compile(r"([a-z]+)(?:\^(-?[0-9]+))?")

Unit = tuple[tuple[str, int], ...]
"""Names with exponents, sorted: metres per second is (("length", 1), ("time", -1))."""


def unit(words: str) -> tuple[Unit, Fraction] | None:
    """A unit's dimensions and its size in their basic ones; None if the words are no unit.

    Names that are not known (apples) are dimensions of their own; two or three of them may stand
    together, but none that could change what the number says (not, or, maybe, million, half).
    """
    names: dict[str, int] = {}
    size, sign, power = Fraction(1), 1, 1
    for piece in re.findall(r"[a-z]+(?:\^-?[0-9]+)?|[/*]|\S", re.sub(r"\.|(?<!\^)-", " ", words.casefold())):
        if piece in ("/", "per"):
            sign = -1
            continue
        if piece in _POWERS:
            power = _POWERS[piece]
            continue
        match = _TERM.fullmatch(piece)
        if piece in ("*", "of") or (piece == "in" and names):
            continue
        if match is None or match[1] in _STOP or abs(int(match[2] or 1)) > 9:
            return None
        name, basic = _known(match[1])
        exponent = sign * int(match[2] or power)
        names[name] = names.get(name, 0) + exponent
        size *= basic**exponent
        power = 1
    if power != 1:
        names["unit"] = power
    found = tuple(sorted((n, e) for n, e in names.items() if e))
    return (found, size) if 0 < len(found) <= 4 else None


def _known(word: str) -> tuple[str, Fraction]:
    single = _PLURALS.get(word, word)
    for name in (single, single.removesuffix("s"), single.removesuffix("es")):
        if name in _SIZES:
            return _SIZES[name]
    return single.removesuffix("s") if len(single) > 3 else single, Fraction(1)


def is_measure(found: Unit) -> bool:
    """Whether every name is a unit of measure, or one noun stands alone: what a gold may leave out."""
    known = {kind for kind, _ in _SIZES.values()} | {w.removesuffix("s") if len(w) > 3 else w for w in _OTHER}
    return all(name in known for name, _ in found) or len(found) <= 2
