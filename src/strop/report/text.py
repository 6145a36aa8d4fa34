"""Numbers, durations and model text as a reader should see them. Plain text out, never HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime


def number(value: float | None, digits: int = 4) -> str:
    """A number to so many significant digits: 1234.5 -> 1,234, 5e-07 -> 5e-7, nothing -> a dash."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e9:
        return _minus(f"{int(value):,}")
    if not 1e-4 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return _minus(f"{mantissa}e{int(exponent)}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return _minus(f"{value:,.{decimals}f}")


def short(value: float | None, digits: int = 4) -> str:
    """As `number`, without trailing zeros: what an axis or a list of scores shows."""
    text = number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def signed(value: float | None, digits: int = 4) -> str:
    """As `number`, with a plus sign where it is above zero."""
    return f"+{number(value, digits)}" if value is not None and value > 0 else number(value, digits)


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units that matter: 8.2 s, 3 min 20 s, 4 h 05 min, 2 d 3 h."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def moment(epoch_s: float | None) -> str:
    """A time in UTC, to the minute, or a dash."""
    try:
        return "–" if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "–"


def visible(text: str) -> str:
    """The text with control characters shown as their pictures; line breaks and tabs stay."""
    return "".join(_picture(c) if ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 else c for c in text)


def _picture(char: str) -> str:
    if char in "\n\t":
        return char
    code = ord(char)
    return "\ufffd" if code > 127 else "\u2421" if code == 127 else chr(0x2400 + code)


def clip(text: str, limit: int) -> tuple[str, int]:
    """At most `limit` characters of a text, and how many are left out."""
    return (text, 0) if len(text) <= limit else (text[:limit], len(text) - limit)


def first_line(text: str, limit: int = 110) -> str:
    """One line that stands for a text in a list."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def decimals_of(values: Sequence[float], digits: int = 3) -> int:
    """Decimals at which the largest of some values has so many digits: what stands in one row reads alike.

    A row of 143 and 8.2 takes none, one of shares (0.01 to 1) as many decimals as digits; at most 6.
    """
    known = [abs(v) for v in values if math.isfinite(v)]
    largest = max(known, default=0.0)
    if largest == 0.0 or 0.01 <= largest <= 1.0:
        return digits
    return min(6, max(0, digits - 1 - math.floor(math.log10(largest))))


def fixed(value: float | None, decimals: int, *, plus: bool = False) -> str:
    """A number to so many decimals; as `number` says it where that would show nothing of it, or too much."""
    if value is None or not math.isfinite(value) or abs(value) >= 1e7:
        return number(value)
    if value != 0 and abs(value) < 0.5 * 10.0**-decimals and decimals >= 6:
        return number(value, 2)
    text = _minus(f"{value:,.{decimals}f}")
    text = text[1:] if text.startswith("−") and not text.strip("−0.,") else text  # no minus zero
    return f"+{text}" if plus and value > 0 and text.strip("0.,") else text
