"""Tables of settings for the pages: of one recipe's stage, and of every class there is."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from strop.recipes.config import resolve
from strop.recipes.settings import Written
from strop.recipes.shape import Shape, default_of, describe, fields_of, tag_of
from tools.docs.meanings import meaning, reached

Row = tuple[str, str, str]
"""A setting, its default, what it does."""

MARKED = re.compile(r"(<!-- settings ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
"""`<!-- settings RECIPE -->`, or `RECIPE.STAGE` where it has several, up to `<!-- end -->`."""

ELSEWHERE = ("kind", "name", "model", "data", "eval_data", "monitor", "adapter", "rewards", "save_every")
"""Settings that the page of all settings explains; a method's own table leaves them out."""

SOME = {
    "training": ("steps", "epochs", "batch_size", "max_length", "eval_fraction"),
    "sampling": ("temperature", "max_completion_length"),
    "optimizer": ("lr",),
    "critic_optimizer": ("lr",),
}
"""Of the blocks that all stages share, what a method's table shows."""

GROUPS = (
    ("The recipe", ("strop.recipes.settings", "strop.recipes.repeat")),
    ("Stages", ("strop.recipes.kinds",)),
    (
        "What stages share",
        ("strop.recipes.parts", "strop.train", "strop.model", "strop.recipes.monitor", "strop.monitor"),
    ),
    ("Objectives", ("strop.objectives",)),
    (
        "Credit and corrections",
        ("strop.credit", "strop.token_credit", "strop.rollout.corrections", "strop.rollout.dynamic"),
    ),
    ("Rewards", ("strop.rewards",)),
    ("Selecting, labelling, searching", ("strop.rollout",)),
    ("Judges", ("strop.judges",)),
    ("Others", ("strop",)),
)
"""Headings of the page of all settings, and whose classes stand below them."""

HEAD = """# All settings

Every setting of every stage, loss, reward and judge: its default, what it may be, what it does. A method's own
page says which of them matter. In a command or a recipe a setting is `key=value`, as `objective.beta=0.3`; where a
block has a tag, its short form is the tag alone, as `objective=ipo`. "needed" has no default.

This page is written by `make docs` from the code's own docstrings.
"""


def filled(page: str) -> str:
    """A page with the tables that it asks for as they are now."""
    return MARKED.sub(lambda found: found[1] + "\n" + recipe_table(found[2]) + "\n" + found[3], page)


def recipe_table(name: str) -> str:
    """The settings of a built-in recipe's stage with the recipe's values.

    Raises: ValueError for a recipe or a stage that there is not.
    """
    recipe, _, wanted = name.partition(".")
    stages = resolve(recipe).stages
    found = [stage for stage in stages if not wanted or stage.name == wanted]
    if len(found) != 1:
        raise ValueError(f"{name}: name one stage of {', '.join(stage.name for stage in stages)}")
    return table(("setting", "default", ""), stage_rows(found[0]))


def stage_rows(stage: Any) -> Iterator[Row]:
    """Rows of a stage: its own settings, those of its loss, and what of the shared blocks it sets."""
    for key in _settings(stage):
        value = getattr(stage, key)
        if key in SOME and value is not None:
            yield from _rows(value, key, SOME[key])
        elif key == "schedule":
            yield key, _schedule(value), meaning(type(stage), key)
        elif key == "objective":
            yield from _rows(value, key)
        elif key not in ELSEWHERE:
            yield from _own(stage, key)


def _settings(value: object) -> Mapping[str, Shape]:
    cls: type = type(value)
    return fields_of(cls)


def _own(stage: Any, key: str) -> Iterator[Row]:
    """A setting of the stage's own; of a block also what stands in it."""
    value, shape = getattr(stage, key), _settings(stage)[key]
    others = [f"`{tag}`" for tag in shape.tags] if len(shape.classes) > 1 else []
    if value is None or others or not shape.classes:
        choices = ": " + ", ".join(others) if others else ""
        yield key, show(value), short(meaning(type(stage), key)) + choices
    if dataclasses.is_dataclass(value):
        yield from _rows(value, key)


def _rows(value: Any, prefix: str, keys: tuple[str, ...] = ()) -> Iterator[Row]:
    for key in keys or _settings(value):
        if key != "name" and key != "weighted":
            yield f"{prefix}.{key}", show(getattr(value, key)), short(meaning(type(value), key))


def short(text: str) -> str:
    """The first sentence, without what stands in brackets: a method's own table has no room for more."""
    bare = re.sub(r"(?<=\w) \((?:[^()]|\([^()]*\))*\)", "", text)
    return re.split(r"(?<=\.) (?=[A-Z])", bare)[0].rstrip(".")


def _schedule(value: Any) -> str:
    rest = [f"{key} {show(getattr(value, key))}" for key in _settings(value) if key != "name"]
    return ", ".join([value.name, *rest])


def settings_page() -> str:
    """The page of all settings."""
    parts = [HEAD]
    left = list(reached(Written))
    for title, modules in GROUPS:
        here = [cls for cls in left if cls.__module__.startswith(modules)]
        left = [cls for cls in left if cls not in here]
        parts += [f"## {title}\n"] * bool(here)
        parts += [class_table(cls) for cls in here]
    return "\n".join(parts)


def class_table(cls: type) -> str:
    """A class's settings: default, what it takes, what it does."""
    tag = tag_of(cls)
    title = f"`{tag[0]}: {tag[1]}`" if tag else f"`{cls.__name__}`"
    title = "At the top" if cls is Written else title
    about = (cls.__doc__ or "").split("\n\n")[0].split("Attributes")[0]
    rows = [
        (key, _default(cls, key), _takes(cls, key), meaning(cls, key))
        for key in fields_of(cls)
        if tag is None or key != tag[0]
    ]
    return f"### {title}\n\n{escaped(' '.join(about.split()))}\n\n" + (
        table(("setting", "default", "takes", ""), rows) if rows else "No settings.\n"
    )


def _default(cls: type, key: str) -> str:
    value = default_of(cls, key)
    return "needed" if value is dataclasses.MISSING else show(value)


def _takes(cls: type, key: str) -> str:
    """What a setting may be: of a block with tags the tags, of a list of such blocks too."""
    shape = fields_of(cls)[key]
    inner = shape.item or shape
    if not inner.tag:
        return describe(shape.annotation).replace("a mapping", "a block")
    tags = ", ".join(f"`{tag}`" for tag in inner.tags)
    return ("a list of " if shape.item else "") + tags + (" or null" if shape.nullable else "")


def table(head: tuple[str, ...], rows: Any) -> str:
    """A Markdown table, the first cell of each row as code."""
    lines = ["| " + " | ".join(head).rstrip() + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join([f"`{row[0]}`", *(_cell(cell) for cell in row[1:])]) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return escaped(text).replace("|", "\\|")


def escaped(text: str) -> str:
    """Text whose tags stay text, outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "\\<") for part in parts)


def show(value: Any) -> str:
    """A value as it is written in YAML."""
    if dataclasses.is_dataclass(value):
        return str(getattr(value, "name", type(value).__name__))
    if isinstance(value, tuple):
        return "[" + ", ".join(show(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        return re.sub(r"e([-+])0+", r"e\1", repr(value))
    return value if isinstance(value, str) and value.isprintable() and value else json.dumps(value)
