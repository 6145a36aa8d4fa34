"""The reward stage: comparisons whole, a fresh head on the model's trunk, and its figures beside the weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from strop.data.encoded import EncodedGroup
from strop.evaluate.reliability import FILE as RELIABILITY
from strop.model.head import ScalarModel, load_scalar
from strop.model.load import choose_device
from strop.model.scoring import SharedScorer
from strop.recipes.context import Context, StageResult
from strop.recipes.fit import Finished
from strop.recipes.inputs import Split, hold_out, load_groups
from strop.recipes.settings import RewardStage
from strop.recipes.stages.columns import say_unread
from strop.recipes.stages.common import fit_fixed, packing_of, tokenizer_of
from strop.recipes.stages.comparing import (
    MOST_SCORED,
    Comparisons,
    answers_of,
    figures,
    length_balanced,
    padding,
)


def run(stage: RewardStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    assert stage.data is not None
    data = load_groups(stage.data, context)
    tokenizer = tokenizer_of(context.model, context)
    chat = Comparisons(
        tokenizer, stage.data.system, columns=stage.objective.needs, pairs_only=stage.objective.name == "bradley_terry"
    )
    say_unread(data.groups, stage.objective.needs, stage.objective.name == "bradley_terry", context)
    model = open_reward(stage, context, chat)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.module.config.get_text_config().pad_token_id)
    split = hold_out(data, context, chat, stage.eval_data, stage.training)
    if stage.balance_length:
        before = len(split.train)
        split = replace(split, train=length_balanced(split.train, context.seed))
        context.event("note", f"{len(split.train) - before} pairs stand again, to balance length")
    answers = [] if stage.normalize is None else answers_of(stage.normalize, chat, stage.training.max_length, context)
    finish = partial(leave_figures, stage, context, model, split, answers)
    return fit_fixed(stage, context, model, chat, split, stage.objective, finish=finish)


def open_reward(stage: RewardStage, context: Context, chat: Comparisons) -> ScalarModel:
    """The stage's model, with the head that its settings say."""
    return load_scalar(
        context.model,
        reads="last",
        device=choose_device(context.recipe.device),
        precision=context.recipe.precision,
        seed=context.seed if stage.head_seed is None else stage.head_seed,
        trainable=True,
        init=stage.head,
        pad_token_id=padding(chat.tokenizer, chat),
        adapter=stage.adapter,
        gradient_checkpointing=stage.training.gradient_checkpointing,
        say=partial(context.event, "note"),
    )


def leave_figures(
    stage: RewardStage, context: Context, model: ScalarModel, split: Split, answers: list[EncodedGroup]
) -> Finished:
    """Write reward.json beside the finished model; the closing figures are of held-out rows only."""
    max_tokens = packing_of(stage, model, stage.objective).max_tokens
    compared, fitted_on = split.held_out, "held-out comparisons"
    if not compared:
        compared, fitted_on = split.train[:MOST_SCORED], "trained comparisons"
        text = "no rows are held out, so temperature and scale come from trained ones; set training.eval_fraction"
        context.event("alarm", text)
    if stage.normalize is not None:
        fitted_on = f"{stage.normalize.path}"
    measures, known = figures(SharedScorer(model), compared, answers, fitted_on, max_tokens, context)
    known.write(context.stage_dir / "model")
    if not split.held_out:
        (context.stage_dir / RELIABILITY).unlink()  # of trained rows it would flatter
    return (measures if split.held_out else {}), {}
