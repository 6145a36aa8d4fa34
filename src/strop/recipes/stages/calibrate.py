"""The calibrate stage: a finished reward model asked about comparisons, and copied with what was found."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from strop.model.load import choose_device
from strop.model.scoring import load_scorer
from strop.recipes.artifacts import copy_tree
from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import encode_all, load_groups
from strop.recipes.settings import CalibrateStage
from strop.recipes.stages.common import tokenizer_of
from strop.recipes.stages.comparing import Comparisons, answers_of, figures
from strop.rewards.scale import FILE


def run(stage: CalibrateStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    assert stage.data is not None
    data = load_groups(stage.data, context)
    scorer = load_scorer(
        context.model,
        device=choose_device(context.recipe.device),
        precision=context.recipe.precision,
        say=partial(context.event, "note"),
    )
    tokenizer = tokenizer_of(context.model, context)
    labelled = any("probability" in group.row for group in data.groups)
    chat = Comparisons(tokenizer, stage.data.system, columns=("probability",) if labelled else ())
    encoded = encode_all(data.groups, chat, stage.max_length, context)
    answers = [] if stage.normalize is None else answers_of(stage.normalize, chat, stage.max_length, context)
    context.begin({"model": context.model, "data": data.said})
    began = time.perf_counter()
    fitted_on = f"{(stage.normalize or stage.data).path}"
    measures, known = figures(scorer, encoded.tokens, answers, fitted_on, stage.micro_batch_tokens, context)
    seconds = time.perf_counter() - began
    folder = context.stage_dir / "model"
    if Path(context.model).is_dir():
        copy_tree(Path(context.model), folder)
        (folder / FILE).unlink(missing_ok=True)  # a hard link: the model's own must stay as it is
    else:
        scorer.module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    known.write(folder)
    account = data.without(encoded.dropped)
    return StageResult(
        metrics=measures, artifacts={"model": "model"}, phases={"evaluating": seconds}, data=account.summary
    )
