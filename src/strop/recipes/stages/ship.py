"""The ship stage: the gate of `strop ship` on the run so far, and the export behind it."""

from __future__ import annotations

import shutil
from functools import partial

from strop.evaluate.statistics import Measure
from strop.recipes.context import Context, StageResult
from strop.recipes.display import make
from strop.recipes.kinds.ship import PASSED
from strop.recipes.settings import ShipStage
from strop.recipes.shipping.gate import Gate, judge, rival_of
from strop.recipes.shipping.left import Left, Subject, read_left, subject_of
from strop.recipes.shipping.ship import CHECKS, GATE, check_export, export, standing
from strop.train.metrics import write_json


def run(stage: ShipStage, context: Context) -> StageResult:
    """Run the stage to its end: also a gate that does not pass ends it, with nothing exported."""
    context.phase("evaluating")
    left = read_left(context.run_dir)
    subject = _subject(left, stage, context)
    target = context.stage_dir / "model"
    for stale in (target, *context.stage_dir.glob(".model.*.part")):  # of a call that was killed
        shutil.rmtree(stale, ignore_errors=True)
    check_export(subject, stage, target)
    rival = rival_of(stage.against, left) if stage.against else None
    gate = judge(subject, standing(stage, left), context.stage_dir / CHECKS, rival=rival, show=partial(make, "quiet"))
    write_json(context.stage_dir / GATE, gate.to_json())
    for line in gate.lines()[1:]:
        context.event("evaluate", line.strip())
    if not gate.passed:
        context.event("alarm", f"not shipped: {'; '.join(gate.reasons)}")
        return StageResult(figures(gate), {"gate": GATE})
    context.phase("saving")
    made = export(subject, stage, gate, target, forced=False, command=f"strop ship {context.run_dir.name}")
    context.event("note", f"shipped: {target}; {made.compared}")
    return StageResult(figures(gate), {"gate": GATE, "model": "model"})


def _subject(left: Left, stage: ShipStage, context: Context) -> Subject:
    """The stage's model, which must be one that this run left."""
    name = str(context.recipe.stages[context.index].model or "")  # type: ignore[union-attr]
    if not name.startswith("@"):
        raise ValueError(f"{stage.name}.model: {name} is none that this run left; name a stage, as model=@sft")
    return subject_of(left, name[1:])


def figures(gate: Gate) -> dict[str, Measure]:
    """Whether it passed, and each difference or figure that it was judged by."""
    found = {PASSED: Measure(float(gate.passed), None, None, len(gate.outcomes))}
    for outcome in gate.outcomes:
        measured = outcome.change if outcome.rule == "margin" else outcome.ours
        if measured is not None:
            what = "delta" if outcome.rule == "margin" else "floor"
            found[f"{what}/{outcome.of}/{outcome.metric.removeprefix('-')}"] = measured
    return found
