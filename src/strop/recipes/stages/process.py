"""The process stage: a process reward model from step labels, judged on held-out solutions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup
from strop.data.source import Fixed
from strop.data.steps import encode_steps
from strop.evaluate.reliability import reliability, write_reliability
from strop.evaluate.statistics import Measure
from strop.evaluate.steps import Judged, step_measures
from strop.model.head import ScalarModel, load_scalar
from strop.model.load import choose_device
from strop.recipes.arithmetic import num_steps
from strop.recipes.context import Context, StageResult
from strop.recipes.fit import Finished, Job, fit
from strop.recipes.inputs import encode_all, load_groups, parted, rows_of
from strop.recipes.settings import ProcessStage
from strop.recipes.stages.common import arithmetic, learner_of, packing_of, tokenizer_of
from strop.rewards.process import PROCESS_FILE, step_logits
from strop.train.loop import Passes
from strop.types import Group


def run(stage: ProcessStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    assert stage.data is not None
    data = load_groups(stage.data, context)
    model, chat = open_steps(stage, context), Chat(tokenizer_of(context.model, context), stage.data.system)
    groups, others = parted(data, context, stage.eval_data, stage.training)

    def encode(rows: Sequence[Group], max_length: int) -> list[EncodedGroup | str]:
        return encode_steps(rows, chat, separator=stage.separator, max_length=max_length)

    trained = encode_all(groups, chat, stage.training.max_length, context, encode)
    held = encode_all(others, chat, stage.training.max_length, context, encode).groups if others else []
    data = data.without(trained.dropped)
    steps = num_steps(len(trained.tokens), stage.training)
    packing = replace(packing_of(stage, model, stage.objective), read_last=True)
    job = Job(
        context=context,
        training=stage.training,
        chat=chat,
        learners=(learner_of(stage, model, stage.objective, steps),),
        source=Fixed(trained.tokens, stage.training.batch_size, context.seed, stage.data.shuffle),
        steps=steps,
        packing=packing,
        passes=Passes(),
        evaluate=partial(held_out, stage, context, model, chat, held, packing.max_tokens) if held else None,
        check_first=None,
        begin={
            "data": data.said,
            "labels": _labels(trained.tokens),
            "held out": rows_of(len(held)),
            "batch": arithmetic(stage, steps),
        },
        finish=partial(_leave_separator, stage, context),
    )
    return replace(fit(job), data={**data.summary, "held_out": len(held)})


def open_steps(stage: ProcessStage, context: Context) -> ScalarModel:
    """The model to train: a language model's trunk with a head of zeros, or a process reward model that is there."""
    return load_scalar(
        context.model,
        reads="token",
        device=choose_device(context.recipe.device),
        precision=context.recipe.precision,
        seed=context.recipe.seed,
        trainable=True,
        init="zero",
        adapter=stage.adapter,
        gradient_checkpointing=stage.training.gradient_checkpointing,
        say=partial(context.event, "note"),
    )


def held_out(
    stage: ProcessStage, context: Context, model: ScalarModel, chat: Chat, groups: Sequence[Group], max_tokens: int
) -> dict[str, Measure]:
    """Figures of the model on solutions that it was not trained on."""
    with model.autocasting():
        logits = step_logits(
            model, chat, groups, [[c.steps for c in group.completions] for group in groups],
            separator=stage.separator, max_length=stage.training.max_length, max_tokens=max_tokens,
        )  # fmt: skip
    judged = [
        [
            Judged(tuple(z), tuple(None if y is None else float(y) for y in c.step_labels))
            for c, z in zip(g.completions, row, strict=True)
        ]
        for g, row in zip(groups, logits, strict=True)
    ]
    steps = [(z, y) for row in judged for j in row for z, y in zip(j.logits, j.labels, strict=False) if y is not None]
    write_reliability(context.stage_dir, {"steps": reliability([z for z, _ in steps], [y for _, y in steps])})
    return {f"eval_{name}": measure for name, measure in step_measures(judged, seed=context.recipe.seed).items()}


def _labels(groups: Sequence[EncodedGroup]) -> str:
    """How many labels there are, and how many of them say right."""
    columns = [s.columns["step_labels"] for group in groups for s in group.sequences]
    labels = [y for column in columns if isinstance(column, tuple) for y in column if y == y]
    return f"{len(labels)} steps, {sum(y > 0.5 for y in labels) / len(labels):.0%} of them right"


def _leave_separator(stage: ProcessStage, context: Context) -> Finished:
    """Say beside the model how its solutions are cut."""
    text = json.dumps({"separator": stage.separator}, ensure_ascii=False) + "\n"
    for folder in ("model", "adapter"):
        if Path(context.stage_dir / folder).is_dir():
            (context.stage_dir / folder / PROCESS_FILE).write_text(text, encoding="utf-8")
    return {}, {}
