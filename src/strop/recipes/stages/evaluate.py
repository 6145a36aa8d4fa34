"""The evaluate stage: sampled answers scored by rewards, or, without rewards, the likelihood of given ones.

What a stage without rewards measures is decided by the rows: on pairs and rankings how often the better
side is the likelier, on texts and prompts with answers the loss.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from strop.data.chat import Chat
from strop.evaluate.heldout import measures_of, objective_rows
from strop.evaluate.likelihood import likelihoods
from strop.evaluate.sampled import Evaluation, evaluate_samples, write_groups
from strop.evaluate.statistics import Measure, paired
from strop.model.forward import LanguageModel
from strop.model.load import load_tokenizer
from strop.objectives import SFT
from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import Encoded, Loaded, encode_all, load_groups, prompts_of
from strop.recipes.parts import PAIRS, TEXTS
from strop.recipes.settings import Data, EvaluateStage
from strop.recipes.stages.common import load_frozen, micro_batch_tokens, num_positions, open_frozen, sampler
from strop.rewards import load_rewards, score
from strop.types import Group

Measured = tuple[dict[str, Measure], tuple[Group, ...]]
"""Figures, and the rows they are of."""


def run(stage: EvaluateStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    assert stage.data is not None
    if stage.rewards:
        load_rewards(stage.rewards)
    data = load_groups(stage.data, context)
    if stage.rewards:
        return _sampled(stage, stage.data, data, context)
    if data.kind in (*PAIRS, *TEXTS):
        return _given(stage.data, data, context)
    raise ValueError(
        f"rewards: none, so the rows' own answers are evaluated, but rows of kind {data.kind} have none to compare; "
        f"give rewards, or data of kind {', '.join((*PAIRS, *TEXTS))}"
    )


# Sampled answers.


def _sampled(stage: EvaluateStage, settings: Data, data: Loaded, context: Context) -> StageResult:
    own = _answers(context.model, stage, settings, data.groups, context)
    figures: dict[str, Measure] = {}
    if "baseline" in context.models:
        asked = [replace(group, completions=()) for group in own.groups]
        other = _answers(context.models["baseline"], stage, settings, asked, context)
        own = own.only({group.origin for group in other.groups})  # its tokenizer may leave no room for some
        figures = own.against(other, seed=context.recipe.seed)
    figures = own.measures(stage.num_samples, seed=context.recipe.seed) | figures
    write_groups(context.stage_dir / "samples.jsonl", own.groups)
    context.samples(0, own.groups[:3])
    summary = {**data.summary, "kept": len(own.groups)}
    return StageResult(figures, {"samples": "samples.jsonl"}, phases=own.seconds, data=summary)


def _answers(path: str, stage: EvaluateStage, settings: Data, groups: Sequence[Group], context: Context) -> Evaluation:
    model, chat = open_frozen(path, settings, context)
    budget = num_positions(model) - stage.sampling.max_completion_length
    prompts = prompts_of(groups, chat, budget, context)
    draw = sampler(model, chat, stage.sampling, context.seed, stage.num_samples)
    context.begin({"model": path, "prompts": f"{len(prompts.groups)} x {stage.num_samples} answers"})
    scores = partial(score, rewards=stage.rewards)
    return evaluate_samples(prompts.groups, prompts.ids, draw, chat.decode, scores, context.phase)


# Given answers.


def _given(settings: Data, data: Loaded, context: Context) -> StageResult:
    """How likely the rows' own answers are, row by row into samples.jsonl as well."""
    began = time.perf_counter()
    model, chat = open_frozen(context.model, settings, context)
    limit = num_positions(model)
    rows = encode_all(data.groups, chat, limit, context)
    account = data.without(rows.dropped)
    others: Encoded | None = None
    if "baseline" in context.models:
        others = encode_all(
            rows.groups, Chat(load_tokenizer(context.models["baseline"]), settings.system), limit, context
        )
        if others.dropped.reasons:
            rows, account = encode_all(others.groups, chat, limit, context), account.without(others.dropped)
    context.begin({"model": context.model, "data": account.said})
    context.phase("evaluating")
    measured = _preferences if data.kind in PAIRS else _losses
    figures, groups = measured(model, rows, context, others)
    write_groups(context.stage_dir / "samples.jsonl", groups)
    seconds = {"evaluating": time.perf_counter() - began}
    return StageResult(figures, {"samples": "samples.jsonl"}, phases=seconds, data=account.summary)


def _preferences(model: LanguageModel, rows: Encoded, context: Context, others: Encoded | None) -> Measured:
    """Which side of each pair is the likelier, and against a baseline which became so."""
    seed = context.recipe.seed
    ours = likelihoods(model, rows.tokens, micro_batch_tokens(model.device), model.device)
    if others is None:
        return ours.measures(seed=seed), ours.scored(rows.groups, ours.sums)
    baseline = _baseline(context)
    theirs = likelihoods(baseline, others.tokens, micro_batch_tokens(baseline.device), baseline.device)
    figures = ours.measures(seed=seed) | ours.against(theirs, seed=seed)
    return figures, ours.scored(rows.groups, ours.rewards(theirs))


def _losses(model: LanguageModel, rows: Encoded, context: Context, others: Encoded | None) -> Measured:
    """The loss of each row's answer; against a baseline also how much it changed."""
    ours = objective_rows(model, rows.tokens, SFT(), micro_batch_tokens(model.device), model.device)
    figures = measures_of(ours, SFT())
    if others is not None:
        baseline = _baseline(context)
        theirs = objective_rows(baseline, others.tokens, SFT(), micro_batch_tokens(baseline.device), baseline.device)
        for name in ("eval_loss", "eval_mean_token_accuracy"):
            pairs = ([[value] for value in side[name]] for side in (ours, theirs))
            figures[f"delta/{name}"] = paired(*pairs, seed=context.recipe.seed)
    groups = [
        replace(g, completions=(replace(g.completions[0], rewards={"loss": loss}, score=-loss),))
        for g, loss in zip(rows.groups, ours["eval_loss"], strict=True)
    ]
    return figures, tuple(groups)


def _baseline(context: Context) -> LanguageModel:
    assert "baseline" in context.models
    return load_frozen(context.models["baseline"], context)
