"""Copies a run's model to a folder of its own and checks that the copy is the model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from strop.recipes import artifacts, rundir
from strop.recipes.journal import read_json

NEEDED = ("config.json", "tokenizer.json")


def export_model(run_dir: Path, to: Path | None, stage: str | None) -> Path:
    """Copy the model of a stage (the last that left one) and return the new folder.

    The copy is compared with the hash that was written down when the stage finished.
    Raises: ValueError if there is no such model, the target exists, or the copy differs.
    """
    if not rundir.is_run(run_dir):
        raise ValueError(f"{run_dir}: no run directory; `strop ls` lists the runs")
    entry = _stage(run_dir, stage)
    source = run_dir / entry["artifacts"]["model"]
    target = to or Path(run_dir.resolve().name)
    if target.exists():
        raise ValueError(f"{target} exists; name a new folder, as --to {target}-2")
    missing = [name for name in NEEDED if not (source / name).is_file()] if source.is_dir() else [str(source)]
    if missing or not list(source.glob("*.safetensors")):
        raise ValueError(f"{source}: not a whole model folder; it has no {', '.join(missing) or 'safetensors file'}")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.copytree(source, part)
        if artifacts.hash_folder(part) != entry["artifact_hashes"]["model"]:
            raise ValueError(f"{source}: the files are not those the stage left; run `strop run {run_dir}` to mend it")
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _stage(run_dir: Path, name: str | None) -> dict[str, Any]:
    entries: list[dict[str, Any]] = [read_json(path) for path in run_dir.glob("stages/*/stage.json")]
    left = {e["name"]: e for e in entries if "model" in e.get("artifacts", {})}
    if name is not None and name not in left:
        raise ValueError(f"{run_dir}: stage {name} left no model; those that did: {', '.join(left) or 'none'}")
    if not left:
        raise ValueError(f"{run_dir}: no stage has left a model yet; resume it with `strop run {run_dir}`")
    summary = read_json(run_dir / "summary.json") or {}
    order = [s["name"] for s in summary.get("stages", []) if s["name"] in left] or list(left)
    return left[name or order[-1]]
