"""The stages of a recipe that is being expanded, each with where it was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from strop.recipes.settings import Repeat, Stage
from strop.recipes.yaml12 import Path

SCORERS = ("reward", "process")
"""Kinds for whose models the one they start from cannot stand."""


@dataclass(frozen=True, slots=True)
class Step:
    """A stage of the expanded recipe.

    Attributes:
        written: the path of what it was made of. stage: null where that could not be read.
        block, round: the repeat it is of, and in which round; else "" and 0.
    """

    written: Path
    stage: Stage | None
    block: str = ""
    round: int = 0

    @property
    def name(self) -> str:
        """The stage's name; "" where it could not be read."""
        return self.stage.name if self.stage is not None else ""


@dataclass(frozen=True, slots=True)
class Block:
    """A repeat and the stages in it."""

    written: Path
    settings: Repeat
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A stage that has no data. missing: the settings that would give it some, its own before earlier stages'."""

    written: Path
    name: str
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} (no {' or '.join(self.missing)})"

    @property
    def fix(self) -> str:
        """What would bring it back, in words."""
        others = f", or {' or '.join(self.missing[1:])}" if self.missing[1:] else ""
        return f"give {self.missing[0]}={'MODEL' if self.missing[0].endswith('.model') else 'FILE'}{others}"


@dataclass(frozen=True, slots=True)
class Expanded:
    """What became of a written recipe.

    Attributes: problems: what could not be expanded, by the path where it was written.
    """

    steps: tuple[Step, ...]
    left_out: tuple[LeftOut, ...] = ()
    problems: tuple[tuple[Path, str], ...] = ()

    def written(self, path: Path) -> Path:
        """Where a setting of the expanded recipe was written."""
        if path[:1] != ("stages",) or len(path) < 2:
            return path
        assert isinstance(path[1], int)
        return (*self.steps[path[1]].written, *path[2:])


Entry = Step | Block
Problems = list[tuple[Path, str]]
Change = Callable[[Stage], Stage]


def entry_of(path: Path, entry: Stage | Repeat | None) -> Entry:
    """A stage or a repeat with its path; null where it could not be read."""
    if not isinstance(entry, Repeat):
        return Step(path, entry)
    steps = (Step((*path, "stages", i), stage, entry.name) for i, stage in enumerate(entry.stages))
    return Block(path, entry, tuple(steps))


def flat(entries: Sequence[Entry]) -> list[Step]:
    """The stages as they are written, those of blocks among them."""
    return [step for entry in entries for step in ((entry,) if isinstance(entry, Step) else entry.steps)]


def source(path: str) -> str:
    """The stage that a path of data names, `@x` or `@x*`; "" for any other path."""
    return path.removeprefix("@").removesuffix("*") if path.startswith("@") else ""


def changed(entry: Entry, change: Change) -> Entry:
    """An entry with its stage, or all those of a block, changed."""
    if isinstance(entry, Block):
        return replace(entry, steps=tuple(with_stage(step, change) for step in entry.steps))
    return with_stage(entry, change)


def with_stage(step: Step, change: Change) -> Step:
    """A step with its stage changed, where that could be read."""
    return step if step.stage is None else replace(step, stage=change(step.stage))
