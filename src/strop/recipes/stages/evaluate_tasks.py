"""Tasks of lm-evaluation-harness in an evaluate stage."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from strop.data.chat import Chat
from strop.evaluate.sampled import TASK
from strop.evaluate.statistics import Measure, paired
from strop.recipes.context import Context
from strop.recipes.inputs import read_groups
from strop.recipes.kinds.evaluate import Tasks
from strop.recipes.settings import EvaluateStage
from strop.recipes.stages.common import load_frozen, micro_batch_tokens, num_positions, tokenizer_of
from strop.types import Group

if TYPE_CHECKING:
    from strop.evaluate.harness import Answered

Tasked = tuple[dict[str, Measure], tuple[Group, ...], dict[str, float]]
"""Figures, the questions with what was said, and seconds by phase."""


def check_harness() -> None:
    """Raises ValueError if lm-evaluation-harness is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        text = "tasks: lm-evaluation-harness is not installed; pip install 'strop[lm-eval]', or leave tasks out"
        raise ValueError(text)


def tasks_of(stage: EvaluateStage, tasks: Tasks, context: Context) -> Tasked:
    """What the stage's model does on tasks, and by how much it differs from its baseline, or an earlier evaluation."""
    began = time.perf_counter()
    own = _answered(tasks, context.model, context)
    figures = dict(own.figures)
    theirs: Mapping[str, Group] = {}
    if "baseline" in context.models:
        theirs = _by_origin(_answered(tasks, context.models["baseline"], context).groups)
    elif stage.against is not None:
        theirs = _by_origin(read_groups(stage.against, context).groups)
        if not any(group.origin in theirs for group in own.groups):
            context.event("note", f"{stage.against.path} has no answers to these tasks, so there are no differences")
    figures |= _differences(own.groups, theirs, context.recipe.seed)
    return figures, own.groups, {"tasks": time.perf_counter() - began}


def _answered(tasks: Tasks, path: str, context: Context) -> Answered:
    from strop.evaluate import harness  # imports lm-evaluation-harness, an extra that takes seconds

    context.phase("tasks")
    model, tokenizer = load_frozen(path, context), tokenizer_of(path, context)
    ends = frozenset({int(tokenizer.eos_token_id)} if tokenizer.eos_token_id is not None else ())
    answerer = harness.Answerer(
        model,
        tokenizer,
        stop_ids=ends | (Chat(tokenizer).stop_ids if tasks.chat else frozenset()),
        max_length=num_positions(model),
        max_completion_length=tasks.max_completion_length,
        max_tokens=micro_batch_tokens(model.device),
        seed=context.seed,
    )
    return harness.answer_tasks(
        answerer,
        tasks.names,
        folder=tasks.folder,
        num_fewshot=tasks.num_fewshot,
        limit=tasks.limit,
        chat=tasks.chat,
        seed=context.recipe.seed,
    )


def _by_origin(groups: Sequence[Group]) -> dict[str, Group]:
    """Questions by their task and number; rows that no task asked are left out."""
    return {group.origin: group for group in groups if TASK in group.row}


def _differences(ours: Sequence[Group], theirs: Mapping[str, Group], seed: int) -> dict[str, Measure]:
    """Paired by question, for every figure that both have."""
    both = [(group, theirs[group.origin]) for group in ours if group.origin in theirs]
    names = dict.fromkeys(name for group, _ in both for c in group.completions for name in c.rewards)
    found = {}
    for name in names:
        sides = [[[c.rewards.get(name) for c in pair[i].completions] for pair in both] for i in (0, 1)]
        figure = paired(sides[0], sides[1], seed=seed)
        if figure.n:
            found[f"delta/{name}"] = figure
    return found
