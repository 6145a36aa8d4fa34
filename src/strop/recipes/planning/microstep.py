"""One measured step of a stage, in a process of its own: random weights, few rows, the recipe's settings.

The stage itself is run, as `strop run` would, for two steps: the first takes the optimizer's memory, the second is
timed. Rewards are replaced by one that costs nothing, so nobody is asked and no reward model is loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strop.recipes.config import dump
from strop.recipes.kinds.ppo import SHARED
from strop.recipes.settings import OnPolicyStage, PPOStage, Recipe, TrainingStage
from strop.rewards import Custom

MODULE = "strop.recipes.planning.microstep"
STEPS = 2
LIMIT_S = 240.0
"""A measurement that takes longer is given up."""
WORK = 1.5e12
"""Floating-point operations that the measured steps may take, about; deeper models are measured in fewer layers."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the step took.

    Attributes: peak, process: bytes, at most and before the model was loaded. seconds: by phase, of one step.
        loading: seconds before the first step.
    """

    peak: float
    process: float
    seconds: Mapping[str, float]
    loading: float


def spread(completion: str, row: object) -> float:
    """A reward that costs nothing and differs between answers, so that none is left out for being like the others."""
    return float(sum(map(ord, completion)) % 97)


def small(recipe: Recipe, stage: TrainingStage, batch_size: int, model: Path) -> Recipe:
    """The recipe of one stage, cut to two steps on a model of random weights."""
    training = replace(
        stage.training, steps=STEPS, batch_size=batch_size, save_every=0, eval_every=0, eval_fraction=0.0, log_every=1
    )
    changed: dict[str, Any] = {"training": training, "model": str(model), "eval_data": None, "name": "step"}
    if "monitor" in stage.__dataclass_fields__:
        changed["monitor"] = None
    if isinstance(stage, OnPolicyStage):
        changed["rewards"] = (Custom(function=f"{MODULE}:spread", label="spread"),)
        changed["reference"] = None
    if isinstance(stage, PPOStage):
        changed["step_rewards"] = None
        changed["critic"] = stage.critic if stage.critic == SHARED else None
    stage = replace(stage, **changed)
    return replace(recipe, name="step", model=str(model), stages=(stage,), reuse=False)


def write_model(source: Path, folder: Path, layers: int | None) -> None:
    """A folder with a config, of fewer layers where told, and the tokenizer; no weights."""
    folder.mkdir()
    for file in source.iterdir():
        heavy = file.suffix in (".safetensors", ".bin", ".pt", ".gguf") or file.name.endswith(".index.json")
        if file.is_file() and not heavy:
            (folder / file.name).write_bytes(file.read_bytes())
    if layers is None:
        return
    config = json.loads((source / "config.json").read_text("utf-8"))
    text = config.get("text_config", config)
    key = next(k for k in ("num_hidden_layers", "n_layer", "num_layers") if k in text)
    text[key] = layers
    if text.get("layer_types"):
        text["layer_types"] = text["layer_types"][:layers]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def measure(recipe: Recipe, stage: TrainingStage, batch_size: int, source: Path, layers: int | None) -> Measured:
    """Run the steps and read what they took.

    Raises: RuntimeError saying why it could not be measured.
    """
    with tempfile.TemporaryDirectory(prefix="strop-plan-") as place:
        write_model(source, Path(place) / "model", layers)
        cut = replace(small(recipe, stage, batch_size, Path(place) / "model"), runs=f"{place}/runs")
        (Path(place) / "step.yaml").write_text(dump(cut), "utf-8")
        return _child(Path(place))


def _child(place: Path) -> Measured:
    command = [sys.executable, "-m", MODULE, str(place / "step.yaml")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env={**os.environ})
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"two steps took longer than {LIMIT_S:.0f} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise RuntimeError(said[-1])
    found = json.loads(lines[-1])
    return Measured(found["peak"], found["process"], found["seconds"], found["loading"])


def main(file: str) -> None:
    """The process: import what a run imports, look at the memory, run, and say what it took, as a line of JSON."""
    import strop.recipes.stages  # noqa: F401
    from strop.recipes.run import run
    from strop.train.memory import MIB, memory_mb

    process = memory_mb() * MIB
    result = run(file, display="quiet")
    if result.error is not None:
        raise SystemExit(f"{type(result.error).__name__}: {result.error}")
    (stage,) = json.loads((result.path / "summary.json").read_text("utf-8"))["stages"]
    lines = [json.loads(line) for line in (result.path / "metrics.jsonl").read_text("utf-8").splitlines()]
    last = {k.removeprefix("phase/").removesuffix("_s"): v for k, v in lines[-1].items() if k.startswith("phase/")}
    spent = sum(v for line in lines for k, v in line.items() if k.startswith("phase/"))
    told = {"peak": stage["peak_memory_mb"] * MIB, "process": process, "seconds": last}
    print(json.dumps({**told, "loading": max(0.0, stage["seconds"] - spent)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
