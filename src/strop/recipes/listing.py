"""Built-in recipes by name and description, read without their settings; quick enough for `strop ls`."""

from __future__ import annotations

from pathlib import Path

from strop.recipes.sources import BUILTIN, source_of
from strop.recipes.yaml12 import parse


def recipes() -> dict[str, str]:
    """Description of each built-in recipe by name."""
    return {
        f.stem: str(parse(f.read_text("utf-8")).value.get("description", "")) for f in sorted(BUILTIN.glob("*.yaml"))
    }


def text_of(ref: str) -> tuple[str, str]:
    """A file name and the YAML text of a recipe, comments and all."""
    name, text = source_of(ref)
    return (f"{Path(ref).name}.yaml" if Path(name).name == "config.yaml" else name), text
