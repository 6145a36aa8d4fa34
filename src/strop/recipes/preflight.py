"""What can be seen to be wrong with a run's inputs before it begins: model folders, data files, rewards' code.

Needs no torch, so that a wrong path or column is told at once and leaves no run directory behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from strop.data.formats import Dataset, load_dataset
from strop.data.mixed import load_prompts
from strop.data.read import data_files
from strop.model.adapter import base_of, is_adapter
from strop.recipes import artifacts
from strop.recipes.parts import PAIRS, TEXTS
from strop.recipes.settings import Data, EvaluateStage, Recipe, Stage
from strop.rewards import Choice, Exact, MathAnswer, Number
from strop.rewards.gym import GYM, check_gym
from strop.rewards.protocol import check_column
from strop.types import Group

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")

ANSWERED = (Exact, Number, Choice, MathAnswer)
"""Rewards that compare with a column of the row, and fail where no row has it."""
ANY_KIND = ("against", "trained_on")
"""Settings of data that take rows of every kind: answers, whatever they were asked for, and what was learnt."""


def check_config(model: str) -> str:
    """What is wrong with a model's name or folder but for its tokenizer; empty where nothing is."""
    folder = Path(model).expanduser()
    if folder.is_file():
        return f"{model}: a file; name the folder that it is in"
    if folder.is_dir():
        if is_adapter(str(folder)):
            return _check_adapter(model)
        return "" if (folder / "config.json").is_file() else f"{model}: no model folder, for it has no config.json"
    is_path = model.startswith((".", "/", "~")) or model.count("/") > 1
    return f"{model}: no such folder" if is_path else ""  # else it may be a hub name


def check_model(model: str) -> str:
    """What is wrong with a model's name or folder, as far as its files tell; empty where nothing is."""
    folder = Path(model).expanduser()
    if (trouble := check_config(model)) or not folder.is_dir() or is_adapter(str(folder)):
        return trouble
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return f"{model}: has no tokenizer (tokenizer.json); save the tokenizer in the model's folder"
    return ""


def check_inputs(recipe: Recipe, check: Callable[[str], str] = check_model) -> None:
    """Look at every file and folder the recipe names, and at the first rows of its data.

    Args: check: what is wrong with a model, as `check_model` says it.
    Raises: ValueError naming all that is wrong.
    """
    found = dict.fromkeys(text for stage in recipe.stages for text in _stage(recipe, stage, check))
    if found:
        raise ValueError("\n".join(found))


def _check_adapter(model: str) -> str:
    """What is wrong with an adapter's folder or with the base model that it names."""
    try:
        base = base_of(model)
    except ValueError as error:
        return str(error)
    trouble = check_model(base)
    return f"{model}: an adapter whose base model, by its adapter_config.json, is no use: {trouble}" if trouble else ""


def require_model(model: str) -> None:
    """Raises ValueError where `check_model` finds something wrong."""
    if trouble := check_model(model):
        raise ValueError(trouble)


def _stage(recipe: Recipe, stage: Stage, check: Callable[[str], str]) -> Iterator[str]:
    for key, named in artifacts.models_of(recipe, stage).items():
        if not named.startswith(("@", "world:")) and (trouble := check(named)):
            yield f"{stage.name}.{key}: {trouble}"
    for key, data in artifacts.sources_of(stage).items():
        try:
            _check_data(stage, key, data)
        except ValueError as error:
            yield f"{stage.name}.{key}: {error}"
    for key, file in artifacts.code_files(stage):
        if not file.exists():
            yield f"{stage.name}.{key}: {file}: no such file"


def _check_data(stage: Stage, key: str, data: Data) -> None:
    """Look at a stage's files, at the kind of their first rows, and for what verifiers compare with.

    Raises: ValueError saying what is wrong.
    """
    first = _first_rows(data)
    if first is None or key not in stage.datasets or key in ANY_KIND:  # a monitor's data are prompts of any kind
        return
    if trouble := wrong_kind(stage, first):
        raise ValueError(trouble)
    made = any(path.startswith("@") for path in artifacts.paths_of(data))
    if key == "data" and artifacts.wants_prompts(stage) and not made:
        _check_answers(stage, data, first)


def _first_rows(data: Data) -> Dataset | None:
    """The first rows of files that are here; None of what other libraries read or a stage is still to make.

    Raises: ValueError if a file is not there, or cannot be read.
    """
    paths = tuple(path for path in artifacts.paths_of(data) if not path.startswith("@"))
    if made := [path for path in paths if path.startswith(GYM)]:
        check_gym(made)
    if not paths or any(path.startswith(("world:", GYM)) for path in paths):
        return None
    local = [bool(data_files(path, data.split)) for path in paths]
    if not all(local):
        return None
    return load_dataset(paths, kind=data.kind, columns=data.columns, split=data.split, limit=1, system=data.system)


def _check_answers(stage: Stage, data: Data, first: Dataset) -> None:
    """Look for the columns that verifiers compare with; the file is read to its end where the first row has none.

    Raises: ValueError if no row has one of them.
    """
    asked = [reward for reward in artifacts.rewards_of(stage) if isinstance(reward, ANSWERED)]
    if all(reward.column in _row(group) for reward in asked for group in first.groups):
        return
    paths = artifacts.paths_of(data)
    found = load_prompts(paths, kind=data.kind, columns=data.columns, split=data.split, limit=data.limit)
    rows = [replace(group, row=_row(group)) for group in found.groups]
    for reward in asked:
        check_column(rows, reward.column, reward.name)


def _row(group: Group) -> Mapping[str, Any]:
    """What rewards see of a row: a given answer is a column, too, where the model's own is scored."""
    return {**group.row, "completion": group.completions[0].text} if group.completions else group.row


def wrong_kind(stage: Stage, found: Dataset) -> str:
    """Why a stage can do nothing with rows of their kind; empty where it can."""
    kinds, use = stage.takes, "this stage takes"
    if isinstance(stage, EvaluateStage) and not stage.samples:
        kinds = (*PAIRS, *TEXTS, "groups")  # those a reward model is asked about
        use = "without rewards (as rewards=number) the rows' own answers are evaluated, which needs"
    longest = max(len(group.completions) for group in found.groups)
    if stage.answers == (2, 2) and found.kind == "ranking" and longest > 2:
        return f"read as {found.shape} with {longest} answers to a prompt, but this stage compares two; keep two a row"
    if not kinds or found.kind in kinds:
        return ""
    return (
        f"read as {found.kind} ({found.shape}), but {use} {' or '.join(kinds)}; "
        f"the columns are {', '.join(found.columns)}; map them with data.columns, or choose another recipe"
    )
