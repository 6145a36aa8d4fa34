"""YAML to a `Recipe`, and back: the border where texts become settings.

Defaults < recipe files (merged deeply, in order) < overrides. Everything that is wrong is said at
once, each with where it was written, its path and a way to mend it. The only file that imports
pydantic, which checks the plain values; dataclasses, variants and messages are our own.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from strop.recipes import yaml12
from strop.recipes.checks import check
from strop.recipes.custom import importable
from strop.recipes.layers import ROOT, Layers, Mark, normal
from strop.recipes.plain import RECIPE_KEYS, changes, plain, short, to_plain
from strop.recipes.settings import Recipe
from strop.recipes.shape import Shape, chosen, default_of, describe, fields_of, places, union
from strop.recipes.sources import Problem, RecipeError, source_of, unreadable

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Ref = str | Path | Mapping[str, Any]
"""A built-in recipe's name, a YAML file, a run directory, or a recipe as a mapping."""

Overrides = Sequence[str] | Mapping[str, Any]
"""`key=value` texts, or values by key."""

ELSEWHERE = {
    "learning_rate": "optimizer.lr",
    "lr_scheduler_type": "schedule.name",
    "warmup_ratio": "schedule.warmup",
    "num_train_epochs": "training.epochs",
    "max_steps": "training.steps",
    "per_device_train_batch_size": "training.batch_size",
    "save_steps": "training.save_every",
    "logging_steps": "training.log_every",
    "eval_steps": "training.eval_every",
    "max_seq_length": "training.max_length",
    "max_new_tokens": "sampling.max_completion_length",
    "max_tokens": "sampling.max_completion_length",
    "loss_type": "objective.name",
    "dataset": "data.path",
    "train_data": "data.path",
    "reward_funcs": "rewards",
    "reward": "rewards",
    "ref_model": "reference",
    "base_model": "model",
    "model_name_or_path": "model",
    "output_dir": "runs",
}
"""Other libraries' names for settings, so that an error can name ours."""


def load_recipe(ref: Ref | Sequence[Ref], overrides: Overrides = ()) -> Recipe:
    """The recipe that `ref` names, with overrides laid over it.

    Args:
        ref: a built-in name, a YAML file, a run directory (its config.yaml) or a mapping; of
            several, each later one is laid over those before it.
        overrides: `["objective.beta=0.1"]` or `{"objective.beta": 0.1}`.
    Raises: RecipeError with everything that is wrong.
    """
    layers = _layers(ref, overrides)
    builder = _Builder(layers)
    recipe = builder.recipe()
    for path, text in [p for p in check(layers.tree, builder.stages) if not layers.suspect(p[0])]:
        layers.complain(path, text)
    if layers.problems:
        raise RecipeError(layers.problems)
    assert recipe is not None
    return recipe


def resolve(ref: Ref | Sequence[Ref], overrides: Overrides = ()) -> Recipe:
    """The same without the checks that a run must pass (built-in recipes name neither model nor data)."""
    layers = _layers(ref, overrides)
    recipe = _Builder(layers).recipe()
    if recipe is None or layers.problems:
        raise RecipeError(layers.problems)
    return recipe


def dump(recipe: Recipe) -> str:
    """The recipe with every setting, as YAML that loads back equal."""
    return yaml12.dump(to_plain(recipe))


def difference(recipe: Recipe, ref: Ref | Sequence[Ref]) -> list[str]:
    """What the recipe says otherwise than `ref` alone: lines `objective.beta: 0.1 -> 0.3`."""
    prefix = "stages.0." if len(recipe.stages) == 1 else ""
    found = changes(resolve(ref), recipe)
    return [f"{path.removeprefix(prefix)}: {short(old)} -> {short(new)}" for path, old, new in found]


# From files and overrides to one tree of plain values.


def _layers(ref: Ref | Sequence[Ref], overrides: Overrides) -> Layers:
    several = isinstance(ref, Sequence) and not isinstance(ref, str)
    refs: list[Ref] = list(ref) if several else [ref]  # type: ignore[list-item, arg-type]
    layers = _first(refs[0])
    for later in refs[1:]:
        value, marks, _ = _read(later)
        for key, inner in value.items():
            layers.override(key, inner, marks.get((key,), Mark("")))
    for key, value, mark in _pairs(overrides, layers):
        layers.override(key, value, mark)
    return layers


def _first(ref: Ref) -> Layers:
    """The bottom layer: a whole recipe, flat or with stages."""
    value, marks, stem = _read(ref)
    flat = "stages" not in value
    if flat and "kind" not in value:
        where = marks[()].where if () in marks else ""
        kinds = ", ".join(_stage_shape().tags)
        raise RecipeError(
            [Problem(where, "", f"neither `stages:` nor `kind:`; a one-stage recipe has a kind: {kinds}")]
        )
    if flat:
        name = value.get("name", stem)
        stage = {"name": name, **{k: v for k, v in value.items() if k not in RECIPE_KEYS}}
        value = {"name": name, **{k: v for k, v in value.items() if k in RECIPE_KEYS}, "stages": [stage]}
        marks = {_in_stage(path): mark for path, mark in marks.items()}
    value.setdefault("name", stem)
    return Layers(tree=normal(value, ROOT), marks=marks, flat=flat)


def _in_stage(path: yaml12.Path) -> yaml12.Path:
    return path if not path or path[0] in RECIPE_KEYS else ("stages", 0, *path)


def _stage_shape() -> Shape:
    item = fields_of(Recipe)["stages"].item
    assert item is not None
    return item


def _read(ref: Ref) -> tuple[dict[str, Any], dict[yaml12.Path, Mark], str]:
    """A layer's plain values, where each was written, and the name it has when it says none."""
    if isinstance(ref, Mapping):
        return as_values(ref), {(): Mark("recipe")}, "run"
    name, text = source_of(ref)
    try:
        document = yaml12.parse(text)
    except yaml12.YAMLError as error:
        raise unreadable(f"{name}:{error.line}", str(error)) from None
    if not isinstance(document.value, dict):
        raise unreadable(name, "a recipe is a mapping of settings, as `kind: sft`")
    marks = {path: Mark(f"{name}:{line}") for path, line in document.lines.items()}
    return document.value, marks, _stem(Path(name))


def _stem(path: Path) -> str:
    return path.parent.name if path.name == "config.yaml" and path.parent.name else path.stem


def _pairs(overrides: Overrides, layers: Layers) -> Iterator[tuple[str, Any, Mark]]:
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            yield str(key), as_values(value), Mark(f"override {key}", user=True)
        return
    for text in overrides:
        key, equals, value = text.partition("=")
        mark = Mark(f"override {text if len(text) < 60 else key}", user=True)
        if not equals or not key.strip():
            layers.problems.append(Problem(mark.where, "", "an override is key=value, as objective.beta=0.1"))
            continue
        try:
            yield key.strip(), yaml12.parse(value).value, mark
        except yaml12.YAMLError as error:
            hint = f"{error}; quote a text, as {key}='\"...\"'"
            layers.problems.append(Problem(mark.where, key.strip(), hint))


def as_values(value: Any) -> Any:
    """Python values as a recipe's plain ones: settings to mappings, functions to their importable names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    if isinstance(value, Mapping):
        return {str(k): as_values(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_values(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return importable(value) if callable(value) else value


# From plain values to settings.

_INVALID = object()


class _Builder:
    """Makes the settings dataclasses and notes what is wrong in the layers' `problems`.

    A wrong value is replaced by its default where it has one, so that the checks that come after
    see the rest of its stage; whoever asks for a recipe looks at `problems` first.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self.stages: list[Any] = []
        """The stages that could be made, null for the others."""

    def recipe(self) -> Recipe | None:
        """The recipe, or null where something is wrong."""
        tree = self._layers.tree
        stages = tree.get("stages")
        if isinstance(stages, list):
            shape = _stage_shape()
            made = [self._value(shape, s, MISSING, ("stages", i)) for i, s in enumerate(stages)]
            self.stages = [None if s is _INVALID else s for s in made]
        rest = {k: v for k, v in tree.items() if k != "stages" or not isinstance(v, list)}
        recipe = self._object(ROOT, rest, None, ())
        if recipe is _INVALID or None in self.stages:
            return None
        assert isinstance(recipe, Recipe)
        return dataclasses.replace(recipe, stages=tuple(self.stages))

    def _value(self, shape: Shape, value: Any, default: Any, path: yaml12.Path) -> Any:
        if value is None and shape.nullable:
            return None
        if (shape.item is not None and not isinstance(value, list)) or (shape.entry and not isinstance(value, dict)):
            return self._complain(path, f"expected {describe(shape.annotation)}, got {short(value)}{_kind(value)}")
        if shape.item is not None:
            items = [self._value(shape.item, v, MISSING, (*path, i)) for i, v in enumerate(value)]
            return tuple(v for v in items if v is not _INVALID)
        if shape.entry is not None:
            entries = {k: self._value(shape.entry, v, MISSING, (*path, k)) for k, v in value.items()}
            return {k: v for k, v in entries.items() if v is not _INVALID}
        if shape.classes:
            return self._object(shape, value, default, path)
        return self._leaf(shape, value, path)

    def _leaf(self, shape: Shape, value: Any, path: yaml12.Path) -> Any:
        plain_value = _plainly(shape.annotation, value)
        if plain_value is not _INVALID:
            return plain_value
        try:
            return _adapter(shape.annotation).validate_python(_tupled(value))
        except ValueError:  # pydantic's ValidationError is one; its words are for programmers
            return self._complain(path, f"expected {describe(shape.annotation)}, got {short(value)}{_kind(value)}")

    def _object(self, shape: Shape, value: Any, default: Any, path: yaml12.Path) -> Any:
        if not isinstance(value, dict):
            allowed = f" or one of {', '.join(shape.tags)}" if shape.tag else ""
            return self._complain(path, f"expected a mapping{allowed}, got {short(value)}{_kind(value)}")
        cls = chosen(shape, value, default)
        if cls is None:
            return self._untagged(shape, value, path)
        known = fields_of(cls)
        for key in [key for key in value if key not in known]:
            self._complain((*path, key), self._unknown(key, cls, shape, path))
        settings = {}
        for key, inner in known.items():
            start = default_of(cls, key, default)
            given = self._value(inner, value[key], start, (*path, key)) if key in value else start
            if key not in value and start is MISSING:
                self._complain((*path, key), f"is required: {describe(inner.annotation)}")
            settings[key] = start if given is _INVALID else given
        if MISSING in settings.values():
            return _INVALID
        try:
            return cls(**settings)
        except ValueError as error:
            return self._complain(_blamed(path, value, str(error)), str(error))

    def _untagged(self, shape: Shape, value: dict[str, Any], path: yaml12.Path) -> Any:
        tag = shape.tag
        allowed = f"allowed: {', '.join(shape.tags)}"
        if tag is None or tag not in value:
            return self._complain(path, f"{tag} is missing; {allowed}")
        near = difflib.get_close_matches(str(value[tag]), list(shape.tags), 1)
        hint = f"did you mean {near[0]}? " if near else ""
        return self._complain((*path, tag), f"no such {tag}: {short(value[tag])}; {hint}{allowed}")

    def _unknown(self, key: str, cls: type, shape: Shape, path: yaml12.Path) -> str:
        """Why a key is refused: whose it is, or the nearest one here or elsewhere in the stage; those allowed."""
        allowed = sorted(fields_of(cls))
        owners = [tag for tag, other in shape.tags.items() if key in fields_of(other)]
        if owners and path[:1] == ("stages",) and len(path) > 2:
            mine = {c: tag for tag, c in shape.tags.items()}[cls]
            return f"unknown to {mine}, a setting of {', '.join(owners)}; allowed: {', '.join(allowed)}"
        if len(path) == 2 and self._layers.flat:
            allowed = sorted({*allowed, *RECIPE_KEYS})
        root = self._stage_class(path)
        near = _elsewhere(key, root) or difflib.get_close_matches(key, allowed, 1) or _nearly(key, root)
        hint = f" did you mean {near[0]}?" if near else ""
        return f"unknown;{hint} allowed: {', '.join(allowed)}"

    def _stage_class(self, path: yaml12.Path) -> type | None:
        """The class of the stage that a path is in."""
        if len(path) < 2 or not isinstance(path[1], int):
            return None
        return chosen(_stage_shape(), self._layers.tree["stages"][path[1]])

    def _complain(self, path: yaml12.Path, text: str) -> Any:
        self._layers.complain(path, text)
        return _INVALID


def _elsewhere(key: str, stage: type | None) -> list[str]:
    """Where in a stage a setting of exactly this name stands (the least deep first), or what ours is called."""
    exact = [p for p in places(stage) if p[-1] == key] if stage else []
    if exact:
        return [".".join(sorted(exact, key=len)[0])]
    return [ELSEWHERE[key]] if stage and key in ELSEWHERE else []


def _nearly(key: str, stage: type | None) -> list[str]:
    """The setting anywhere in a stage whose name is very near."""
    by_name = {p[-1]: ".".join(p) for p in sorted(places(stage), key=len, reverse=True)} if stage else {}
    return [by_name[n] for n in difflib.get_close_matches(key, list(by_name), 1, cutoff=0.75)]


def _plainly(annotation: Any, value: Any) -> Any:
    """A value of exactly a type that is allowed, or a whole number for a number: what pydantic would say.

    Without its import, which takes longer than all the rest. Anything else is `_INVALID`, and pydantic's to judge.
    """
    options = union(annotation)
    for option in options:
        allowed = get_args(option) if get_origin(option) is Literal else ()
        exact = type(value) is option if option in (int, str, bool) else False
        finite = option is float and type(value) is float and math.isfinite(value)
        if exact or finite or any(value == a and type(value) is type(a) for a in allowed):
            return value
        parts = get_args(option) if get_origin(option) is tuple and isinstance(value, list) else ()
        if parts and Ellipsis not in parts and len(parts) == len(value):
            items = tuple(_plainly(part, v) for part, v in zip(parts, value, strict=True))
            return _INVALID if _INVALID in items else items
    return float(value) if type(value) is int and float in options and int not in options else _INVALID


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter  # 0.1 s that `strop ls` need not wait

    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def leaf_schema(annotation: Any) -> dict[str, Any]:
    """The JSON schema of a plain value."""
    return _adapter(annotation).json_schema()


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value


def _blamed(path: yaml12.Path, value: Mapping[str, Any], message: str) -> yaml12.Path:
    """The key a dataclass's own complaint is about: the first of its settings that the message names."""
    named = [word for word in re.findall(r"\w+", message) if word in value]
    return (*path, named[0]) if named else path


def _kind(value: Any) -> str:
    kinds: tuple[tuple[type, str], ...] = ((bool, ""), (str, " (a text)"), (list, " (a list)"), (dict, " (a mapping)"))
    return next((words for kind, words in kinds if isinstance(value, kind)), "")


__all__ = ["Overrides", "RecipeError", "Ref", "difference", "dump", "load_recipe", "resolve"]
