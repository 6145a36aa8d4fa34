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
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from strop.recipes import yaml12
from strop.recipes.checks import check
from strop.recipes.custom import importable
from strop.recipes.evaluations import FIXED
from strop.recipes.expand import expand
from strop.recipes.layers import ROOT, Layers, Mark, normal
from strop.recipes.plain import RECIPE_KEYS, changes, plain, short, to_plain
from strop.recipes.settings import Recipe, Repeat, Shared, Stage, Written
from strop.recipes.shape import Shape, chosen, default_of, describe, fields_of, places, union
from strop.recipes.sources import Problem, RecipeError, source_of, unreadable
from strop.recipes.steps import Expanded

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
    return read_recipe(ref, overrides).recipe


@dataclass(frozen=True, slots=True)
class Reading:
    """A recipe that was read. left_out: what of it has no data and is not run, in words."""

    recipe: Recipe
    left_out: tuple[str, ...] = ()


def read_recipe(ref: Ref | Sequence[Ref], overrides: Overrides = ()) -> Reading:
    """`load_recipe`, with what was left out.

    Raises: RecipeError with everything that is wrong.
    """
    layers = _layers(ref, overrides)
    builder = _Builder(layers)
    written = builder.recipe()
    full = expand(builder.shared, builder.entries)
    found = check(layers.tree, [step.stage for step in full.steps], full.written)
    for several in (full.problems, found):
        for path, text in [p for p in dict.fromkeys(several) if not layers.suspect(p[0])]:
            layers.complain(path, text)
    _idle(layers, full, evaluated=builder.shared.evaluation.asks)
    if layers.problems:
        raise RecipeError(layers.problems)
    assert written is not None
    unsaid = "evaluation" in layers.tree and not written.evaluation.asks
    left_out = [*map(str, full.left_out), *(["evaluation (no evaluation.data)"] if unsaid else [])]
    return Reading(_recipe(written, full), tuple(left_out))


def resolve(ref: Ref | Sequence[Ref], overrides: Overrides = ()) -> Recipe:
    """The same without the checks that a run must pass (built-in recipes name neither model nor data).

    No stage is left out for want of data.
    """
    written = _written(ref, overrides)
    return _recipe(written, expand(written, written.stages, whole=True))


def _written(ref: Ref | Sequence[Ref], overrides: Overrides) -> Written:
    layers = _layers(ref, overrides)
    written = _Builder(layers).recipe()
    if written is None or layers.problems:
        raise RecipeError(layers.problems)
    return written


def _recipe(written: Written, full: Expanded) -> Recipe:
    shared = {f.name: getattr(written, f.name) for f in dataclasses.fields(Shared)}
    return Recipe(**shared, stages=tuple(step.stage for step in full.steps if step.stage is not None))


def _idle(layers: Layers, full: Expanded, *, evaluated: bool) -> None:
    """Complain about overrides of what is left out, which would change nothing."""
    idle = [(out.written, out.name, out.fix) for out in full.left_out]
    if not evaluated:
        idle.append((("evaluation",), "the evaluation", "give evaluation.data=FILE"))
    for written, name, fix in idle:
        touched = [p for p, mark in layers.marks.items() if mark.user and p[: len(written)] == written]
        for path in [p for p in touched if not layers.suspect(p)]:
            layers.complain(path, f"{name} is left out, for it has no data, so nothing reads this; {fix}")


def dump(recipe: Recipe) -> str:
    """The recipe with every setting, as YAML that loads back equal."""
    return yaml12.dump(to_plain(recipe))


def difference(ref: Ref | Sequence[Ref], overrides: Overrides) -> list[str]:
    """What later files and overrides change of a recipe: lines `objective.beta: 0.1 -> 0.3`, as overrides name it."""
    several = isinstance(ref, Sequence) and not isinstance(ref, str)
    first, written = _written(ref[0] if several else ref, ()), _written(ref, overrides)  # type: ignore[index]
    names = _addresses(written)
    return [f"{_address(path, names)}: {short(old)} -> {short(new)}" for path, old, new in changes(first, written)]


def _addresses(written: Written) -> dict[str, str]:
    """What paths of stages begin with, and what overrides call them; those of repeats first."""
    found = {f"stages.{i}.": f"{stage.name}." for i, stage in enumerate(written.stages)}
    if len(found) == 1 and not isinstance(written.stages[0], Repeat):
        found = {"stages.0.": ""}
    for i, block in [(i, s) for i, s in enumerate(written.stages) if isinstance(s, Repeat)]:
        found = {f"stages.{i}.stages.{j}.": f"{s.name}." for j, s in enumerate(block.stages)} | found
    return found


def _address(path: str, names: Mapping[str, str]) -> str:
    before = next((start for start in names if path.startswith(start)), "")
    return names.get(before, "") + path.removeprefix(before)


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
        kinds = ", ".join(kind for kind in _stage_shape().tags if kind != "repeat")
        raise RecipeError(
            [Problem(where, "", f"neither `stages:` nor `kind:`; a one-stage recipe has a kind: {kinds}")]
        )
    stages = value.get("stages")
    if isinstance(stages, dict) and "kind" not in stages:
        where = marks.get(("stages",), Mark("")).where
        raise RecipeError(
            [Problem(where, "stages", f"expected a list of stages, got {short(stages)}; begin each by `-`")]
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
    item = fields_of(Written)["stages"].item
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
        self.entries: list[Stage | Repeat | None] = []
        """The stages and repeats that could be made, null for the others."""
        self.shared = Written(name="")
        """The recipe without them, as far as it could be made."""

    def recipe(self) -> Written | None:
        """The recipe, or null where something is wrong."""
        tree = self._layers.tree
        stages = tree.get("stages")
        if isinstance(stages, list):
            shape = _stage_shape()
            made = [self._value(shape, s, MISSING, ("stages", i)) for i, s in enumerate(stages)]
            self.entries = [None if s is _INVALID else s for s in made]
        rest = {k: v for k, v in tree.items() if k != "stages" or not isinstance(v, list)}
        recipe = self._object(ROOT, rest, None, ())
        if recipe is _INVALID:
            return None
        assert isinstance(recipe, Written)
        self.shared = recipe
        known = tuple(entry for entry in self.entries if entry is not None)
        return dataclasses.replace(recipe, stages=known) if len(known) == len(self.entries) else None

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
        known = {key: inner for key, inner in fields_of(cls).items() if path != ("evaluation",) or key not in FIXED}
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
        if value[tag] == "repeat" and len(_stage_path(path)) > 2:
            return self._complain((*path, tag), f"rounds hold no rounds; {allowed}")
        near = difflib.get_close_matches(str(value[tag]), list(shape.tags), 1)
        hint = f"did you mean {near[0]}? " if near else ""
        return self._complain((*path, tag), f"no such {tag}: {short(value[tag])}; {hint}{allowed}")

    def _unknown(self, key: str, cls: type, shape: Shape, path: yaml12.Path) -> str:
        """Why a key is refused: whose it is, or the nearest one here or elsewhere in the stage; those allowed."""
        allowed = sorted(set(fields_of(cls)) - (set(FIXED) if path == ("evaluation",) else set()))
        owners = [tag for tag, other in shape.tags.items() if key in fields_of(other)]
        if path == ("evaluation",) and key in FIXED:
            return "follows from the stage that is evaluated; for another evaluation write a stage of kind evaluate"
        stage = _stage_path(path)
        if owners and stage and len(path) > len(stage):
            mine = {c: tag for tag, c in shape.tags.items()}[cls]
            return f"unknown to {mine}, a setting of {', '.join(owners)}; allowed: {', '.join(allowed)}"
        if path == stage and self._layers.flat:
            allowed = sorted({*allowed, *RECIPE_KEYS})
        root = self._stage_class(stage)
        near = _elsewhere(key, root) or difflib.get_close_matches(key, allowed, 1) or _nearly(key, root)
        hint = f" did you mean {near[0]}?" if near else ""
        return f"unknown;{hint} allowed: {', '.join(allowed)}"

    def _stage_class(self, path: yaml12.Path) -> type | None:
        """The class of the stage at a path; null where there is none."""
        value: Any = self._layers.tree
        for part in path:
            value = value[part]
        return chosen(_stage_shape(), value) if path else None

    def _complain(self, path: yaml12.Path, text: str) -> Any:
        self._layers.complain(path, text)
        return _INVALID


def _stage_path(path: yaml12.Path) -> yaml12.Path:
    """The beginning of a path that is a stage's, in a repeat the inner one's; empty where it is in none."""
    stage: yaml12.Path = ()
    while path[len(stage) : len(stage) + 1] == ("stages",) and len(path) > len(stage) + 1:
        stage = path[: len(stage) + 2]
    return stage


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
