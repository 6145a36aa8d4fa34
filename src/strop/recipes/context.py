"""What a stage is given and what it gives back; the only contract between `run` and `stages`.

`execute(stage, context) -> StageResult` reads its inputs from the context's paths, writes its
artifacts under `stage_dir`, and reports through the context: one `step` call an optimizer step
writes metrics.jsonl, status.json and the terminal alike, so they cannot disagree.

No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.recipes.display import Display
from strop.recipes.journal import Journal
from strop.recipes.settings import Recipe, Stage
from strop.train.metrics import Kind
from strop.types import Group

if TYPE_CHECKING:
    from strop.evaluate.statistics import Measure


class Interrupted(Exception):
    """A stage saved what it had and stopped because it was asked to."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a finished stage leaves.

    Attributes:
        metrics: closing figures with their intervals, by TRL's names.
        artifacts: "model" (a Hugging Face folder), "samples" (JSONL of groups), ...; paths, either
            absolute or relative to the stage's folder.
        seconds: wall time. phases: seconds by phase (sampling, scoring, training, ...).
        data: rows, kept, dropped (reason -> count), kind, sha256 of what was read, as JSON values.
        peak_memory_mb: the most memory the stage held, where it was measured.
        inputs: what it turned out to read besides what the recipe names, by setting.
        skips: later stages that are not worth running any more.
    """

    metrics: Mapping[str, Measure] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    skips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """One stage's surroundings.

    Attributes:
        recipe: the whole run's settings (device, precision, threads).
        index: the stage's place in the recipe.
        run_dir, stage_dir: absolute; `stage_dir` exists.
        models: path or name of every model the stage reads, by setting: `model` is the one it starts
            from (for evaluate: the one sampled), then `reference`, `baseline`, `rewards.0.path`, ...
        seed: the stage's own, a function of the recipe's seed and the stage's name.
        should_stop: true once Ctrl-C or SIGTERM asked for it. A stage then saves a checkpoint
            after its current step and raises `Interrupted`.
        resolve: `@name` -> path of that stage's model; any other path or name unchanged.
        resolve_data: the same for data: `@name` -> path of that stage's samples.
        log_every: steps between lines of the plain display; files get every step.
    """

    recipe: Recipe
    index: int
    run_dir: Path
    stage_dir: Path
    models: Mapping[str, str]
    seed: int
    should_stop: Callable[[], bool]
    resolve: Callable[[str], str]
    resolve_data: Callable[[str], str]
    journal: Journal
    display: Display
    log_every: int = 1

    @property
    def model(self) -> str:
        """The model the stage starts from."""
        return self.models["model"]

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @property
    def stage(self) -> Stage:
        """The stage's settings."""
        return self.recipe.stages[self.index]

    def begin(self, facts: Mapping[str, str]) -> None:
        """Show what was loaded (label -> words: model, trainable share, rows kept) in the start block."""
        self.display.facts(self.name, facts)

    def rewind(self, step: int) -> None:
        """Go on at `step`, 0 where no checkpoint stands: forget this stage's metrics from that step on."""
        gone = self.journal.rewind(self.name, step)
        if step:
            self.event("resume", f"resumed at step {step}", step=step)
        elif gone:
            self.event("resume", f"no checkpoint was saved, so {gone} steps are done again", step=0)

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Record optimizer step `step` (counted from 0) of `steps`: file, status and terminal."""
        line = self.journal.metrics(self.name, step, metrics)
        self.journal.running(self.name, step + 1, steps)
        done = step + 1
        due = done in (1, steps) or done % self.log_every == 0
        self.display.step(self.name, done, steps, line, due=due)

    def phase(self, name: str) -> None:
        """Show what the stage does now: "loading", "sampling", "scoring", "training", "evaluating", "saving"."""
        self.display.phase(name)

    def event(self, kind: Kind, text: str, *, step: int | None = None, **extra: Any) -> None:
        """Record a thing worth a sentence, in events.jsonl and on the terminal."""
        self.journal.event(kind, text, stage=self.name, step=step, **extra)
        self.display.note(text, kind)

    def note_once(self, text: str) -> None:
        """A note that holds for the whole run, at the first of its stages that comes upon it."""
        if text not in self.journal.said:
            self.journal.said.add(text)
            self.event("note", text)

    def samples(self, step: int, groups: Sequence[Group]) -> None:
        """Show a few sampled answers on the terminal (the file is the stage's own)."""
        self.display.samples(self.name, step, groups)
