"""Runs a recipe: stage after stage into one run directory, resumable at any point.

Whatever ends a run (its last stage, Ctrl-C, SIGTERM, an error), status.json, summary.json and
report.html say so. Left out: several processes (torchrun).
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.recipes import rundir
from strop.recipes.config import Overrides, Ref, as_values, difference, dump, load_recipe, read_recipe
from strop.recipes.display import Display, Kind, make
from strop.recipes.journal import Journal, read_json
from strop.recipes.plain import to_plain
from strop.recipes.preflight import check_inputs
from strop.recipes.settings import Recipe
from strop.recipes.work import Stop, Told, Work
from strop.train.metrics import State


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to.

    Attributes:
        metrics: stage -> measure -> {"value", "low", "high", "n"}.
        artifacts: stage -> "model", "samples", ... -> absolute path.
        report: the HTML file; null where it could not be written.
        error: what failed it. exit_code: 0 finished, 1 failed, 2 a user's mistake in recipe or inputs,
            3 finished, but a gate held the model back, 130 stopped.
    """

    path: Path
    state: State
    metrics: Mapping[str, Mapping[str, Mapping[str, float | int | None]]]
    artifacts: Mapping[str, Mapping[str, Path]]
    report: Path | None
    error: Exception | None = None
    exit_code: int = 0

    @property
    def model(self) -> Path | None:
        """The folder of the last model a stage left."""
        models = [found["model"] for found in self.artifacts.values() if "model" in found]
        return models[-1] if models else None


def run(ref: Ref | Sequence[Ref] | Recipe, overrides: Overrides = (), *, display: Kind = "auto") -> RunResult:
    """Run a recipe, or go on with a run directory.

    Args:
        ref: a built-in name, a YAML file, a mapping, a `Recipe`, or a run directory to resume.
        overrides: `["objective.beta=0.1"]` or `{"objective.beta": 0.1, "rewards": [my_function]}`.
    Returns: the result, also of a run that was interrupted.
    Raises: RecipeError for the recipe, ValueError for inputs, and whatever failed a stage; the run
        directory then has the traceback in error.txt.
    """
    result = start(ref, overrides, display=make(display), command=_call(ref, overrides))
    if result.error is not None:
        raise result.error
    return result


def start(
    ref: Ref | Sequence[Ref] | Recipe, overrides: Overrides, *, display: Display, command: str | None
) -> RunResult:
    """`run`, with failures of stages in the result rather than raised.

    Args: command: what does the same again; None is the run directory's own config.yaml.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("strop run under torchrun: runs of several processes are not written yet; start one process")
    if isinstance(ref, str | Path) and rundir.is_run(Path(ref)):
        return _resume(Path(ref), overrides, display)
    if isinstance(ref, Recipe):
        reading, changed = read_recipe(to_plain(ref), overrides), []
    else:
        reading = read_recipe(ref, overrides)
        changed = difference(ref, overrides)
    recipe = reading.recipe
    check_inputs(recipe)
    run_dir = rundir.create(Path(recipe.runs).expanduser(), recipe.name, dump(recipe))
    left_out, again = reading.left_out, command or shlex.join(["strop", "run", str(run_dir / "config.yaml")])
    return perform(recipe, run_dir, display=display, command=again, changed=changed, left_out=left_out)


def _resume(run_dir: Path, overrides: Overrides, display: Display) -> RunResult:
    if overrides:
        fix = f"start a new run with `strop run {run_dir}/config.yaml key=value`"
        raise ValueError(f"{run_dir}: a run keeps its settings, so resuming takes no overrides; {fix}")
    recipe = load_recipe(run_dir)
    check_inputs(recipe)
    before = read_json(run_dir / "summary.json") or {}
    command, changed = str(before.get("command", f"strop run {run_dir}")), list(before.get("difference", []))
    left_out = tuple(before.get("left_out", ()))
    return perform(recipe, run_dir, display=display, command=command, changed=changed, left_out=left_out)


def perform(
    recipe: Recipe,
    run_dir: Path,
    *,
    display: Display,
    command: str,
    changed: Sequence[str],
    left_out: tuple[str, ...] = (),
) -> RunResult:
    """Run or resume the recipe in a run directory that exists; every outcome is in the result."""
    run_dir = run_dir.resolve()
    with rundir.locked(run_dir), listening(display) as stop:
        told = Told(command, tuple(changed), left_out)
        work = Work(recipe, run_dir, display, told, stop, Journal(run_dir))
        display.start(work.facts())
        state, error, code = work.stages_in_order()
        report = work.close(state, error)
    metrics = {s["name"]: s["metrics"] for s in work.done}
    found = {s["name"]: {k: run_dir / p for k, p in s["artifacts"].items()} for s in work.done}
    return RunResult(run_dir, state, metrics, found, report, error, code)


@contextmanager
def listening(display: Display) -> Iterator[Stop]:
    """Ctrl-C or SIGTERM once sets `asked`; a second time raises KeyboardInterrupt where the run is."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only
        return

    def handle(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        display.note("stopping: this step is finished and saved; again to stop now", "interrupt")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _call(ref: Any, overrides: Overrides) -> str | None:
    """The command line that does what a Python call did, as far as texts can say it; None where no file was named."""
    if not isinstance(ref, str | Path):
        return None
    if isinstance(overrides, Mapping):
        values = {key: as_values(value) for key, value in overrides.items()}
        pairs = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in values.items()]  # JSON is YAML too
    else:
        pairs = list(overrides)
    return shlex.join(["strop", "run", str(ref), *pairs])
