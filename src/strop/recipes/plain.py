"""Settings as plain values: for YAML, for JSON, and for saying what differs."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from typing import Any

from strop.recipes.settings import Recipe, Written
from strop.recipes.shape import default_of, fields_of, tag_of

RECIPE_KEYS = tuple(key for key in fields_of(Written) if key != "stages")
"""Settings of the whole recipe; in a flat one all other keys are its stage's."""


def plain(value: Any) -> Any:
    """Settings, tuples and mappings as dicts and lists, all the way down."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def to_plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values; flat where it has one stage that flat YAML can say."""
    out = plain(recipe)
    assert isinstance(out, dict)
    stages = out.pop("stages")
    if len(stages) == 1 and stages[0]["name"] == recipe.name and stages[0].get("model") is None:
        stage = {k: v for k, v in stages[0].items() if k not in RECIPE_KEYS}
        return {**out, **stage}
    return {**out, "stages": stages}


def changes(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, before, after) of settings that differ; of a new variant, those that are not its defaults."""
    kind = _settings(new)
    if kind is not None and kind is _settings(old):
        for key in fields_of(kind):
            yield from changes(getattr(old, key), getattr(new, key), f"{path}.{key}".removeprefix("."))
    elif kind is not None:
        tag = tag_of(kind)
        if tag is not None:
            yield path, _called(old), tag[1]
        for key in [k for k in fields_of(kind) if tag is None or k != tag[0]]:
            yield from changes(default_of(kind, key), getattr(new, key), f"{path}.{key}")
    elif isinstance(new, tuple) and isinstance(old, tuple) and any(_settings(v) for v in (*old, *new)):
        for index, (before, after) in enumerate(itertools.zip_longest(old, new, fillvalue=MISSING)):
            yield from changes(before, after, f"{path}.{index}")
    elif old != new:
        yield path, _called(old), _called(new)


def _settings(value: object) -> type | None:
    """The settings dataclass that a value is of, if it is of one."""
    return type(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else None


def _called(value: Any) -> Any:
    """A setting's value as a difference names it: a variant by its tag."""
    if value is MISSING:
        return "unset"
    kind = _settings(value)
    tag = tag_of(kind) if kind else None
    return tag[1] if tag else plain(value)


def short(value: Any) -> str:
    """A value on one line of a message, as YAML would say it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value) if not isinstance(value, str) or re.fullmatch(r"[\w@./:+-]+", value) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
