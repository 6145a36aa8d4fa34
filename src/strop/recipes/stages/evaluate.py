"""The evaluate stage: sampled answers scored by rewards, or, without rewards, the rows' own answers; and tasks.

What a stage without rewards measures is decided by the rows and the model: on pairs and rankings how often the
better side is the likelier, or scores higher by a reward model; on texts and prompts with answers the loss.
"""

from __future__ import annotations

from dataclasses import replace

from strop.evaluate.sampled import subset_of, write_groups
from strop.model.scoring import scores_text
from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import load_groups
from strop.recipes.settings import Data, EvaluateStage
from strop.recipes.stages.evaluate_given import given, reward_model
from strop.recipes.stages.evaluate_overlap import overlaps
from strop.recipes.stages.evaluate_sampled import Found, sampled
from strop.recipes.stages.evaluate_tasks import check_harness, tasks_of
from strop.types import Group


def run(stage: EvaluateStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    if stage.tasks is not None:
        check_harness()
    _check_models(stage, context)
    result, groups = _of_data(stage, stage.data, context) if stage.data is not None else (StageResult(), ())
    context.samples(0, groups[:3])
    if stage.tasks is not None:
        figures, asked, seconds = tasks_of(stage, stage.tasks, context)
        groups = (*groups, *asked)
        result = replace(result, metrics={**result.metrics, **figures}, phases={**result.phases, **seconds})
    write_groups(context.stage_dir / "samples.jsonl", groups)
    return replace(result, artifacts={"samples": "samples.jsonl"})


def _check_models(stage: EvaluateStage, context: Context) -> None:
    """Raises ValueError for a reward model that is to write, and one that is held against a model that does."""
    scores = scores_text(context.model)
    if scores and (stage.samples or stage.tasks is not None):
        raise ValueError(
            f"{stage.name}.model: {context.model} is a reward model, which writes no answers; leave rewards, labeller "
            "and tasks out to ask it about pairs, or let it score another's answers, as rewards='{name: model, path: "
            f"{context.model}}}'"
        )
    for key in ("baseline", "reference"):
        if key in context.models and scores_text(context.models[key]) != scores:
            kinds = ("writes answers", "is a reward model")
            raise ValueError(
                f"{stage.name}.{key}: {context.models[key]} {kinds[not scores]}, but {context.model} {kinds[scores]}; "
                "name a model of its kind"
            )


def _of_data(stage: EvaluateStage, settings: Data, context: Context) -> tuple[StageResult, tuple[Group, ...]]:
    """What there is to say of the stage's rows, without its file of samples."""
    found = _of_rows(stage, settings, context)
    account = {**found.data.summary, **overlaps(stage, found.groups, context)}
    return StageResult(found.figures, phases=found.seconds, data=account), found.groups


def _of_rows(stage: EvaluateStage, settings: Data, context: Context) -> Found:
    data = load_groups(settings, context)
    if stage.by is not None and all(subset_of(group, stage.by) is None for group in data.groups):
        known = ", ".join(dict.fromkeys(key for group in data.groups[:100] for key in group.row)) or "none"
        raise ValueError(f"{stage.name}.by: no row has a text or number in a column {stage.by!r}; columns: {known}")
    if stage.samples:
        return sampled(stage, settings, data, context)
    if scores_text(context.model):
        return reward_model(settings, data, context)
    return given(settings, data, context)
