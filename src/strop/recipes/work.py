"""A run under way: its stages in order, what each left, and what is written about them.

A stage is (settings, inputs) -> artifacts. Its content hash stands in stages/<name>/stage.json;
a finished stage with the same hash is not run again, one with another hash is set aside.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strop import __version__
from strop.recipes import artifacts
from strop.recipes.context import Context, Interrupted, StageResult
from strop.recipes.display import Display
from strop.recipes.ending import story
from strop.recipes.journal import Journal, finite, read_json
from strop.recipes.kinds.ship import HELD_BACK, PASSED, ShipStage
from strop.recipes.leaving import without
from strop.recipes.licences import licences_of
from strop.recipes.rounds import rounds_of
from strop.recipes.settings import BestStage, Recipe, RefreshStage, Stage, TrainingStage
from strop.recipes.trouble import explain
from strop.recipes.words import duration
from strop.rewards.gym import GYM, resolve_gym
from strop.train.metrics import State, write_json
from strop.world.write import resolve

SUMMARY = (
    "name",
    "kind",
    "state",
    "seconds",
    "metrics",
    "artifacts",
    "inputs",
    "data",
    "hash",
    "phases",
    "peak_memory_mb",
)
"""What summary.json says of a stage."""


@dataclass(slots=True)
class Stop:
    """Whether somebody asked the run to stop."""

    asked: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """How a run was asked for.

    Attributes: changed: settings that differ from the recipe's. left_out: what of it has no data.
    """

    command: str
    changed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class Work:
    """One run under way: the stages done so far and where their artifacts are."""

    recipe: Recipe
    run_dir: Path
    display: Display
    told: Told
    stop: Stop
    journal: Journal
    done: list[dict[str, Any]] = field(default_factory=list)
    at: int = 0
    stepped: bool = False

    def facts(self) -> dict[str, str]:
        """The start block: what runs, from what, where."""
        stages = " -> ".join(stage.name for stage in self.recipe.stages)
        out = {"run": str(self._shown_dir()), "recipe": f"{self.recipe.name}: {stages}", "seed": str(self.recipe.seed)}
        changed = self.told.changed
        if changed:
            more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
            out["changed"] = "; ".join(changed[:4]) + more
        if self.told.left_out:
            out["left out"] = "; ".join(self.told.left_out)
        return out

    def stages_in_order(self) -> tuple[State, Exception | None, int]:
        """Run what is not done yet; how it ended, with the exit code."""
        try:
            while self.at < len(self.recipe.stages):
                self.stepped = False
                if self.stop.asked:
                    raise Interrupted
                self._stage(self.at, self.recipe.stages[self.at])
                self._skip(self.done[-1])
                self.write_summary("running")
                self.at += 1
            return "finished", None, HELD_BACK if self._held_back() else 0
        except (Interrupted, KeyboardInterrupt):
            self._unfinished("interrupted")
            return "interrupted", None, 130
        except Exception as error:
            self._record(error)
            self._unfinished("failed")
            mistake = isinstance(error, ValueError | FileNotFoundError) and not self.stepped
            return "failed", error, 2 if mistake else 1

    def close(self, state: State, error: Exception | None) -> Path | None:
        """Write status, summary and report, and show the end block; the report's path."""
        words = explain(error, self.recipe.stages[self.at]) if error else None
        summary = self.write_summary(state, words)
        self.journal.end(state, words)
        report = self._report()
        self.display.end(summary, [*story(self.run_dir, summary), "", *self._closing(state, words, report)])
        return report

    def write_summary(self, state: str, error: str | None = None) -> dict[str, Any]:
        """summary.json as of now."""
        stages = [{key: entry[key] for key in SUMMARY if key in entry} for entry in self.done]
        summary = {
            "name": self.recipe.name,
            "state": state,
            "error": error,
            "command": self.told.command,
            "seed": self.recipe.seed,
            "version": __version__,
            "seconds": round(sum(s["seconds"] for s in stages), 3),
            "difference": list(self.told.changed),
            "left_out": list(self.told.left_out),
            "stages": stages,
            "rounds": rounds_of(self.done),
            "lineage": self._lineage(),
            "licences": {name: found.to_json() for name, found in licences_of(self.recipe).items()},
        }
        write_json(self.run_dir / "summary.json", summary)
        return summary

    def _stage(self, index: int, stage: Stage) -> None:
        stage_dir = self.run_dir / "stages" / stage.name
        hashes = self._input_hashes(stage)
        seed = artifacts.stage_seed(self.recipe.seed, stage.name)
        device, precision, template = self.recipe.device, self.recipe.precision, self.recipe.template
        hash_ = artifacts.hash_stage(
            stage, seed=seed, device=device, precision=precision, inputs=hashes, template=template
        )
        before = read_json(stage_dir / "stage.json") if stage_dir.is_dir() else None
        if before is not None and before.get("hash") != hash_:
            self._set_aside(stage, stage_dir, before, hashes)
            before = None
        if before is not None and before["state"] in ("finished", "reused") and self._whole(stage_dir, before):
            self.journal.event("skip", f"{stage.name} is finished already", stage=stage.name)
            self.display.note(f"{stage.name} is finished already", "skip")
            self.done.append(before)
            return
        if self.recipe.reuse and before is None and self._reuse(stage, stage_dir, hash_):
            return
        stage_dir.mkdir(parents=True, exist_ok=True)
        opened = {
            "name": stage.name,
            "kind": stage.kind,
            "state": "running",
            "hash": hash_,
            "seed": seed,
            "inputs": artifacts.inputs_of(self.recipe, stage),
            "input_hashes": hashes,
            "seconds": float(before["seconds"]) if before else 0.0,
            "version": __version__,
        }
        write_json(stage_dir / "stage.json", opened)
        self._execute(index, stage, stage_dir, seed, opened)

    def _skip(self, entry: Mapping[str, Any]) -> None:
        """Take the stages that a finished one says are not worth running out of the recipe, and note them."""
        skipped = [stage for stage in self.recipe.stages if stage.name in entry.get("skips", ())]
        if not skipped:
            return
        self.recipe = without(self.recipe, [stage.name for stage in skipped])
        blank = {"state": "skipped", "seconds": 0.0, "metrics": {}, "artifacts": {}, "inputs": {}}
        self.done += [{"name": stage.name, "kind": stage.kind, **blank} for stage in skipped]
        text = f"{entry['name']}: skipped, as rounds before were no better: {', '.join(s.name for s in skipped)}"
        self.journal.event("skip", text, stage=entry["name"])
        self.display.note(text, "skip")

    def _execute(self, index: int, stage: Stage, stage_dir: Path, seed: int, opened: dict[str, Any]) -> None:
        from strop.recipes.stages import execute  # imports torch

        began = time.perf_counter()
        self.journal.stepped = False
        self.journal.event("start", f"{stage.name} begins", stage=stage.name)
        self.journal.running(stage.name)
        context = self._context(index, stage, stage_dir, seed)
        try:
            result = execute(stage, context)
        finally:
            self.stepped = self.journal.stepped
            opened["seconds"] = round(opened["seconds"] + time.perf_counter() - began, 3)
            write_json(stage_dir / "stage.json", opened)
        entry = self._entry(stage_dir, opened, result)
        write_json(stage_dir / "stage.json", entry)
        self.journal.event("finish", f"{stage.name} took {duration(entry['seconds'])}", stage=stage.name)
        self.done.append(entry)

    def _context(self, index: int, stage: Stage, stage_dir: Path, seed: int) -> Context:
        return Context(
            recipe=self.recipe,
            index=index,
            run_dir=self.run_dir,
            stage_dir=stage_dir,
            models={key: self.path_of(name) for key, name in artifacts.models_of(self.recipe, stage).items()},
            seed=seed,
            should_stop=lambda: self.stop.asked,
            resolve=self.path_of,
            resolve_data=lambda text: self.path_of(text, "samples"),
            journal=self.journal,
            display=self.display,
            log_every=stage.training.log_every if isinstance(stage, TrainingStage | RefreshStage) else 1,
        )

    def path_of(self, text: str, kind: str = "model") -> str:
        """`@name` as the path of that stage's artifact, `world:NAME` and `gym:NAME` as a file that is made.

        Any other text unchanged. Raises: ValueError if there is no such thing.
        """
        if text.startswith(GYM):
            return resolve_gym(text, self.run_dir / "gym", self.recipe.seed)
        if not text.startswith("@"):
            return resolve(text, self.run_dir / "world", self.recipe.seed)
        stage = next(s for s in self.done if s["name"] == text[1:])
        if kind not in stage["artifacts"]:
            left = ", ".join(stage["artifacts"]) or "nothing"
            raise ValueError(f"{text}: stage {text[1:]} left no {kind}, only {left}")
        return str(self.run_dir / stage["artifacts"][kind])

    def _input_hashes(self, stage: Stage) -> dict[str, str]:
        found = {}
        for key, text in artifacts.models_of(self.recipe, stage).items():
            found[key] = self._hash_named(text, "model") or artifacts.hash_model(text, self.recipe.seed)
        for path, text in artifacts.evaluations_of(stage) if isinstance(stage, BestStage) else ():
            entry = next(s for s in self.done if s["name"] == text[1:])
            key = ".".join(map(str, path))
            found |= {key: entry["artifact_hashes"]["samples"], f"{key}.model": entry["input_hashes"]["model"]}
        for key, data in artifacts.sources_of(stage).items():
            for place, source in enumerate(artifacts.paths_of(data)):
                known = self._hash_named(source, "samples") or artifacts.hash_data(source, data.split, self.recipe.seed)
                found[f"{key}.{place}"] = known
        for key, file in artifacts.code_files(stage):
            found[key] = artifacts.hash_artifact(file)
        return found

    def _hash_named(self, text: str, kind: str) -> str | None:
        """The hash of an earlier stage's artifact, known since it was left."""
        if not text.startswith("@"):
            return None
        self.path_of(text, kind)
        stage = next(s for s in self.done if s["name"] == text[1:])
        return str(stage["artifact_hashes"][kind])

    def _entry(self, stage_dir: Path, opened: Mapping[str, Any], result: StageResult) -> dict[str, Any]:
        paths = {kind: (stage_dir / path).resolve() for kind, path in result.artifacts.items()}
        for kind, path in paths.items():
            assert path.is_relative_to(self.run_dir) and path.exists(), f"{kind}: {path} is not in the run directory"
        return {
            **opened,
            "state": "finished",
            "metrics": {name: finite(dataclasses.asdict(m)) for name, m in result.metrics.items()},
            "artifacts": {kind: path.relative_to(self.run_dir).as_posix() for kind, path in paths.items()},
            "artifact_hashes": {kind: artifacts.hash_artifact(path) for kind, path in paths.items()},
            "phases": {name: round(seconds, 3) for name, seconds in result.phases.items()},
            "data": dict(result.data),
            "peak_memory_mb": result.peak_memory_mb,
            "inputs": {**opened["inputs"], **result.inputs},
            "skips": list(result.skips),
        }

    def _whole(self, stage_dir: Path, entry: Mapping[str, Any]) -> bool:
        """Whether a finished stage's artifacts are still what they were; if not, it is said and run again."""
        for kind, path in entry["artifacts"].items():
            place = self.run_dir / path
            if place.exists() and artifacts.hash_artifact(place) == entry["artifact_hashes"][kind]:
                continue
            what = "was changed" if place.exists() else "is gone"
            text = f"{path} {what} since the stage finished, so the stage runs again"
            self.journal.event("alarm", text, stage=entry["name"])
            self.display.note(text, "alarm")
            return False
        return True

    def _set_aside(self, stage: Stage, stage_dir: Path, before: Mapping[str, Any], hashes: Mapping[str, str]) -> None:
        """Move a stage's folder out of the way: it was made from other inputs or by another version."""
        old = before.get("input_hashes", {})
        changed = [k for k in {**old, **hashes} if old.get(k) != hashes.get(k)] or ["the version of strop"]
        replaced = self.run_dir / "replaced"
        replaced.mkdir(exist_ok=True)
        number = sum(1 for p in replaced.iterdir() if p.name.startswith(f"{stage.name}-"))
        shutil.move(stage_dir, replaced / f"{stage.name}-{number}")
        self.journal.rewind(stage.name, 0)
        text = f"{stage.name} starts again, since {', '.join(changed)} changed; its old files are in {replaced.name}/"
        self.journal.event("alarm", text, stage=stage.name)
        self.display.note(text, "alarm")

    def _reuse(self, stage: Stage, stage_dir: Path, hash_: str) -> bool:
        """Take over the stage from another run that finished the same one."""
        if isinstance(stage, ShipStage):  # it judges by evaluations and alarms of this very run
            return False
        for path in sorted(self.run_dir.parent.glob(f"*/stages/{stage.name}/stage.json")):
            entry = read_json(path)
            other = path.parents[2]
            if other == self.run_dir or entry.get("hash") != hash_ or entry.get("state") not in ("finished", "reused"):
                continue
            if not all((other / p).exists() for p in entry["artifacts"].values()):
                continue
            artifacts.copy_tree(path.parent, stage_dir)
            if not self._whole(stage_dir, entry):
                shutil.rmtree(stage_dir)
                continue
            self.journal.adopt(other, stage.name)
            entry = {**entry, "state": "reused"}
            (stage_dir / "stage.json").unlink()  # a hard link: the other run's must stay as it is
            write_json(stage_dir / "stage.json", entry)
            text = f"{stage.name} is taken from {other.name}, which has the same settings and inputs"
            self.journal.event("skip", text, stage=stage.name)
            self.display.note(text, "skip")
            self.done.append(entry)
            return True
        return False

    def _unfinished(self, state: str) -> None:
        """Put the stage that did not finish into the summary, with what is known of it."""
        stage = self.recipe.stages[self.at]
        if any(s["name"] == stage.name for s in self.done):
            return
        path = self.run_dir / "stages" / stage.name / "stage.json"
        entry = read_json(path) if path.exists() else None
        blank = {"name": stage.name, "kind": stage.kind, "seconds": 0.0, "metrics": {}, "artifacts": {}}
        entry = {**blank, **(entry or {}), "state": state}
        if path.exists():
            write_json(path, entry)
        self.done.append(entry)

    def _record(self, error: Exception) -> None:
        stage = self.recipe.stages[self.at]
        trace = "".join(traceback.format_exception(error))
        (self.run_dir / "error.txt").write_text(trace, "utf-8")
        self.journal.event("error", explain(error, stage), stage=stage.name, traceback=trace)
        if os.environ.get("STROP_DEBUG") == "1":
            print(trace, file=sys.stderr)

    def _report(self) -> Path | None:
        from strop.report import write_report

        try:
            return Path(write_report(self.run_dir))
        except Exception as error:  # a report must not turn a finished run into a failed one
            self.display.note(f"the report could not be written: {type(error).__name__}: {error}", "error")
            return None

    def _lineage(self) -> list[dict[str, str]]:
        """Every model of the run with its hash and what it came from, parents first."""
        found: dict[str, dict[str, str]] = {}
        for stage in self.done:
            model = str(stage.get("inputs", {}).get("model", ""))
            if model and not model.startswith("@") and model not in found:
                found[model] = {"name": model, "kind": "base", "hash": stage["input_hashes"]["model"]}
            if "model" in stage["artifacts"]:
                hash_ = stage["artifact_hashes"]["model"]
                entry = {"name": stage["name"], "kind": stage["kind"], "hash": hash_, "from": model.removeprefix("@")}
                found[stage["name"]] = entry
        return list(found.values())

    def _closing(self, state: State, error: str | None, report: Path | None) -> list[str]:
        """The last lines: how it ended, the report, and the next commands."""
        run_dir = self._shown_dir()
        lines = [f"{state}: {run_dir}"]
        if error is not None:
            lines.append(error)
            lines.append(f"the whole error: {run_dir / 'error.txt'}")
        if report is not None:
            lines.append(f"report: {run_dir / report.relative_to(self.run_dir)}")
        if state != "finished":
            return [*lines, f"{'resume' if error is None else 'resume, once that is mended'}: strop run {run_dir}"]
        if self._held_back():
            lines.append(f"not shipped, since the gate did not pass; judge again with strop ship {run_dir} --gate-only")
        models = [run_dir / s["artifacts"]["model"] for s in self.done if "model" in s["artifacts"]]
        talking = [folder for folder in models if _writes(folder)]
        if models:
            lines += ["next:", *(f"  strop chat {folder}" for folder in talking[-1:])]
            kinds = {s["kind"] for s in self.done}
            verb = "ship" if talking and "evaluate" in kinds and "ship" not in kinds else "export"
            lines += [f"  strop {verb} {run_dir} --to my-model", f"  strop run {run_dir}/config.yaml seed=1"]
        return lines

    def _held_back(self) -> bool:
        """Whether a gate did not let the model pass."""
        return any(s["kind"] == "ship" and not s["metrics"][PASSED]["value"] for s in self.done if s["metrics"])

    def _shown_dir(self) -> Path:
        here = Path.cwd()
        return self.run_dir.relative_to(here) if self.run_dir.is_relative_to(here) else self.run_dir


def _writes(folder: Path) -> bool:
    """Whether a model writes text, and does not only score it."""
    architectures = read_json(folder / "config.json").get("architectures") or ()
    return not any(name.endswith("Classification") for name in architectures)
