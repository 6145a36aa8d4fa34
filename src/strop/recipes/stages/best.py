"""The best stage: the model of the best of several evaluations, and whether more rounds are worth their time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.evaluate.statistics import Measure
from strop.recipes import artifacts
from strop.recipes.context import Context, StageResult
from strop.recipes.journal import read_json
from strop.recipes.settings import BestStage
from strop.recipes.stages.common import load_frozen, tokenizer_of


def run(stage: BestStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    began = time.perf_counter()
    entries = {name: read_json(context.run_dir / "stages" / name / "stage.json") for name in _names(stage)}
    rounds = [[_figure(entries[text[1:]], stage, context) for text in group] for group in stage.among]
    values = [v for group in rounds for v in group if v is not None]
    if not values:
        raise ValueError(f"{stage.name}.metric: {stage.metric} has no value in any of {', '.join(_names(stage))}")
    place, best = _best(rounds, stage)
    winner = entries[stage.among[place][rounds[place].index(best)][1:]]
    told = f"{stage.metric} {best:.4g} in {winner['name']} is the best of {len(values)}"
    context.begin({"best": told})
    since = sum(1 for group in rounds[place + 1 :] if any(v is not None for v in group))
    over = stage.patience is not None and since >= stage.patience
    context.event("note", told + (f", and {since} of {stage.patience} rounds since were not" if over else ""))
    context.phase("saving")
    left = _leave(winner["inputs"]["model"], context)
    return StageResult(
        {stage.metric or "": Measure(**winner["metrics"][stage.metric])},
        left,
        phases={"saving": time.perf_counter() - began},
        inputs={"model": winner["inputs"]["model"], "best": f"@{winner['name']}"},
        skips=stage.skips if over else (),
    )


def _best(rounds: Sequence[Sequence[float | None]], stage: BestStage) -> tuple[int, float]:
    """The round with the best value, and that value: each later one must be better by more than `min_gain`."""
    place, best = -1, 0.0
    for i, group in enumerate(rounds):
        known = [v for v in group if v is not None]
        value = (max if stage.better == "higher" else min)(known, default=best)
        gain = value - best if stage.better == "higher" else best - value
        if known and (place < 0 or gain > stage.min_gain):
            place, best = i, value
    return place, best


def _names(stage: BestStage) -> list[str]:
    return [text[1:] for group in stage.among for text in group]


def _figure(entry: Mapping[str, Any], stage: BestStage, context: Context) -> float | None:
    """An evaluation's value; null where nothing could be scored.

    Raises: ValueError if it has no such figure.
    """
    metrics = entry["metrics"]
    if stage.metric not in metrics:
        known = ", ".join(name for name in metrics if "/" not in name)
        raise ValueError(f"{stage.name}.metric: {entry['name']} has no figure {stage.metric}; it has: {known}")
    value: float | None = metrics[stage.metric]["value"]
    if value is None:
        context.event("note", f"{entry['name']} could not be scored, so it is not compared")
    return value


def _leave(text: str, context: Context) -> dict[str, str]:
    """Put the winner's model, and its adapter where it has one, into the stage's folder, as hard links of the run's."""
    source, target = Path(context.resolve(text)), context.stage_dir / "model"
    shutil.rmtree(target, ignore_errors=True)  # of a stage that was stopped here
    if not source.is_dir():  # a hub's
        load_frozen(str(source), context).module.save_pretrained(target)
        tokenizer_of(str(source), context).save_pretrained(target)
    elif not source.resolve().is_relative_to(context.run_dir):
        shutil.copytree(source, target)
    else:
        artifacts.copy_tree(source, target)
    left = {"model": "model"}
    if text.startswith("@"):
        entry = read_json(context.run_dir / "stages" / text[1:] / "stage.json")
        if "adapter" in entry["artifacts"]:
            shutil.rmtree(context.stage_dir / "adapter", ignore_errors=True)
            artifacts.copy_tree(context.run_dir / entry["artifacts"]["adapter"], context.stage_dir / "adapter")
            left["adapter"] = "adapter"
    return left
