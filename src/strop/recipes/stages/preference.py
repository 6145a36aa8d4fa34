"""The offline preference stage: pairs, and the reference's log-probs taken before step 0."""

from __future__ import annotations

from strop.recipes.arithmetic import num_steps
from strop.recipes.context import Context, StageResult
from strop.recipes.feedback import without_repeats
from strop.recipes.inputs import hold_out
from strop.recipes.parts import ROW_NUMBERS
from strop.recipes.settings import PreferenceStage
from strop.recipes.stages.columns import NumberedChat, say_unread
from strop.recipes.stages.common import check_reference, fit_fixed, open_training, with_reference
from strop.recipes.stages.monitoring import monitoring_of


def run(stage: PreferenceStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    model, chat, data = open_training(stage, context)
    columns = stage.objective.needs & ROW_NUMBERS
    say_unread(data.groups, stage.objective.needs, stage.objective.name == "dpo", context)
    if columns:
        chat = NumberedChat(chat.tokenizer, stage.data.system if stage.data else None, columns=columns)
    split = without_repeats(hold_out(data, context, chat, stage.eval_data, stage.training), context)
    marks = (chat.with_content,) if "content" in stage.objective.needs else ()
    if "ref_logprobs" in stage.objective.needs:
        split = with_reference(stage, context, model, split)
    check = check_reference if "ref_logprobs" in stage.objective.needs and stage.reference is None else None
    steps = num_steps(len(split.train), stage.training)
    monitor = monitoring_of(stage, context, chat, model, data.groups, steps)
    return fit_fixed(
        stage, context, model, chat, split, stage.objective, annotations=marks, check_first=check, monitor=monitor
    )
