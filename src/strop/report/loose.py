"""Reading files that may be torn, and JSON that may have any shape; nothing here raises.

What cannot be read is left out, and a sentence about it goes into `problems`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def read_text(path: Path, problems: list[str]) -> str:
    """The file's text; '' with a word in `problems` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        problems.append(f"{path.name} {'is missing' if isinstance(error, FileNotFoundError) else 'cannot be read'}")
        return ""


def read_object(path: Path, problems: list[str]) -> Mapping[str, Any]:
    """The file's JSON object; an empty one with a word in `problems` where it is none."""
    num_before = len(problems)
    text = read_text(path, problems)
    if len(problems) > num_before:
        return {}
    value = _parse(text)
    if not isinstance(value, Mapping):
        problems.append(f"{path.name} is torn or not a JSON object, and was left out")
        return {}
    return value


def read_lines(path: Path, problems: list[str]) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a file, one a line; lines that are none are counted into `problems`."""
    torn: list[int] = []
    name = path.name if path.parent.parent.name != "stages" else f"stages/{path.parent.name}/{path.name}"
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for i, line in enumerate(file, start=1):
                value = _parse(line) if line.strip() else {}
                if not isinstance(value, Mapping):
                    torn.append(i)
                elif value:
                    yield value
    except OSError as error:
        problems.append(f"{name} {'is missing' if isinstance(error, FileNotFoundError) else 'cannot be read'}")
    if torn:
        problems.append(f"{name}: {len(torn)} line(s) torn or not JSON objects, left out; the first is line {torn[0]}")


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def text_of(value: Any) -> str:
    """A scalar as text; '' for nothing, lists and objects."""
    return "" if value is None or isinstance(value, Mapping | list) else str(value)


def number_of(value: Any) -> float | None:
    """The value if it is a number (nan and infinities are: they are what a broken run recorded)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def finite_of(value: Any) -> float | None:
    """The value if it is a number that is neither nan nor infinite."""
    number = number_of(value)
    return number if number is not None and math.isfinite(number) else None


def whole_of(value: Any) -> int | None:
    """The nearest whole number, if the value is a finite number."""
    number = finite_of(value)
    return None if number is None else round(number)


def list_of(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def mapping_of(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def texts_of(value: Any) -> dict[str, str]:
    """An object's entries that are scalars, as texts."""
    return {str(name): text for name, entry in mapping_of(value).items() if (text := text_of(entry))}


def numbers_of(value: Any) -> dict[str, float]:
    """An object's entries that are finite numbers."""
    pairs = ((str(name), finite_of(entry)) for name, entry in mapping_of(value).items())
    return {name: number for name, number in pairs if number is not None}
