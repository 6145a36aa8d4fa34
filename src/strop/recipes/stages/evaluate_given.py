"""The rows' own answers in an evaluate stage: which is likelier, the loss, and what a reward model says of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from strop.data.chat import Chat
from strop.data.whole import NO_LIMIT
from strop.evaluate.calibration import Scored, accuracies, reward_deltas, reward_measures
from strop.evaluate.heldout import measures_of, objective_rows
from strop.evaluate.likelihood import Likelihoods, likelihoods
from strop.evaluate.matching import matched
from strop.evaluate.sampled import subset_measures
from strop.evaluate.statistics import Measure, paired
from strop.model.forward import LanguageModel
from strop.model.load import choose_device
from strop.model.scoring import load_scorer
from strop.objectives import SFT
from strop.recipes.context import Context
from strop.recipes.inputs import Encoded, Loaded, encode_all, read_groups
from strop.recipes.parts import PAIRS, TEXTS
from strop.recipes.settings import Data, EvaluateStage
from strop.recipes.stages.common import load_frozen, micro_batch_tokens, num_positions, open_frozen, tokenizer_of
from strop.recipes.stages.comparing import Comparisons, scored
from strop.recipes.stages.evaluate_sampled import Found, say_matched
from strop.types import Completion, Group

Measured = tuple[dict[str, Measure], tuple[Group, ...]]
"""Figures, and the rows they are of."""


def given(settings: Data, data: Loaded, context: Context) -> Found:
    """How likely the rows' own answers are, row by row.

    Raises: ValueError for rows that have none.
    """
    if data.kind not in (*PAIRS, *TEXTS):
        raise ValueError(
            f"rewards: none, so the rows' own answers are evaluated, but rows of kind {data.kind} have none to "
            f"compare; give rewards, or data of kind {', '.join((*PAIRS, *TEXTS))}"
        )
    began = time.perf_counter()
    model, chat = open_frozen(context.model, settings, context)
    limit = num_positions(model)
    rows = encode_all(data.groups, chat, limit, context)
    account = data.without(rows.dropped)
    others: Encoded | None = None
    if "baseline" in context.models:
        theirs = Chat(tokenizer_of(context.models["baseline"], context), settings.system)
        others = encode_all(rows.groups, theirs, limit, context)
        if others.dropped.reasons:
            rows, account = encode_all(others.groups, chat, limit, context), account.without(others.dropped)
    context.begin({"model": context.model, "data": account.said})
    context.phase("evaluating")
    measured = _preferences if data.kind in PAIRS else _losses
    figures, groups = measured(model, rows, context, others)
    figures |= _changes(groups, data.kind in PAIRS, context)
    return Found(figures, groups, {"evaluating": time.perf_counter() - began}, account)


def _preferences(model: LanguageModel, rows: Encoded, context: Context, others: Encoded | None) -> Measured:
    """Which side of each pair is the likelier, and against a baseline which became so."""
    seed = context.recipe.seed
    ours = likelihoods(model, rows.tokens, micro_batch_tokens(model.device), model.device)
    figures = ours.measures(seed=seed) | _subsets("logps/accuracy", rows.groups, ours.wins(), context)
    if others is None:
        return figures, ours.scored(rows.groups, ours.sums)
    baseline = _baseline(context)
    theirs = likelihoods(baseline, others.tokens, micro_batch_tokens(baseline.device), baseline.device)
    return figures | ours.against(theirs, seed=seed), ours.scored(rows.groups, ours.rewards(theirs))


def _losses(model: LanguageModel, rows: Encoded, context: Context, others: Encoded | None) -> Measured:
    """The loss of each row's answer; against a baseline also how much it changed."""
    ours = objective_rows(model, rows.tokens, SFT(), micro_batch_tokens(model.device), model.device)
    losses = [[loss] for loss in ours["eval_loss"]]
    figures = measures_of(ours, SFT()) | _subsets("eval_loss", rows.groups, losses, context)
    if others is not None:
        baseline = _baseline(context)
        theirs = objective_rows(baseline, others.tokens, SFT(), micro_batch_tokens(baseline.device), baseline.device)
        for name in ("eval_loss", "eval_mean_token_accuracy"):
            pairs = ([[value] for value in side[name]] for side in (ours, theirs))
            figures[f"delta/{name}"] = paired(*pairs, seed=context.recipe.seed)
    found = zip(rows.groups, ours["eval_loss"], ours["eval_mean_token_accuracy"], strict=True)
    return figures, tuple(
        replace(g, completions=(_judged(g.completions[0], {"loss": loss, "mean_token_accuracy": right}, -loss),))
        for g, loss, right in found
    )


def _baseline(context: Context) -> LanguageModel:
    return load_frozen(context.models["baseline"], context)


# Reward models.


def reward_model(settings: Data, data: Loaded, context: Context) -> Found:
    """A reward model's accuracy and calibration on comparisons; what it gives each answer is its score there.

    Raises: ValueError for rows that are no comparisons.
    """
    if data.kind not in (*PAIRS, "groups"):
        raise ValueError(
            f"{context.model} is a reward model, which is asked about comparisons, but the rows are of kind "
            f"{data.kind}; give data of kind {', '.join(PAIRS)}"
        )
    began = time.perf_counter()
    seed, against = context.recipe.seed, _against(context)
    context.phase("evaluating")
    rows, judged = _scores(context.model, data.groups, settings, context)
    context.begin({"model": context.model, "data": data.without(rows.dropped).said})
    figures = reward_measures(judged, seed=seed)
    if "baseline" in context.models:
        others, theirs = _scores(context.models["baseline"], rows.groups, settings, context)
        left = {id(group): one for group, one in zip(others.groups, theirs, strict=True)}
        both = [(mine, left[id(g)]) for g, mine in zip(rows.groups, judged, strict=True) if id(g) in left]
        figures |= reward_deltas(*(list(side) for side in zip(*both, strict=True)), seed=seed)
    figures |= _subsets("accuracy", rows.groups, accuracies(judged), context)
    groups = tuple(
        replace(
            g, completions=tuple(_judged(c, {"score": s}, s) for c, s in zip(g.completions, one.scores, strict=True))
        )
        for g, one in zip(rows.groups, judged, strict=True)
    )
    if against is not None:
        places, sides = _matching(groups, against, ("score",), context)
        mine = [judged[i] for i, _ in places]
        theirs = [replace(one, scores=scores) for one, scores in zip(mine, _numbers(sides[1], "score"), strict=True)]
        figures |= reward_deltas(mine, theirs, seed=seed)
    account = data.without(rows.dropped)
    return Found(figures, groups, {"evaluating": time.perf_counter() - began}, account)


def _scores(path: str, groups: Sequence[Group], settings: Data, context: Context) -> tuple[Encoded, list[Scored]]:
    """The comparisons that a reward model can read whole, and what it says of them."""
    scorer = load_scorer(
        path,
        device=choose_device(context.recipe.device),
        precision=context.recipe.precision,
        say=partial(context.event, "note"),
    )
    columns = ("probability",) if any("probability" in group.row for group in groups) else ()
    chat = Comparisons(tokenizer_of(path, context), settings.system, columns=columns)
    config = scorer.module.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or NO_LIMIT
    rows = encode_all(groups, chat, int(longest), context)
    return rows, scored(scorer, rows.tokens, micro_batch_tokens(str(scorer.module.device)))


# Earlier evaluations, and subsets.


def _against(context: Context) -> Data | None:
    stage = context.stage
    assert isinstance(stage, EvaluateStage)
    return stage.against


def _changes(groups: Sequence[Group], pairs: bool, context: Context) -> dict[str, Measure]:
    """What became of what an earlier evaluation of the same rows found; nothing where none is named."""
    if (against := _against(context)) is None:
        return {}
    names = ("logps", "logps_per_token") if pairs else ("loss", "mean_token_accuracy")
    _, sides = _matching(groups, against, names, context)
    seed = context.recipe.seed
    if pairs:
        ours, theirs = (Likelihoods(*(_numbers(side, name) for name in names)) for side in sides)
        return ours.against(theirs, seed=seed)
    return {f"delta/eval_{name}": paired(*(_numbers(side, name) for side in sides), seed=seed) for name in names}


def _matching(
    groups: Sequence[Group], settings: Data, names: Sequence[str], context: Context
) -> tuple[list[tuple[int, int]], tuple[list[Group], list[Group]]]:
    """The rows that are in both, by place and as groups.

    Raises: ValueError if none is, or an answer of theirs lacks one of the numbers.
    """
    found = read_groups(settings, context)
    places = matched(groups, found.groups, answers=True)
    say_matched(len(places), len(groups), settings, context)
    sides = [groups[i] for i, _ in places], [found.groups[j] for _, j in places]
    if any(c.rewards.get(name) is None for group in sides[1] for c in group.completions for name in names):
        raise ValueError(
            f"{context.name}.against: {settings.path} does not say {' and '.join(names)} of its answers; name an "
            "earlier evaluation of these rows, as @eval-start, or a model, as baseline=MODEL"
        )
    return places, sides


def _numbers(groups: Sequence[Group], name: str) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(c.rewards[name] or 0.0) for c in group.completions) for group in groups)


def _judged(completion: Completion, rewards: Mapping[str, float], score: float) -> Completion:
    return replace(completion, rewards=dict(rewards), score=score)


def _subsets(
    name: str, groups: Sequence[Group], values: Sequence[Sequence[float]], context: Context
) -> dict[str, Measure]:
    """A figure among the rows that have each value of the column `by`."""
    stage = context.stage
    assert isinstance(stage, EvaluateStage)
    if stage.by is None:
        return {}
    return subset_measures(name, stage.by, groups, values, seed=context.recipe.seed)
