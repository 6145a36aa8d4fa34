"""The average stage: one model of several models' weights."""

from __future__ import annotations

import time
from pathlib import Path

from strop.model.average import average
from strop.recipes.context import Context, StageResult
from strop.recipes.settings import AverageStage


def run(stage: AverageStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    paths = [context.models[f"members.{i}"] for i in range(len(stage.members))]
    for path in paths:
        if not Path(path).is_dir():
            raise ValueError(f"{stage.name}.members: {path} is no folder; only models in folders can be averaged")
    context.phase("saving")
    context.begin({"members": ", ".join(stage.members)})
    began = time.perf_counter()
    average([Path(path) for path in paths], context.stage_dir / "model", stage.weights)
    context.event("note", f"the weights of {len(paths)} models are averaged")
    return StageResult(artifacts={"model": "model"}, phases={"saving": time.perf_counter() - began})
