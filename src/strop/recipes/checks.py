"""What a recipe must satisfy beyond types: ranges, names, and references between stages.

Works on stages of which some could not be made (null), so that one reading says everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from strop.credit import GroupRelative, LeaveOneOut
from strop.recipes.plain import RECIPE_KEYS
from strop.recipes.settings import (
    Data,
    EvaluateStage,
    PreferenceStage,
    RLStage,
    Sampling,
    Stage,
    Training,
)
from strop.recipes.yaml12 import Path

Found = Iterator[tuple[Path, str]]

ARTIFACTS: Mapping[str, tuple[str, ...]] = {
    "sft": ("model",),
    "preference": ("model",),
    "rl": ("model",),
    "evaluate": ("samples",),
}
"""What a stage of each kind leaves for later ones."""

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
RESERVED = (*RECIPE_KEYS, "stages")
DEVICES = ("auto", "cpu", "cuda")


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
    if _below(tree.get("seed"), 0):
        yield ("seed",), f"must not be negative, got {tree['seed']}"
    if _below(tree.get("threads"), 1):
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
    if isinstance(stage, EvaluateStage):
        yield from _at_least(stage, ("num_samples",), 1)
        if not stage.rewards and (stage.num_samples, stage.sampling) != (1, EvaluateStage().sampling):
            key = "num_samples" if stage.num_samples != 1 else "sampling"
            yield (key,), "without rewards nothing is sampled: the rows' own answers are evaluated; give rewards"
    else:
        yield from (((("training", *path)), text) for path, text in _training(stage.training))
    if isinstance(stage, RLStage):
        yield from _at_least(stage, ("num_generations", "passes", "minibatches"), 1)
        if isinstance(stage.advantage, GroupRelative | LeaveOneOut) and stage.num_generations < 2:
            yield ("num_generations",), "must be at least 2: an advantage is relative to the group's other completions"
        if stage.minibatches > max(1, stage.training.batch_size):
            sizes = f"{stage.minibatches} minibatches of {stage.training.batch_size} prompts"
            yield ("minibatches",), f"{sizes}: must not be more than training.batch_size"
    if isinstance(stage, RLStage | EvaluateStage):
        yield from (((("sampling", *path)), text) for path, text in _sampling(stage.sampling))
        yield from _rewards(stage)
    if isinstance(stage, RLStage) and (stage.sampling.top_k is not None or stage.sampling.top_p is not None):
        key = "top_k" if stage.sampling.top_k is not None else "top_p"
        yield ("sampling", key), "is for evaluate stages: training needs log-probs of what was really sampled"
    if isinstance(stage, RLStage) and stage.sampling.temperature == 0:
        yield ("sampling", "temperature"), "0 is greedy: every completion of a group would be the same; use 1.0"
    yield from _data(stage)


def _rewards(stage: RLStage | EvaluateStage) -> Found:
    if isinstance(stage, RLStage) and not stage.rewards:
        yield ("rewards",), "is empty; a stage of kind rl needs at least one, as rewards=number"
    elif stage.rewards and all(r.weight == 0 for r in stage.rewards):
        yield ("rewards",), "all weights are 0, so nothing is scored; give one a weight"
    labels: dict[str, int] = {}
    for index, reward in enumerate(stage.rewards):
        label = reward.label or reward.name
        if label in labels:
            text = f"rewards[{labels[label]}] is logged as {label!r} too; give one a label of its own"
            yield ("rewards", index), text
        labels.setdefault(label, index)


def _training(training: Training) -> Found:
    yield from _at_least(training, ("steps", "batch_size", "micro_batch_tokens", "keep", "log_every"), 1)
    yield from _at_least(training, ("nonfinite_limit",), 1)
    yield from _at_least(training, ("max_length",), 2)
    yield from _at_least(training, ("save_every", "eval_every", "max_grad_norm"), 0)
    if training.epochs <= 0:
        yield ("epochs",), f"must be more than 0, got {training.epochs}"
    if not 0 <= training.eval_fraction < 1:
        yield ("eval_fraction",), f"must be at least 0 and less than 1, got {training.eval_fraction}"


def _sampling(sampling: Sampling) -> Found:
    yield from _at_least(sampling, ("max_completion_length", "top_k", "rows"), 1)
    yield from _at_least(sampling, ("temperature",), 0)
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        yield ("top_p",), f"must be more than 0 and at most 1, got {sampling.top_p}"
    if "" in sampling.stop:
        yield ("stop",), "an empty text stops every completion at once"


def _sources(stage: Stage) -> list[tuple[str, Data | None]]:
    if isinstance(stage, EvaluateStage):
        return [("data", stage.data)]
    return [("data", stage.data), ("eval_data", stage.eval_data)]


def _data(stage: Stage) -> Found:
    if stage.data is None:
        yield ("data",), "is missing; name a file, as data=train.jsonl"
    for key, data in _sources(stage):
        if data is None:
            continue
        yield from (((key, *path), text) for path, text in _at_least(data, ("limit",), 1))
        if data.path in ("", ()) or (not isinstance(data.path, str) and "" in data.path):
            yield (key, "path"), "is empty; name a file, as data=train.jsonl"


def _references(tree: Mapping[str, Any], stages: Sequence[Stage | None], index: int) -> Found:
    stage = stages[index]
    assert stage is not None
    earlier = {s.name: s.kind for s in stages[:index] if s is not None}
    unknown = None in stages[:index]
    models = [name for name, kind in earlier.items() if "model" in ARTIFACTS[kind]]
    if stage.model is None and (models or not isinstance(tree.get("model"), str)):
        hint = f"model: @{models[-1]}" if models else "model=PATH, a model folder or a hub name"
        if models or not unknown:
            yield ("model",), f"is missing; name it, as {hint}"
    for path, value in _named(stage):
        name = value.removeprefix("@")
        need = "samples" if path[0] in ("data", "eval_data") else "model"
        if name in earlier and need not in ARTIFACTS[earlier[name]]:
            yield path, f"{value}: a stage of kind {earlier[name]} leaves no {need}"
        elif name not in earlier and not unknown:
            yield path, f"{value}: no earlier stage of that name; " + _known(earlier)


def _known(earlier: Mapping[str, str]) -> str:
    return "earlier stages: " + ", ".join(earlier) if earlier else "this is the first stage"


def _named(stage: Stage) -> Iterator[tuple[Path, str]]:
    """Every `@name` of a stage and where it stands."""
    texts: list[tuple[Path, Any]] = [(("model",), stage.model)]
    if isinstance(stage, EvaluateStage):
        texts.append((("baseline",), stage.baseline))
    elif isinstance(stage, PreferenceStage | RLStage):
        texts.append((("reference",), stage.reference))
    for key, data in _sources(stage):
        if data is not None:
            paths = (data.path,) if isinstance(data.path, str) else data.path
            texts += [((key, "path"), p) for p in paths]
    yield from ((path, text) for path, text in texts if isinstance(text, str) and text.startswith("@"))


def _at_least(settings: Any, keys: Sequence[str], least: int) -> Found:
    for key in keys:
        value = getattr(settings, key)
        if value is not None and value < least:
            wanted = "must not be negative" if least == 0 else f"must be at least {least}"
            yield (key,), f"{wanted}, got {value}"


def _below(value: Any, least: int) -> bool:
    return isinstance(value, int) and value < least
