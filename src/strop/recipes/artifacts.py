"""What stages read and leave, by content: hashes of models, data and code, and `@name` to a path.

A stage's hash is sha256 over the package's version, the stage's settings, its seed, device and
precision, and the hashes of all it reads. Paths are no part of it, contents are. Settings that
change no number (how often is saved and shown) are left out.

A name of a hub stands for itself and is hashed as a name; so is one of the embedded world, with the
recipe's seed that the world is made from.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from strop import __version__
from strop.data.read import data_files, sha256
from strop.model.adapter import base_of, is_adapter
from strop.recipes.constitution import file_of
from strop.recipes.kinds.ship import GateSet, ShipStage
from strop.recipes.monitor import Monitor
from strop.recipes.settings import AverageStage, BestStage, Data, EvaluateStage, Recipe, Stage
from strop.rewards.gym import GYM, fingerprint

SETS = ("safety", "capability")
"""Settings that hold sets of prompts to judge a model by."""
ASKED = ("labeller", "critic")
"""Settings that hold who is asked, which may name models as rewards do."""
NO_NUMBERS = ("save_every", "keep", "log_every")
"""Training settings that do not change what is computed."""


def stage_seed(seed: int, name: str) -> int:
    """A stage's seed, in [0, 2^31): a function of the recipe's seed and the stage's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


def model_of(recipe: Recipe, stage: Stage) -> str:
    """The model a stage starts from, as the recipe names it."""
    assert "model" in stage.models
    model = own_model(stage) or recipe.model
    assert model is not None, "a stage without a model passed the checks"
    return model


def origin_of(recipe: Recipe, stage: Stage) -> str:
    """A model of the same shape as the one a stage leaves, as the recipe names it: mostly the one it starts from."""
    if isinstance(stage, AverageStage):
        return stage.members[0]
    if isinstance(stage, BestStage):
        first = next(text for _, text in evaluations_of(stage))
        stage = next(s for s in recipe.stages if s.name == first[1:])
    return model_of(recipe, stage)


def own_model(stage: Stage) -> str | None:
    """The model a stage names itself."""
    return next((text for path, text in named(stage) if path == ("model",)), None)


def named(stage: Stage) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every name of a model or of data in a stage's settings, with the path of the setting."""
    for key in stage.models:
        yield from _texts((key,), getattr(stage, key))
    for key in stage.datasets:
        data: Data | None = getattr(stage, key)
        if data is not None:
            yield from ((((key, "path")), path) for path in paths_of(data))
    for path, reward in all_rewards_of(stage):
        for key in models_of_reward(reward):
            yield from _texts((*path, *key.split(".")), attrgetter(key)(reward))
    for above, data in data_below(stage):
        yield from (((*above, "path"), path) for path in paths_of(data))
    if isinstance(stage, BestStage):
        yield from evaluations_of(stage)


def evaluations_of(stage: BestStage) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The evaluations that a stage compares, with the path of the setting."""
    for index, group in enumerate(stage.among):
        yield from _texts(("among", index), group)


def _texts(path: tuple[str | int, ...], value: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, tuple):
        yield from (((*path, index), text) for index, text in enumerate(value))


def rewards_of(stage: Stage) -> tuple[Any, ...]:
    """A stage's rewards; none where it has no such setting."""
    return getattr(stage, "rewards", ())


def wants_prompts(stage: Stage) -> bool:
    """Whether of its rows a stage needs the prompts only, and what rewards read; their kinds may differ then."""
    samples = stage.samples if isinstance(stage, EvaluateStage) else stage.kind == "sample" or bool(rewards_of(stage))
    return stage.answers[0] == 0 and samples


def monitor_of(stage: Stage) -> Monitor | None:
    """A stage's monitor; none where it has no such setting."""
    found: Monitor | None = getattr(stage, "monitor", None)
    return found


def sets_of(stage: Stage) -> dict[str, tuple[GateSet, ...]]:
    """The sets of prompts that a model is judged on before it ships, by setting; none of other stages."""
    return {key: found for key in SETS if (found := getattr(stage, key, ()))}


def data_below(stage: Stage) -> Iterator[tuple[tuple[str | int, ...], Data]]:
    """Data settings that `stage.datasets` does not name, with their paths: a monitor's, and those of a gate."""
    if (monitor := monitor_of(stage)) is not None and monitor.data is not None:
        yield ("monitor", "data"), monitor.data
    if isinstance(stage, ShipStage) and stage.data is not None:
        yield ("data",), stage.data
    for key, found in sets_of(stage).items():
        yield from (((key, index, "data"), one.data) for index, one in enumerate(found) if one.data is not None)


def asked_by(stage: Stage) -> dict[str, Any]:
    """Who else is asked: a stage's labeller and its critic, by setting."""
    asked = {key: getattr(stage, key, None) for key in ASKED}
    return {key: found for key, found in asked.items() if dataclasses.is_dataclass(found)}  # PPO's critic is a name


def all_rewards_of(stage: Stage) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """A stage's rewards, those that its monitor holds out, and who else is asked, each with the path of its setting."""
    yield from (((key,), found) for key, found in asked_by(stage).items())
    yield from ((("rewards", index), reward) for index, reward in enumerate(rewards_of(stage)))
    if (monitor := monitor_of(stage)) is not None:
        yield from ((("monitor", "rewards", index), reward) for index, reward in enumerate(monitor.rewards))
    for key, found in sets_of(stage).items():
        for place, one in enumerate(found):
            yield from (((key, place, "rewards", index), reward) for index, reward in enumerate(one.rewards))


def names_data(stage: Stage, path: Sequence[str | int]) -> bool:
    """Whether a name at this path of a stage is one of data, and not of a model."""
    below = any(tuple(path[: len(above)]) == above for above, _ in data_below(stage))
    return below or path[0] in (*stage.datasets, "among")


def models_of_reward(reward: Any) -> tuple[str, ...]:
    """The fields of a reward that name models; a class that reads models declares them in `models`.

    A reward that holds another says `reward.path`.
    """
    found: tuple[str, ...] = getattr(reward, "models", ())
    return found


def resolved(stage: Stage, path_of: Callable[[str], str]) -> Stage:
    """The stage with every name of a model in its rewards, in those of its monitor, and in who is asked, as a path."""
    changed: dict[str, Any] = {key: _resolved((found,), path_of)[0] for key, found in asked_by(stage).items()}
    if rewards_of(stage):
        changed["rewards"] = resolved_rewards(stage, path_of)
    if (monitor := monitor_of(stage)) is not None and monitor.rewards:
        changed["monitor"] = dataclasses.replace(monitor, rewards=_resolved(monitor.rewards, path_of))
    for key, sets in sets_of(stage).items():
        changed[key] = tuple(dataclasses.replace(one, rewards=_resolved(one.rewards, path_of)) for one in sets)
    return dataclasses.replace(stage, **changed)


def resolved_rewards(stage: Stage, path_of: Callable[[str], str]) -> tuple[Any, ...]:
    """The stage's rewards with every name of a model as a path."""
    return _resolved(rewards_of(stage), path_of)


def _resolved(rewards: Sequence[Any], path_of: Callable[[str], str]) -> tuple[Any, ...]:

    def at(value: Any) -> Any:
        return path_of(value) if isinstance(value, str) else tuple(map(path_of, value))

    return tuple(
        functools.reduce(lambda r, key: _replaced(r, key.split("."), at), models_of_reward(reward), reward)
        for reward in rewards
    )


def renamed(stage: Stage, model: Callable[[str], str | None], data: Callable[[str], Sequence[str]]) -> Stage:
    """The stage with every name of a model and every path of data changed.

    Args:
        model: another name, or null for the recipe's model (a reward's model is then left as it is named).
        data: the paths that stand for one; data that loses all of them is unset.
    """
    changed: dict[str, Any] = {key: _other_models(getattr(stage, key), model) for key in stage.models}
    changed |= {key: _other_paths(getattr(stage, key), data) for key in stage.datasets}
    stage = resolved(dataclasses.replace(stage, **changed), lambda text: model(text) or text)
    for above, held in data_below(stage):
        if above[0] not in stage.datasets:
            stage = _put(stage, above, _other_paths(held, data))
    return stage


def _other_models(value: Any, model: Callable[[str], str | None]) -> Any:
    if isinstance(value, tuple):
        return tuple(other for text in value if (other := model(text)) is not None)
    return model(value) if isinstance(value, str) else value


def _other_paths(value: Data | None, data: Callable[[str], Sequence[str]]) -> Data | None:
    if value is None:
        return None
    paths = tuple(dict.fromkeys(other for path in paths_of(value) for other in data(path)))
    if not paths:
        return None
    alone = isinstance(value.path, str) and len(paths) == 1
    return dataclasses.replace(value, path=paths[0] if alone else paths)


def _put(settings: Any, path: Sequence[str | int], value: Any) -> Any:
    """Settings with another value at a path of fields and places."""
    if not path:
        return value
    if isinstance(settings, tuple):
        return tuple(_put(old, path[1:], value) if i == path[0] else old for i, old in enumerate(settings))
    assert isinstance(path[0], str)
    return dataclasses.replace(settings, **{path[0]: _put(getattr(settings, path[0]), path[1:], value)})


def _replaced(settings: Any, path: Sequence[str], change: Callable[[Any], Any]) -> Any:
    """Settings with the value at a path of fields changed."""
    old = getattr(settings, path[0])
    new = _replaced(old, path[1:], change) if path[1:] else change(old)
    return dataclasses.replace(settings, **{path[0]: new})


def models_of(recipe: Recipe, stage: Stage) -> dict[str, str]:
    """The models a stage reads, by setting (`model`, `reference`, `rewards.0.path`), as the recipe names them."""
    found = {".".join(map(str, path)): text for path, text in named(stage) if not names_data(stage, path)}
    return {"model": model_of(recipe, stage), **found} if "model" in stage.models else found


def inputs_of(recipe: Recipe, stage: Stage) -> dict[str, str]:
    """What a stage reads, as the recipe names it: its models, then its data."""
    data = {key: ", ".join(paths_of(data)) for key, data in sources_of(stage).items()}
    if isinstance(stage, BestStage):
        data["among"] = ", ".join(text for _, text in evaluations_of(stage))
    return {**models_of(recipe, stage), **data}


def sources_of(stage: Stage) -> dict[str, Data]:
    """A stage's data settings by key, those it has."""
    found = {key: data for key in stage.datasets if (data := getattr(stage, key)) is not None}
    return found | {".".join(map(str, path)): data for path, data in data_below(stage)}


def paths_of(data: Data) -> tuple[str, ...]:
    """The paths of a data setting."""
    return (data.path,) if isinstance(data.path, str) else data.path


def hash_model(model: str, seed: int) -> str:
    """sha256 of a model folder's files with their names, or of the name where it is no folder.

    An adapter's is that of its files and its base model's.
    """
    folder = Path(model).expanduser()
    if is_adapter(str(folder)):
        return _hash_text(f"{hash_folder(folder)} {hash_model(base_of(str(folder)), seed)}")
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
    if path.startswith(GYM):
        return _hash_text(fingerprint(path, seed))
    files = data_files(path, split)
    return sha256(files) if files else _hash_name(f"{path}:{split}", seed)


def hash_artifact(path: Path) -> str:
    """sha256 of a folder or file that a stage left."""
    return hash_folder(path) if path.is_dir() else sha256([path])


def hash_stage(
    stage: Stage, *, seed: int, device: str, precision: str, inputs: Mapping[str, str], template: str | None = None
) -> str:
    """The hash that says whether a finished stage can stand for this one.

    Args: inputs: hashes of what it reads, by key.
    """
    said = {
        **({} if template is None else {"template": template}),
        "version": __version__,
        "settings": _numbers_only(stage),
        "seed": seed,
        "device": device,
        "precision": precision,
        "inputs": dict(inputs),
    }
    return _hash_text(json.dumps(said, sort_keys=True, default=str))


def code_files(stage: Stage) -> Iterator[tuple[str, Path]]:
    """The user's own files that a stage's rewards name as `file.py:function`, its constitution, and the folder of its
    tasks, by setting."""
    for key, value in _constitutions_of(stage):
        yield key, file_of(value)
    if isinstance(stage, EvaluateStage) and stage.tasks is not None and stage.tasks.folder is not None:
        yield "tasks.folder", Path(stage.tasks.folder).expanduser()
    for path, reward in all_rewards_of(stage):
        for key, value in _settings_of(reward, ".".join(map(str, path))):
            if isinstance(value, str) and ".py:" in value:
                yield key, Path(value.rpartition(":")[0]).expanduser()


def _constitutions_of(stage: Stage) -> Iterator[tuple[str, str]]:
    for key, holder in (("constitution", stage), ("labeller.constitution", asked_by(stage).get("labeller"))):
        if isinstance(found := getattr(holder, "constitution", None), str):
            yield key, found


def _settings_of(settings: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value below a settings dataclass with its path, through those that it holds."""
    for field in dataclasses.fields(settings):
        value, here = getattr(settings, field.name), f"{path}.{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _settings_of(value, here)
        else:
            yield here, value


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder, by hard links where the file system has them."""

    def link_or_copy(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copy2(a, b)

    shutil.copytree(source, target, copy_function=link_or_copy, ignore=shutil.ignore_patterns("checkpoints"))


def _numbers_only(stage: Stage) -> dict[str, Any]:
    plain: dict[str, Any] = dataclasses.asdict(stage)
    for key in stage.models:
        plain.pop(key, None)
    for key in stage.datasets:
        if plain.get(key):
            plain[key].pop("path")
    for path, reward in all_rewards_of(stage):
        settings: Any = plain
        for step in path:
            settings = settings[step]
        for key in models_of_reward(reward):
            *above, last = key.split(".")
            functools.reduce(lambda held, name: held[name], above, settings).pop(last)
    for path, _ in data_below(stage):
        settings = plain
        for step in path:
            settings = settings[step]
        settings.pop("path")
    for key in NO_NUMBERS:
        plain.get("training", {}).pop(key, None)
    return plain


def _hash_name(name: str, seed: int) -> str:
    return _hash_text(f"name:{name}:{seed}" if name.startswith("world:") else f"name:{name}")


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
