"""Numbers, times and texts of models as words that fit on a terminal line."""

from __future__ import annotations

import math
from typing import Any


def clean(text: str, limit: int = 400) -> str:
    """A text fit for one terminal line: no control characters, cut to a length."""
    flat = "".join(c if c.isprintable() else " " for c in text)
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def number(value: Any) -> str:
    """Four significant digits."""
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def brief(value: Any) -> str:
    """A figure for a table: two decimals, fewer of a large number, two digits of a tiny one; "-" for none."""
    if not isinstance(value, int | float):
        return "-"
    value += math.copysign(1e-9, value)  # halves away from zero: 0.345 is not quite that in binary
    if abs(value) <= 1e-9:
        return "0.00"
    if abs(value) < 0.005:
        return f"{value:.2g}"
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
