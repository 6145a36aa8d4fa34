"""What a run left behind, for shipping: its settings, its finished stages, and the model to take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.model.adapter import is_adapter
from strop.recipes import artifacts, rundir
from strop.recipes.config import load_recipe
from strop.recipes.journal import read_json
from strop.recipes.settings import Recipe
from strop.rewards.gym import GYM, resolve_gym
from strop.world.write import resolve

DONE = ("finished", "reused")
"""States of a stage whose artifacts stand."""
Entry = Mapping[str, Any]
"""A stage.json."""


@dataclass(frozen=True, slots=True)
class Left:
    """A run directory: the recipe, and stage.json of every stage that was begun, in the recipe's order."""

    run_dir: Path
    recipe: Recipe
    entries: tuple[Entry, ...]

    @property
    def done(self) -> list[Entry]:
        """The stages that are finished."""
        return [entry for entry in self.entries if entry.get("state") in DONE]

    def entry(self, name: str) -> Entry | None:
        """A finished stage by its name."""
        return next((entry for entry in self.done if entry["name"] == name), None)

    def path_of(self, text: str, kind: str = "model") -> str:
        """`@name` as that stage's artifact, `world:` and `gym:` as the run's own files; any other text unchanged.

        Raises: ValueError if the stage is not finished or left no such thing.
        """
        if text.startswith(GYM):
            return resolve_gym(text, self.run_dir / "gym", self.recipe.seed)
        if not text.startswith("@"):
            return resolve(text, self.run_dir / "world", self.recipe.seed)
        entry = self.entry(text[1:])
        if entry is None or kind not in entry["artifacts"]:
            left = "is not finished" if entry is None else f"left no {kind}"
            raise ValueError(f"{text}: stage {text[1:]} of {self.run_dir} {left}")
        return str(self.run_dir / entry["artifacts"][kind])

    def ancestors(self, name: str) -> list[str]:
        """The stage and all that it came from, by models and by data."""
        found: dict[str, None] = {}
        todo = [name]
        while todo:
            entry = self.entry(todo.pop())
            if entry is not None and entry["name"] not in found:
                found[entry["name"]] = None
                todo += list(_sources(entry))
        return list(found)

    def was_folder(self, model: str) -> bool:
        """Whether stages read this model from a folder, which need not be there any more, or from here."""
        if Path(model).expanduser().is_dir():
            return True
        read = [
            e.get("input_hashes", {}).get(k) for e in self.done for k, v in e.get("inputs", {}).items() if v == model
        ]
        return any(read) and artifacts.hash_model(model, self.recipe.seed) not in read

    def came_in(self, hash_: str) -> bool:
        """Whether a stage read these very weights from outside the run, so that no training of it is in them."""
        return any(
            entry.get("input_hashes", {}).get(key) == hash_
            for entry in self.done
            for key, text in entry.get("inputs", {}).items()
            if not str(text).startswith("@")
        )

    def start_of(self, name: str) -> str:
        """What the stage's model was before any training of this run, as the recipe names it.

        Raises: ValueError if nothing says it.
        """
        seen: set[str] = set()
        while (entry := self.entry(name)) is not None and name not in seen:
            seen.add(name)
            inputs = entry.get("inputs", {})
            before = inputs.get("model") or next((v for k, v in inputs.items() if k.startswith("members.")), None)
            before = before or next((f"@{source}" for source in _sources(entry)), self.recipe.model)
            if before is None:
                break
            if not before.startswith("@"):
                return str(before)
            name = before[1:]
        raise ValueError(f"{self.run_dir}: nothing says which model {name} was trained from; name it, as against=MODEL")


def _sources(entry: Entry) -> Iterator[str]:
    """The stages that a stage read from."""
    for text in entry.get("inputs", {}).values():
        yield from (part.removeprefix("@").removesuffix("*") for part in str(text).split(", ") if part.startswith("@"))


def read_left(run_dir: Path) -> Left:
    """What stands in a run directory.

    Raises: ValueError if it is none, or its config.yaml cannot be read.
    """
    if not rundir.is_run(run_dir):
        raise ValueError(f"{run_dir}: no run directory; `strop ls` lists the runs")
    recipe = load_recipe(run_dir)
    found = [read_json(run_dir / "stages" / stage.name / "stage.json") for stage in recipe.stages]
    return Left(run_dir, recipe, tuple(entry for entry in found if entry))


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is to ship.

    Attributes:
        stage: the one that left it. hash: of its folder, or of its adapter's where that is all there is.
        model: the folder that is asked; where only an adapter is left, the adapter's.
        adapter: the trained adapter's folder, if one was trained and is still there.
    """

    left: Left
    stage: str
    hash: str
    model: Path
    adapter: Path | None

    @property
    def whole(self) -> bool:
        """Whether the model's own weights are there, and not an adapter only."""
        return self.model != self.adapter


def subject_of(left: Left, stage: str | None) -> Subject:
    """The model of a stage, or of the last stage that left one that writes.

    Raises: ValueError if the run is not at its end and no stage is named, if there is no model, or it only scores.
    """
    if stage is None:
        _at_its_end(left)
    found = {entry["name"]: entry for entry in left.done if entry["kind"] != "ship" and _folder(left, entry)}
    scores = {name: kind for name, entry in found.items() if (kind := _scorer(left, entry))}
    if stage is not None and stage not in found:
        raise ValueError(f"{left.run_dir}: stage {stage} left no model; those that did: {', '.join(found) or 'none'}")
    writers = [name for name in found if name not in scores]
    name = stage or (writers[-1] if writers else None)
    if name in scores or (name is None and scores):
        raise ValueError(_only_scores(left, scores, name, writers))
    if name is None:
        raise ValueError(f"{left.run_dir}: no stage has left a model yet; go on with `strop run {left.run_dir}`")
    return _subject(left, found[name])


def _only_scores(left: Left, scores: Mapping[str, str], name: str | None, writers: list[str]) -> str:
    told = ", ".join(f"{stage} ({kind})" for stage, kind in scores.items() if name in (None, stage))
    text = f"{left.run_dir}: {told} scores answers and writes none, so there is nothing to serve"
    if writers:
        return f"{text}; name a stage that left a model that writes: {', '.join(writers)}"
    return f"{text}; `strop export {left.run_dir}` copies it, to be read by rewards=[{{name: model, path: FOLDER}}]"


def _at_its_end(left: Left) -> None:
    """Raises ValueError if a stage that trains or chooses a model is not done: the last one then is not the run's."""
    waiting = [s.name for s in left.recipe.stages if "model" in s.leaves and s.kind != "ship"]
    waiting = [name for name in waiting if left.entry(name) is None and not _skipped(left, name)]
    if not waiting:
        return
    there = [entry["name"] for entry in left.done if "model" in entry.get("artifacts", {})]
    hint = f", or ship what is there by its stage: --stage {there[-1]}" if there else ""
    state = (read_json(left.run_dir / "status.json") or {}).get("state", "unfinished")
    raise ValueError(
        f"{left.run_dir}: the run is {state}, and {', '.join(waiting)} not finished; go on with "
        f"`strop run {left.run_dir}`{hint}"
    )


def _skipped(left: Left, name: str) -> bool:
    """Whether a stage that ended the rounds left this one out."""
    return any(name in entry.get("skips", ()) for entry in left.done)


def _folder(left: Left, entry: Entry) -> Path | None:
    """Where the stage's model is: its folder, or its adapter's where only that is left."""
    for kind in ("model", "adapter"):
        path = entry.get("artifacts", {}).get(kind)
        if path is not None and (left.run_dir / path).is_dir():
            return left.run_dir / str(path)
    return None


def _scorer(left: Left, entry: Entry) -> str:
    """The class of a model that only scores; empty for one that writes."""
    folder = _folder(left, entry)
    assert folder is not None
    config = read_json(folder / "config.json") or read_json(folder / "adapter_config.json") or {}
    kinds = [*(config.get("architectures") or ()), str(config.get("task_type") or "")]
    return next((kind for kind in kinds if kind.endswith("Classification") or kind in ("SEQ_CLS", "TOKEN_CLS")), "")


def _subject(left: Left, entry: Entry) -> Subject:
    folder = _folder(left, entry)
    assert folder is not None
    kind = "adapter" if is_adapter(str(folder)) else "model"
    known = entry.get("artifact_hashes", {}).get(kind)
    actual = artifacts.hash_folder(folder)
    if known is not None and actual != known:
        raise ValueError(
            f"{folder}: the files are not those that stage {entry['name']} left; `strop run {left.run_dir}` mends it"
        )
    beside = entry.get("artifacts", {}).get("adapter")
    adapter = left.run_dir / str(beside) if beside and (left.run_dir / str(beside)).is_dir() else None
    return Subject(left, entry["name"], actual, folder, adapter)
