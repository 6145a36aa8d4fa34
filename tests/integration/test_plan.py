"""The plan beside real runs, each in a process of its own: memory within 15 % of what the stage records, and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from strop.recipes.config import load_recipe
from strop.recipes.planning.place import MIB
from strop.recipes.planning.plan import plan

WITHIN = 0.15


def recorded(recipe: Path) -> dict[str, Any]:
    """stage.json of the recipe's last stage, after a run in a fresh process."""
    command = [sys.executable, "-m", "strop.cli", "run", str(recipe), "--display", "quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    stages = sorted((recipe.parent / "runs").glob("*/stages/*/stage.json"), key=lambda path: path.stat().st_mtime)
    found: dict[str, Any] = json.loads(stages[-1].read_text())
    return found


def write(folder: Path, tiny: Any, *stages: dict[str, Any]) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(tiny.recipe(folder / "runs", *stages)))
    return file


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_the_peak_is_as_planned(kind: str, tiny: Any, tmp_path: Path) -> None:
    stage = {**getattr(tiny, kind)(steps=2, batch_size=16, micro_batch_tokens=2048), "data": tiny.data("sft")}
    if kind == "grpo":
        stage["data"] = tiny.data("prompts")
    file = write(tmp_path, tiny, stage)
    (planned,) = plan(load_recipe(str(file)), (), measuring=False)
    assert planned.peak.total / MIB == pytest.approx(recorded(file)["peak_memory_mb"], rel=WITHIN)


@pytest.mark.slow
def test_a_measured_step_gives_time_and_the_same_memory(tiny: Any, tmp_path: Path) -> None:
    file = write(tmp_path, tiny, tiny.dpo(steps=6, batch_size=32, micro_batch_tokens=2048))
    (planned,) = plan(load_recipe(str(file)), ())
    real = recorded(file)
    assert planned.peak.total / MIB == pytest.approx(real["peak_memory_mb"], rel=WITHIN)
    assert planned.time is not None and planned.time.stage is not None
    assert 0.3 < planned.time.stage / real["seconds"] < 3, "a busy machine may be thrice as slow a minute later"


@pytest.mark.slow
def test_a_stage_behind_a_larger_one_records_its_own_peak(tiny: Any, tmp_path: Path) -> None:
    """Stages share a process; what an earlier one freed is no part of a later one's peak."""
    large = {**tiny.sft(steps=2, batch_size=96, micro_batch_tokens=16384), "name": "large"}
    small = {**tiny.sft(steps=1, batch_size=2), "name": "small"}
    both = recorded(write(tmp_path, tiny, large, small))
    (tmp_path / "alone").mkdir()
    alone = recorded(write(tmp_path / "alone", tiny, small))
    assert both["name"] == "small"
    assert both["peak_memory_mb"] == pytest.approx(alone["peak_memory_mb"], rel=0.08)
