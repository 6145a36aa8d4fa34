"""Where recipe texts come from: the package, a YAML file, or a run directory."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.recipes.yaml12 import MAX_BYTES

BUILTIN = Path(__file__).with_name("builtin")
"""Where the recipes that come with the package stand; `importlib.resources` takes 50 ms to import."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it was written, the path in the recipe, and what and how to mend it."""

    where: str
    path: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.text) if part)


class RecipeError(ValueError):
    """A recipe cannot be used; `problems` has everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


def builtin_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(file.stem for file in BUILTIN.glob("*.yaml"))


def source_of(ref: str | Path) -> tuple[str, str]:
    """A recipe's name for messages, and its YAML text.

    Raises: RecipeError if nothing is there, or it is no text.
    """
    names = builtin_names()
    if str(ref) in names:
        return f"{ref}.yaml", (BUILTIN / f"{ref}.yaml").read_text("utf-8")
    path = Path(ref)
    if path.is_dir():
        if not (path / "config.yaml").is_file():
            raise unreadable(str(ref), "a folder without config.yaml is no run directory; `strop ls` lists runs")
        path = path / "config.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(str(ref), names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise unreadable(str(ref), f"no such recipe, file or run directory; {hint}built in: {', '.join(names)}")
    if path.stat().st_size > MAX_BYTES:
        raise unreadable(str(ref), f"larger than {MAX_BYTES:,} bytes; a recipe is small")
    try:
        return str(path), path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise unreadable(str(ref), f"not UTF-8 text ({error.reason} at byte {error.start})") from None


def unreadable(ref: str, text: str) -> RecipeError:
    """The error that says why a file is no recipe."""
    return RecipeError([Problem(ref, "", text)])
