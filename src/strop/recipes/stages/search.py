"""The search stage: many answers a prompt, one chosen by rewards, held against votes and against the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import compress

from strop.data.chat import Chat
from strop.evaluate.best_of import chosen_curve
from strop.evaluate.statistics import (
    Measure,
    Value,
    majority,
    measure,
    measure_majority,
    measure_pass_at_k,
    measure_vote,
    paired,
    weighted_vote,
)
from strop.model.forward import LanguageModel
from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import load_groups, prompts_of
from strop.recipes.kinds.search import Beam, BestOfN
from strop.recipes.settings import SearchStage
from strop.recipes.stages.chunks import FILE, in_chunks
from strop.recipes.stages.common import num_positions, open_frozen, sampler
from strop.rewards import label_of, load_rewards, score
from strop.rollout.beam import BeamSearch
from strop.rollout.vote import canonical_answer, winner
from strop.types import Completion, Group

Search = Callable[[Sequence[Group], int], Sequence[Group]]
"""Prompts, and the place of the first, to the same with scored answers, the chosen one first."""


def run(stage: SearchStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    assert stage.data is not None
    load_rewards(stage.rewards)
    data = load_groups(stage.data, context)
    model, chat = open_frozen(context.model, stage.data, context)
    method = stage.method
    # A beam's last step may begin right before the limit.
    longest = stage.sampling.max_completion_length + (method.step_length if isinstance(method, Beam) else 0)
    prompts = prompts_of(data.groups, chat, num_positions(model) - longest, context)
    search = (
        _beams(stage, method, context, model, chat)
        if isinstance(method, Beam)
        else _samples(stage, method, context, model, chat)
    )

    def work(chunk: Sequence[Group], first: int) -> tuple[Sequence[Group], dict[str, float]]:
        began = time.perf_counter()
        found = search(chunk, first)
        chosen = {name: figure.value for name, figure in chosen_measures(found, truth_of(stage), 0).items()}
        return found, {**chosen, "phase/sampling_s": time.perf_counter() - began}

    context.begin({"model": context.model, "prompts": f"{len(prompts.groups)}, {_told(method)}"})
    context.phase("sampling")
    began = time.perf_counter()
    groups = in_chunks(prompts.groups, stage.save_every, work, context)
    context.samples(0, groups[:3])
    return StageResult(
        metrics=search_measures(groups, stage, context.recipe.seed),
        artifacts={"samples": FILE},
        phases={"sampling": time.perf_counter() - began},
        data=data.without(prompts.dropped).summary,
    )


def _told(method: BestOfN | Beam) -> str:
    if isinstance(method, Beam):
        return f"{method.width} beams, {method.width // method.expand} kept and each continued {method.expand} times"
    how = {"best": "the best", "vote": "the weighted vote's", "majority": "the majority's"}[method.choose]
    return f"{how} of {method.num_samples} answers"


# How answers are found.


def _samples(stage: SearchStage, method: BestOfN, context: Context, model: LanguageModel, chat: Chat) -> Search:
    draw = sampler(model, chat, stage.sampling, context.seed, method.num_samples)

    def search(groups: Sequence[Group], first: int) -> list[Group]:
        sampled = draw([group.prompt_ids or () for group in groups], 0, first * method.num_samples)
        made = [
            replace(g, completions=tuple(Completion(chat.decode(s.ids), token_ids=s.ids, finish=s.finish) for s in row))
            for g, row in zip(groups, sampled, strict=True)
        ]
        return [chosen_first(group, method) for group in score(made, stage.rewards)]

    return search


def _beams(stage: SearchStage, method: Beam, context: Context, model: LanguageModel, chat: Chat) -> Search:
    length = min(method.step_length, stage.sampling.max_completion_length)
    steps = replace(stage.sampling, stop=(method.separator,), max_completion_length=length)
    beams = BeamSearch(
        first=sampler(model, chat, steps, context.seed, method.width),
        next=sampler(model, chat, steps, context.seed, method.expand),
        score=partial(score, rewards=stage.rewards),
        decode=chat.decode,
        stop_ids=chat.stop_ids,
        width=method.width,
        expand=method.expand,
        max_steps=method.max_steps,
        max_length=stage.sampling.max_completion_length,
    )
    return lambda groups, first: beams(groups, first * method.max_steps)


def chosen_first(group: Group, method: BestOfN) -> Group:
    """The group with the chosen answer first and the others by their scores; unscorable ones last.

    Raises: ValueError if a weighted vote would count negative scores.
    """
    ranked = sorted(group.completions, key=lambda c: (c.score is None, -(c.score or 0.0)))
    if method.choose != "best":
        answers = [canonical_answer(c.text, method.answer) for c in ranked]
        won = winner(answers, _voices(ranked, method))
        ranked = [
            c for _, c in sorted(zip(answers, ranked, strict=True), key=lambda pair: pair[0] != won or won is None)
        ]
    return replace(group, completions=tuple(ranked))


def _voices(completions: Sequence[Completion], method: BestOfN) -> list[float]:
    if method.choose == "majority":
        return [1.0] * len(completions)
    weights = [c.score or 0.0 for c in completions]
    if min(weights) < 0:
        raise ValueError(
            f"method.choose=vote: a score of {min(weights):.3g} is no voice; a vote needs scores from 0 on, as a "
            "process reward's are; use choose=best"
        )
    return weights


# Figures.


def truth_of(stage: SearchStage) -> str | None:
    """The name of the reward that says whether an answer is right: the first that chooses nothing."""
    return next((label_of(r) for r in stage.rewards if r.weight == 0), None)


def chosen_measures(groups: Sequence[Group], truth: str | None, seed: int) -> dict[str, Measure]:
    """The chosen answers' scores, and how right they are."""
    chosen = [group.completions[:1] for group in groups]
    figures = {"score/chosen": measure([[c.score for c in row] for row in chosen], share=False, seed=seed)}
    if truth is not None:
        figures[f"chosen/{truth}"] = measure([[c.rewards.get(truth) for c in row] for row in chosen], seed=seed)
    return figures


def search_measures(groups: Sequence[Group], stage: SearchStage, seed: int) -> dict[str, Measure]:
    """What the search is worth by the truth, with intervals over prompts.

    Returns: `chosen/T`, how right the chosen answers are. For n samples also best_of@k, vote@k (the
        weighted vote, where no score is negative), maj@k and, the bound of them all, pass@k for k = 1, 2, 4, ...
        (k = 1 is one sample), and best_of and vote less maj at the largest k, over the same prompts.
        For beams `kept/T`, whether any of those kept is right.
    """
    truth = truth_of(stage)
    figures = chosen_measures(groups, truth, seed)
    if truth is None:
        return figures
    scores = [[c.score for c in group.completions] for group in groups]
    values: list[list[Value]] = [[c.rewards.get(truth) for c in group.completions] for group in groups]
    if isinstance(stage.method, Beam):
        figures[f"kept/{truth}"] = measure(
            [[max((v for v in row if v is not None), default=None)] for row in values], seed=seed
        )
        return figures
    curve = chosen_curve(scores, values, _powers(stage.method.num_samples), seed=seed)
    figures.update({f"best_of@{k}/{truth}": point for k, point in curve.points.items()})
    if all(v in (0.0, 1.0, None) for row in values for v in row):
        answers = [[canonical_answer(c.text, stage.method.answer) for c in group.completions] for group in groups]
        figures.update(_votes(answers, scores, values, truth, list(curve.points), seed))
    return figures


def _votes(
    answers: Sequence[Sequence[str | None]],
    scores: Sequence[Sequence[Value]],
    values: Sequence[Sequence[Value]],
    truth: str,
    ks: Sequence[int],
    seed: int,
) -> dict[str, Measure]:
    """Majority, weighted vote and bound, and how much better than the majority the scores choose of all samples.

    Of prompts with a sample that the truth could judge: of the others nobody knows whether the majority is right.
    """
    known = [any(v is not None for v in row) for row in values]
    answers, scores, values = [*compress(answers, known)], [*compress(scores, known)], [*compress(values, known)]
    figures: dict[str, Measure] = {}
    weighted = all(s is None or s >= 0 for row in scores for s in row)
    for k in ks:
        if k > 1:
            figures[f"maj@{k}/{truth}"] = measure_majority(answers, values, k, seed=seed)
            figures[f"pass@{k}/{truth}"] = measure_pass_at_k(values, k, seed=seed)
            if weighted:
                figures[f"vote@{k}/{truth}"] = measure_vote(answers, scores, values, k, seed=seed)
    judged = [
        [a if v is not None else None for a, v in zip(*row, strict=True)] for row in zip(answers, values, strict=True)
    ]
    rows = list(zip(judged, scores, values, strict=True))
    theirs = [[majority(a, v)] for a, _, v in rows]
    best = [[_of_best(s, v)] for _, s, v in rows]
    figures[f"delta/best_of-maj/{truth}"] = paired(best, theirs, seed=seed)
    if weighted:
        ours = [[weighted_vote(a, [float(w or 0.0) for w in s], v)] for a, s, v in rows]
        figures[f"delta/vote-maj/{truth}"] = paired(ours, theirs, seed=seed)
    return figures


def _of_best(scores: Sequence[Value], values: Sequence[Value]) -> Value:
    """The truth of the best-scored sample; of equal ones, their mean."""
    known = [(float(s), float(v)) for s, v in zip(scores, values, strict=True) if s is not None and v is not None]
    best = [v for s, v in known if s == max(known)[0]]
    return sum(best) / len(best) if best else None


def _powers(n: int) -> list[int]:
    return [2**i for i in range(n.bit_length()) if 2**i <= n]
