"""The supervised fine-tuning stage."""

from __future__ import annotations

from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import hold_out
from strop.recipes.settings import SFTStage
from strop.recipes.stages.common import fit_fixed, open_training


def run(stage: SFTStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    model, chat, data = open_training(stage, context)
    split = hold_out(data, context, chat, stage.eval_data, stage.training)
    return fit_fixed(stage, context, model, chat, split, stage.objective)
