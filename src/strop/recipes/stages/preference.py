"""The offline preference stage: pairs, and the reference's log-probs taken before step 0."""

from __future__ import annotations

from strop.recipes.context import Context, StageResult
from strop.recipes.feedback import without_repeats
from strop.recipes.inputs import hold_out
from strop.recipes.settings import PreferenceStage
from strop.recipes.stages.common import check_reference, fit_fixed, open_training, with_reference


def run(stage: PreferenceStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    model, chat, data = open_training(stage, context)
    split = without_repeats(hold_out(data, context, chat, stage.eval_data, stage.training), context)
    marks = (chat.with_content,) if "content" in stage.objective.needs else ()
    if "ref_logprobs" not in stage.objective.needs:
        return fit_fixed(stage, context, model, chat, split, stage.objective, annotations=marks)
    split = with_reference(stage, context, model, split)
    check = check_reference if stage.reference is None else None
    return fit_fixed(stage, context, model, chat, split, stage.objective, annotations=marks, check_first=check)
