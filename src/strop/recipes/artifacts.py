"""What stages read and leave, by content: hashes of models, data and code, and `@name` to a path.

A stage's hash is sha256 over the package's version, the stage's settings, its seed, device and
precision, and the hashes of all it reads. Paths are no part of it, contents are. Settings that
change no number (how often is saved and shown) are left out.

A name of a hub stands for itself and is hashed as a name; so is one of the embedded world, with the
recipe's seed that the world is made from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from strop import __version__
from strop.data.read import data_files, sha256
from strop.recipes.settings import Data, EvaluateStage, PreferenceStage, Recipe, RLStage, Stage

NO_NUMBERS = ("save_every", "keep", "log_every")
"""Training settings that do not change what is computed."""


def stage_seed(seed: int, name: str) -> int:
    """A stage's seed, in [0, 2^31): a function of the recipe's seed and the stage's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


def model_of(recipe: Recipe, stage: Stage) -> str:
    """The model a stage starts from, as the recipe names it."""
    model = stage.model or recipe.model
    assert model is not None, "a stage without a model passed the checks"
    return model


def inputs_of(recipe: Recipe, stage: Stage) -> dict[str, str]:
    """What a stage reads, as the recipe names it: model, reference, baseline, data, eval_data."""
    found: dict[str, str | None] = {"model": model_of(recipe, stage)}
    if isinstance(stage, PreferenceStage | RLStage):
        found["reference"] = stage.reference
    if isinstance(stage, EvaluateStage):
        found["baseline"] = stage.baseline
    for key, data in sources_of(stage).items():
        found[key] = ", ".join(paths_of(data))
    return {key: value for key, value in found.items() if value is not None}


def sources_of(stage: Stage) -> dict[str, Data]:
    """A stage's data settings by key, those it has."""
    given = (
        {"data": stage.data} if isinstance(stage, EvaluateStage) else {"data": stage.data, "eval_data": stage.eval_data}
    )
    return {key: data for key, data in given.items() if data is not None}


def paths_of(data: Data) -> tuple[str, ...]:
    """The paths of a data setting."""
    return (data.path,) if isinstance(data.path, str) else data.path


def hash_model(model: str, seed: int) -> str:
    """sha256 of a model folder's files with their names, or of the name where it is no folder."""
    folder = Path(model).expanduser()
    return hash_folder(folder) if folder.is_dir() else _hash_name(model, seed)


def hash_folder(folder: Path) -> str:
    """sha256 over the relative name and content of every file, hidden ones left out."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{sha256([file])}\n".encode())
    return digest.hexdigest()


def hash_data(path: str, split: str, seed: int) -> str:
    """sha256 of a data path's files, or of its name where another library reads it.

    Raises: ValueError if a local path does not exist.
    """
    if path.startswith("world:"):
        return _hash_name(path, seed)
    files = data_files(path, split)
    return sha256(files) if files else _hash_name(f"{path}:{split}", seed)


def hash_artifact(path: Path) -> str:
    """sha256 of a folder or file that a stage left."""
    return hash_folder(path) if path.is_dir() else sha256([path])


def hash_stage(stage: Stage, *, seed: int, device: str, precision: str, inputs: Mapping[str, str]) -> str:
    """The hash that says whether a finished stage can stand for this one.

    Args: inputs: hashes of what it reads, by key.
    """
    said = {
        "version": __version__,
        "settings": _numbers_only(stage),
        "seed": seed,
        "device": device,
        "precision": precision,
        "inputs": dict(inputs),
    }
    return _hash_text(json.dumps(said, sort_keys=True, default=str))


def code_files(stage: Stage) -> Iterator[tuple[str, Path]]:
    """The user's own files that a stage's rewards name as `file.py:function`, by setting."""
    if not isinstance(stage, RLStage | EvaluateStage):
        return
    for index, reward in enumerate(stage.rewards):
        for field in dataclasses.fields(reward):
            value = getattr(reward, field.name)
            if isinstance(value, str) and ".py:" in value:
                yield f"rewards.{index}.{field.name}", Path(value.rpartition(":")[0]).expanduser()


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder, by hard links where the file system has them."""

    def link_or_copy(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copy2(a, b)

    shutil.copytree(source, target, copy_function=link_or_copy, ignore=shutil.ignore_patterns("checkpoints"))


def _numbers_only(stage: Stage) -> dict[str, Any]:
    plain = dataclasses.asdict(stage)
    for key in ("model", "reference", "baseline"):
        plain.pop(key, None)
    for key in ("data", "eval_data"):
        if plain.get(key):
            plain[key].pop("path")
    for key in NO_NUMBERS:
        plain.get("training", {}).pop(key, None)
    return plain


def _hash_name(name: str, seed: int) -> str:
    return _hash_text(f"name:{name}:{seed}" if name.startswith("world:") else f"name:{name}")


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
