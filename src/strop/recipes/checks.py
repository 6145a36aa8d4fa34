"""What a recipe must satisfy beyond types: ranges, names, and references between stages.

Works on stages of which some could not be made (null), so that one reading says everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from strop.recipes.artifacts import named, names_data, own_model, paths_of, sources_of
from strop.recipes.evaluations import START
from strop.recipes.expand import OWN
from strop.recipes.layers import stages_of, words
from strop.recipes.leaving import stand_ins
from strop.recipes.monitor import Monitor
from strop.recipes.parts import Found, at_least, sampling_problems, training_problems
from strop.recipes.plain import RECIPE_KEYS
from strop.recipes.settings import BestStage, Data, Sampling, Stage, Training
from strop.recipes.yaml12 import Path

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
RESERVED = (*RECIPE_KEYS, "stages")
DEVICES = ("auto", "cpu", "cuda")
JUDGES = ("reward", "calibrate", "refresh", "process")
"""Stages whose models score answers: behind them a stage without a model starts from the recipe's, as before them."""


def check(
    tree: Mapping[str, Any], stages: Sequence[Stage | None], written: Callable[[Path], Path]
) -> list[tuple[Path, str]]:
    """Everything wrong with a recipe whose values have the right types, as (path where it was written, what is wrong).

    Args:
        tree: the recipe as it was written, as plain values.
        stages: those it was expanded to, null for what could not be made.
        written: the path in `tree` of one in the expanded recipe.
    """
    found = [*_recipe(tree), *_names(tree)]
    if not stages and not tree.get("stages"):
        found.append((("stages",), "no stages; a recipe has at least one"))
    for index, stage in enumerate(stages):
        if stage is not None:
            told = [*_made_name(tree, stages, index), *_stage(stage), *_references(tree, stages, index)]
            name = _written_name(tree, written(("stages", index)))
            found += [(written(("stages", index, *path)), _addressed(text, stage, name)) for path, text in told]
    return found


def _written_name(tree: Mapping[str, Any], path: Path) -> str:
    """What overrides call the stage that was written at a path; empty where it is the only one."""
    entries = dict(stages_of(tree))
    if path == ("evaluation",):
        return "evaluation"
    entry = entries.get(path)
    return str(entry.get("name", entry.get("kind"))) if isinstance(entry, Mapping) and len(entries) > 1 else ""


def _addressed(text: str, stage: Stage, name: str) -> str:
    """A text whose settings of the stage, as `data=`, are called what overrides call them, as `sft.data=`."""
    own = "|".join(field.name for field in fields(stage) if field.name not in RESERVED)
    return re.sub(rf"(?<![\w.])(?=(?:{own})[\w.]*=)", f"{name}.", text) if name else text


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
    first: dict[str, Path] = {}
    entries = list(stages_of(tree))
    for place, stage in entries:
        name = stage.get("name", stage.get("kind")) if isinstance(stage, dict) else None
        if not isinstance(name, str):
            continue
        path: Path = (*place, "name")
        if not safe(name):
            yield path, f"{name!r} names a folder: use letters, digits, `_`, `-` and `.`, at most 64"
        if name.lower() in first:
            other = words(first[name.lower()])
            yield path, f"{name!r} is the name of {other} already; names tell stages apart"
        if len(entries) > 1 and name in RESERVED:
            yield path, f"{name!r} is a setting of the whole recipe, so overrides could not name the stage"
        first.setdefault(name.lower(), place)


def _made_name(tree: Mapping[str, Any], stages: Sequence[Stage | None], index: int) -> Found:
    """A name that a round or an evaluation was given, and that another stage has."""
    stage = stages[index]
    assert stage is not None
    given = _given(tree)
    others = [s.name.lower() for s in stages[:index] if s is not None]
    if stage.name.lower() in others and given.count(stage.name.lower()) < 2:
        yield ("name",), f"two stages would be called {stage.name!r}; give the one that is written so another name"
    if stage.name.lower() not in given and not safe(stage.name):
        yield ("name",), f"{stage.name!r} would name a folder; give the stage a shorter name"


def _given(tree: Mapping[str, Any]) -> list[str]:
    """The names of stages as they are written."""
    return [str(entry.get("name", "")).lower() for _, entry in stages_of(tree) if isinstance(entry, dict)]


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
            if key == "data" and getattr(stage, "tasks", None) is None:
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
    follows = stage.name == START and START not in _given(tree)  # has the model of a stage that says so itself
    lacks = "model" in stage.models and own_model(stage) is None and not follows
    if lacks and (models or not isinstance(tree.get("model"), str)):
        hint = f"model: @{models[-1]}" if models else "model=PATH, a model folder or a hub name"
        if models or not unknown:
            yield ("model",), f"is missing; name it, as {hint}"
    for path, value in named(stage):
        name = value.removeprefix("@")
        need = "samples" if names_data(stage, path) else "model"
        if not value.startswith("@"):
            continue
        if value == OWN:
            yield path, f"{value}: the recipe has no model; name it, as model=PATH, a model folder or a hub name"
        elif name in earlier and need not in earlier[name].leaves:
            yield path, f"{value}: a stage of kind {earlier[name].kind} leaves no {need}"
        elif name in earlier and path[0] == "among" and earlier[name].kind != "evaluate":
            yield path, f"{value}: a stage of kind {earlier[name].kind}; evaluations are compared"
        elif name not in earlier and not unknown:
            yield path, f"{value}: no earlier stage of that name; " + _known(earlier)
    yield from _skips(stages, index)


def _skips(stages: Sequence[Stage | None], index: int) -> Found:
    """Stages to skip that are not to come, and data that a stage could be left without."""
    stage = stages[index]
    assert stage is not None
    later = [s.name for s in stages[index + 1 :] if s is not None]
    if isinstance(stage, BestStage):
        for place, name in [(i, n) for i, n in enumerate(stage.skips) if n not in later]:
            yield ("skips", place), f"{name}: no later stage of that name"
    mine = [s for s in stages[:index] if isinstance(s, BestStage) and stage.name not in s.skips]
    gone = {name: best.name for best in mine for name in best.skips}
    skipped = {f"@{name}": gone[name] for name in gone if name not in stand_ins(stages, gone)}
    for key, data in sources_of(stage).items():
        if (paths := paths_of(data)) and all(path in skipped for path in paths):
            text = f"{data.path}: may be skipped, by {skipped[paths[0]]}; name what is always there too"
            yield tuple(key.split(".")), text


def _known(earlier: Collection[str]) -> str:
    return "earlier stages: " + ", ".join(earlier) if earlier else "this is the first stage"


def _less(value: Any, least: int) -> bool:
    return isinstance(value, int) and value < least
