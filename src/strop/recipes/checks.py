"""What a recipe must satisfy beyond types: ranges, names, and references between stages.

Works on stages of which some could not be made (null), so that one reading says everything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from strop.recipes.artifacts import named, names_data, own_model
from strop.recipes.monitor import Monitor
from strop.recipes.parts import Found, at_least, sampling_problems, training_problems
from strop.recipes.plain import RECIPE_KEYS
from strop.recipes.settings import Data, Sampling, Stage, Training
from strop.recipes.yaml12 import Path

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
RESERVED = (*RECIPE_KEYS, "stages")
DEVICES = ("auto", "cpu", "cuda")
JUDGES = ("reward", "calibrate", "refresh", "process")
"""Stages whose models score answers: behind them a stage without a model starts from the recipe's, as before them."""


def check(tree: Mapping[str, Any], stages: Sequence[Stage | None]) -> list[tuple[Path, str]]:
    """Everything wrong with a recipe whose values have the right types, as (path, what is wrong).

    Args: tree: the recipe as plain values. stages: those that could be made, null for others.
    """
    found = [*_recipe(tree), *_names(tree)]
    if not stages:
        found.append((("stages",), "no stages; a recipe has at least one"))
    for index, stage in enumerate(stages):
        if stage is not None:
            found += [((("stages", index, *path)), text) for path, text in _stage(stage)]
            found += [((("stages", index, *path)), text) for path, text in _references(tree, stages, index)]
    return found


def _recipe(tree: Mapping[str, Any]) -> Found:
    name = tree.get("name")
    if isinstance(name, str) and not safe(name):
        yield ("name",), f"{name!r} names a folder: use letters, digits, `_`, `-` and `.`, at most 64"
    device = tree.get("device", "auto")
    if _less(tree.get("seed"), 0):
        yield ("seed",), f"must not be negative, got {tree['seed']}"
    if _less(tree.get("threads"), 1):
        yield ("threads",), f"must be at least 1, or null for one a physical core, got {tree['threads']}"
    if isinstance(device, str) and device not in DEVICES:
        yield ("device",), f"expected one of {', '.join(DEVICES)}, got {device}"
    if isinstance(tree.get("model"), str) and tree["model"].startswith("@"):
        yield ("model",), f"{tree['model']}: the recipe's model stands before all stages; name a folder or hub name"
    if tree.get("runs") == "":
        yield ("runs",), "must name a folder"


def safe(name: str) -> bool:
    """Whether a name can be a folder's, here and on other systems, and stays where it is put."""
    return bool(SAFE_NAME.match(name)) and ".." not in name and not name.endswith(".")


def _names(tree: Mapping[str, Any]) -> Found:
    first: dict[str, int] = {}
    stages = tree.get("stages")
    entries = stages if isinstance(stages, list) else []
    for index, stage in enumerate(entries):
        name = stage.get("name", stage.get("kind")) if isinstance(stage, dict) else None
        if not isinstance(name, str):
            continue
        path: Path = ("stages", index, "name")
        if not safe(name):
            yield path, f"{name!r} names a folder: use letters, digits, `_`, `-` and `.`, at most 64"
        if name.lower() in first:
            yield path, f"{name!r} is the name of stages[{first[name.lower()]}] already; names tell stages apart"
        if len(entries) > 1 and name in RESERVED:
            yield path, f"{name!r} is a setting of the whole recipe, so overrides could not name the stage"
        first.setdefault(name.lower(), index)


def _stage(stage: Stage) -> Found:
    yield from stage.problems()
    for field in fields(stage):
        value = getattr(stage, field.name)
        if isinstance(value, Training):
            yield from _below(field.name, training_problems(value))
        if isinstance(value, Sampling):
            yield from _below(field.name, sampling_problems(value))
        if isinstance(value, Monitor):
            yield from _below(field.name, value.problems())
    yield from _data(stage)


def _below(key: str, found: Found) -> Found:
    return (((key, *path), text) for path, text in found)


def _data(stage: Stage) -> Found:
    for key in stage.datasets:
        data: Data | None = getattr(stage, key)
        if data is None:
            if key == "data":
                yield ("data",), "is missing; name a file, as data=train.jsonl"
            continue
        yield from _below(key, at_least(data, ("limit",), 1))
        if data.path in ("", ()) or (not isinstance(data.path, str) and "" in data.path):
            yield (key, "path"), "is empty; name a file, as data=train.jsonl"


def _references(tree: Mapping[str, Any], stages: Sequence[Stage | None], index: int) -> Found:
    stage = stages[index]
    assert stage is not None
    earlier = {s.name: s for s in stages[:index] if s is not None}
    unknown = None in stages[:index]
    models = [name for name, s in earlier.items() if "model" in s.leaves and s.kind not in JUDGES]
    if "model" in stage.models and own_model(stage) is None and (models or not isinstance(tree.get("model"), str)):
        hint = f"model: @{models[-1]}" if models else "model=PATH, a model folder or a hub name"
        if models or not unknown:
            yield ("model",), f"is missing; name it, as {hint}"
    for path, value in named(stage):
        name = value.removeprefix("@")
        need = "samples" if names_data(stage, path) else "model"
        if not value.startswith("@"):
            continue
        if name in earlier and need not in earlier[name].leaves:
            yield path, f"{value}: a stage of kind {earlier[name].kind} leaves no {need}"
        elif name not in earlier and not unknown:
            yield path, f"{value}: no earlier stage of that name; " + _known(earlier)


def _known(earlier: Collection[str]) -> str:
    return "earlier stages: " + ", ".join(earlier) if earlier else "this is the first stage"


def _less(value: Any, least: int) -> bool:
    return isinstance(value, int) and value < least
