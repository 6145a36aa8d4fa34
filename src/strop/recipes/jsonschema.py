"""The JSON schema of recipe files, for editors (yaml-language-server) and other programs.

Says what `config` reads: recipes flat or with stages, shorthands included, each setting with its
default and the words of its docstring.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING
from typing import Any

from strop.recipes.config import leaf_schema
from strop.recipes.evaluations import FIXED
from strop.recipes.plain import RECIPE_KEYS, plain
from strop.recipes.settings import EvaluateStage, Repeat, Written
from strop.recipes.shape import Shape, default_of, fields_of, tag_of


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a recipe file."""
    definitions: dict[str, Any] = {}
    whole = _class(Written, definitions)
    whole["properties"]["evaluation"] = _evaluation(definitions, whole["properties"]["evaluation"]["description"])
    stage = fields_of(Written)["stages"].item
    assert stage is not None
    shared = {key: whole["properties"][key] for key in RECIPE_KEYS}
    flat = []
    for cls in [cls for cls in stage.classes if cls is not Repeat]:
        one = _class(cls, definitions)
        properties = {**one["properties"], **shared}
        flat.append({**one, "properties": properties, "required": ["kind"]})
    whole["required"] = ["stages"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "strop recipe",
        "oneOf": [whole, *flat],
        "$defs": definitions,
    }


def _evaluation(definitions: dict[str, Any], words: str) -> dict[str, Any]:
    """An evaluate stage without what follows from the stage that is evaluated."""
    stage = _class(EvaluateStage, definitions)
    properties = {key: value for key, value in stage["properties"].items() if key not in FIXED}
    mapping = {**stage, "properties": properties}
    paths = [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
    return {"anyOf": [mapping, *paths], "description": words}


def _shape(shape: Shape, definitions: dict[str, Any]) -> dict[str, Any]:
    if shape.item is not None:
        inner = _shape(shape.item, definitions)
        options: list[dict[str, Any]] = [{"type": "array", "items": inner}, inner]
    elif shape.entry is not None:
        options = [{"type": "object", "additionalProperties": _shape(shape.entry, definitions)}]
    elif shape.classes:
        options = [_reference(cls, definitions) for cls in shape.classes] + _shorthands(shape)
    else:
        return leaf_schema(shape.annotation)
    if shape.nullable:
        options.append({"type": "null"})
    return options[0] if len(options) == 1 else {"anyOf": options}


def _shorthands(shape: Shape) -> list[dict[str, Any]]:
    tags = list(shape.tags)
    if tags:
        return [{"type": "string", **({} if "custom" in tags else {"enum": tags})}]
    if any("path" in fields_of(cls) for cls in shape.classes):
        return [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
    return []


def _reference(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    if cls.__name__ not in definitions:
        definitions[cls.__name__] = {}
        definitions[cls.__name__] = _class(cls, definitions)
    return {"$ref": f"#/$defs/{cls.__name__}"}


def _class(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    words, tag = _attributes(cls), tag_of(cls)
    properties, required = {}, []
    for key, shape in fields_of(cls).items():
        default = default_of(cls, key)
        entry = {"const": tag[1]} if tag and tag[0] == key else dict(_shape(shape, definitions))
        if key in words:
            entry["description"] = words[key]
        if default is MISSING:
            required.append(key)
        elif not (tag and tag[0] == key):
            entry["default"] = plain(default)
        properties[key] = entry
    out = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**out, "description": (inspect.getdoc(cls) or "").partition("\n")[0], "required": required}


def _attributes(cls: type) -> dict[str, str]:
    """What a docstring's `Attributes:` says of each name; several names may share an entry."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        text = (inspect.cleandoc(base.__doc__ or "")).partition("Attributes:")[2]
        for names, words in re.findall(r"(?m)^\s*((?:\w+, )*\w+): (.+(?:\n {8,}.+)*)", text):
            found |= dict.fromkeys(names.split(", "), " ".join(words.split()))
    return found
