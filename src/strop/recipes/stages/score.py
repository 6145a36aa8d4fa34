"""The score stage: rewards of given or sampled answers, and the worth of the best of k."""

from __future__ import annotations

import time
from collections.abc import Sequence

from strop.evaluate.best_of import best_of_curve
from strop.evaluate.statistics import Measure, measure, measure_pass_at_k
from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import Dropped, Loaded, load_groups
from strop.recipes.settings import ScoreStage
from strop.recipes.stages.chunks import FILE, in_chunks
from strop.rewards import load_rewards, reward_metrics, score
from strop.types import Group


def run(stage: ScoreStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    assert stage.data is not None
    load_rewards(stage.rewards)
    data = answered(load_groups(stage.data, context), context)
    groups = [g for g in data.groups if g.completions]
    context.begin({"data": data.said})

    def work(chunk: Sequence[Group], first: int) -> tuple[list[Group], dict[str, float]]:
        scored = score(chunk, stage.rewards)
        known = [c.score for g in scored for c in g.completions if c.score is not None]
        mean = {"reward": sum(known) / len(known)} if known else {}
        return scored, {**mean, **reward_metrics(scored, stage.rewards)}

    context.phase("scoring")
    began = time.perf_counter()
    groups = in_chunks(groups, stage.save_every, work, context)
    context.samples(0, groups[:3])
    return StageResult(
        metrics=score_measures(groups, context.recipe.seed),
        artifacts={"samples": FILE},
        phases={"scoring": time.perf_counter() - began},
        data=data.summary,
    )


def answered(data: Loaded, context: Context) -> Loaded:
    """The account without prompts that have no answer.

    Raises: ValueError if none has one.
    """
    dropped = Dropped()
    for group in data.groups:
        if not group.completions:
            dropped.add("a prompt without an answer", group.origin)
    if dropped.reasons and sum(dropped.reasons.values()) == len(data.groups):
        raise ValueError(f"{data.summary['path']}: prompts without answers; let a stage of kind sample come first")
    dropped.say(context)
    return data.without(dropped)


def score_measures(groups: Sequence[Group], seed: int) -> dict[str, Measure]:
    """The mean score and each reward's, what could not be scored, and best@k (pass@k of a verifier) for k = 2, 4, ...

    The KL of choosing the best of k is at most log k - (k - 1) / k nats.
    """
    scores = [[c.score for c in group.completions] for group in groups]
    figures = {"score": measure(scores, seed=seed)}
    curve = best_of_curve(scores, seed=seed)
    figures.update({f"best@{k}/score": point for k, point in curve.points.items() if k > 1})
    for name in dict.fromkeys(name for g in groups for c in g.completions for name in c.rewards):
        values = [[c.rewards.get(name) for c in group.completions] for group in groups]
        figures[name] = measure(values, seed=seed)
        if missing := sum(v is None for row in values for v in row):
            figures[f"unscorable/{name}"] = Measure(float(missing), None, None, sum(map(len, values)))
        if values != scores and all(v in (0.0, 1.0, None) for row in values for v in row):
            figures.update({f"pass@{k}/{name}": measure_pass_at_k(values, k, seed=seed) for k in curve.points if k > 1})
    return figures
