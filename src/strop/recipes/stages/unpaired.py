"""The unpaired stage: labelled answers or pairs, the reference's log-probs and, for KTO, the step's baseline."""

from __future__ import annotations

from dataclasses import replace

from strop.data.encoded import EncodedGroup
from strop.model.forward import LanguageModel
from strop.objectives import KTO
from strop.recipes.arithmetic import num_steps
from strop.recipes.context import Context, StageResult
from strop.recipes.feedback import labelled, say_classes, without_repeats
from strop.recipes.inputs import Split, hold_out, rows_of
from strop.recipes.settings import UnpairedStage
from strop.recipes.stages.common import (
    check_reference,
    fit_fixed,
    needed_rows,
    open_training,
    packing_of,
    reference_of,
    with_reference,
)
from strop.recipes.stages.monitoring import monitoring_of
from strop.train.kl_baseline import KLBaseline, mismatched, numbered


def run(stage: UnpairedStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    model, chat, data = open_training(stage, context)
    split = hold_out(data, context, chat, stage.eval_data, stage.training)
    split = without_repeats(labelled(split, context), context)
    check = check_reference if stage.reference is None else None
    if not isinstance(stage.objective, KTO):
        split = with_reference(stage, context, model, split)
        monitor = monitoring_of(stage, context, chat, model, data.groups, num_steps(len(split.train), stage.training))
        return fit_fixed(stage, context, model, chat, split, stage.objective, check_first=check, monitor=monitor)
    say_classes(split.train, stage.objective, context)
    split, baseline = _annotated(stage, context, model, split)
    monitor = monitoring_of(stage, context, chat, model, data.groups, num_steps(len(split.train), stage.training))
    return fit_fixed(
        stage, context, model, chat, split, stage.objective,
        annotations=(baseline,), check_first=check, monitor=monitor,
    )  # fmt: skip


def _annotated(stage: UnpairedStage, context: Context, model: LanguageModel, split: Split) -> tuple[Split, KLBaseline]:
    """The rows that will be read with the reference's log-probs, and what gives a step of them its z0.

    Held-out rows are numbered on from the trained ones, and have their partners among themselves.
    """
    context.phase("annotating")
    num = len(split.train)
    needed = [*needed_rows(stage, num, context.seed), *range(num, num + len(split.held_out))]
    rows = numbered([*split.train, *split.held_out])
    others = [group for part in (split.train, split.held_out) for group in _mismatched(stage, context, part)]
    reference = reference_of(stage.reference, context, model, cached=True)
    known = dict(zip(needed, reference([rows[i] for i in needed]), strict=True))
    drift = dict(zip(needed, reference([others[i] for i in needed]), strict=True))
    assert reference.cache is not None
    reference.cache.close()
    name = stage.reference or "the starting model"
    text = f"{name} is the reference: log-probs of {rows_of(len(needed))} taken, and of as many with another's answers"
    context.event("note", text)
    found = [known.get(i, row) for i, row in enumerate(rows)]
    packing = packing_of(stage, model, stage.objective)
    baseline = KLBaseline(model, drift, packing.max_tokens, packing.device)
    return replace(split, train=found[:num], held_out=found[num:]), baseline


def _mismatched(stage: UnpairedStage, context: Context, groups: list[EncodedGroup]) -> list[EncodedGroup]:
    """Raises: ValueError if trained or held-out rows all have one prompt."""
    try:
        return mismatched(groups, max_length=stage.training.max_length, seed=context.seed) if groups else []
    except ValueError as error:
        why = "KTO's baseline reads under each prompt the answers to another"
        raise ValueError(f"{stage.name}: {error}; {why}, so trained and held-out rows each need two") from error
