"""The evaluations behind the stages of a recipe, and which of them a stage compares."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from strop.recipes.artifacts import own_model
from strop.recipes.settings import (
    AverageStage,
    BestStage,
    Data,
    EvaluateStage,
    SampleStage,
    Stage,
    TrainingStage,
    Written,
)
from strop.recipes.steps import Problems, Step, source
from strop.rewards import label_of

START = "eval-start"
"""The evaluation of the model that the recipe starts from."""
FIXED = ("kind", "name", "model", "baseline", "against")
"""Settings of an evaluate stage that a recipe's `evaluation` does not have: they follow from the stages."""
WRITERS = ("sft", "preference", "unpaired", "rl", "ppo", "online", "average", "best")
"""Kinds of stages whose models write text; the others' score it."""


def evaluated(recipe: Written, evaluation: EvaluateStage, steps: Sequence[Step], problems: Problems) -> list[Step]:
    """The steps with an evaluation before the first one that trains, and behind each that leaves a writing model."""
    writers = [step.stage for step in steps if step.stage is not None and step.stage.kind in WRITERS]
    if not writers and steps and all(step.stage is not None for step in steps):
        problems.append((("evaluation",), "no stage leaves a model that writes text, so there is nothing to evaluate"))
    if not writers:
        return list(steps)
    start = None if recipe.model is not None else own_model(writers[0])
    known: dict[str | None, str] = {start: START, recipe.model: START}
    names = [step.name for step in steps]
    out: list[Step] = []
    for place, step in enumerate(steps):
        there = names[: place + 1]
        trains = isinstance(step.stage, TrainingStage) or step.stage in writers
        if trains and START not in [done.name for done in out]:
            first = _asked(evaluation, START, start, None, set(names) - set(there[:-1]))
            out.append(Step(("evaluation",), first))
        out.append(step)
        if step.stage is not None and step.stage in writers and not _chooses_again(step, steps[place + 1 :]):
            before = _began(step.stage, known)
            asked = _asked(evaluation, f"eval-{step.name}", f"@{step.name}", before, set(names) - set(there))
            out.append(replace(step, written=("evaluation",), stage=asked))
            known[f"@{step.name}"] = asked.name
    return out


def _chooses_again(step: Step, later: Sequence[Step]) -> bool:
    """Whether it only picks a model that was evaluated in its round, and the next round's does so too."""
    return step.stage is not None and step.stage.kind == "best" and any(s.written == step.written for s in later)


def _began(stage: Stage, known: Mapping[str | None, str]) -> str | None:
    """The evaluation of what a stage started from, where there is one; of several models the first."""
    members = stage.members if isinstance(stage, AverageStage) else ()
    starts: tuple[str | None, ...] = members or (None if stage.kind == "best" else own_model(stage),)
    return next((known[text] for text in starts if text in known), None)


def _asked(
    evaluation: EvaluateStage, name: str, model: str | None, before: str | None, to_come: Collection[str]
) -> EvaluateStage | SampleStage:
    """The evaluation of a model, paired with an earlier one.

    A labeller compares, so where there is nothing to compare with yet answers are only drawn, and so where the
    reference is what a stage to come leaves.
    """
    compares = before is not None and evaluation.asks
    reference = None if source(evaluation.reference or "") in to_come else evaluation.reference
    judged = evaluation.rewards or (evaluation.labeller is not None and compares) or reference is not None
    if evaluation.samples and not judged:
        sampling, num_samples = evaluation.sampling, evaluation.num_samples
        return SampleStage(name=name, model=model, data=evaluation.data, sampling=sampling, num_samples=num_samples)
    return replace(
        evaluation,
        name=name,
        model=model,
        against=Data(path=f"@{before}") if compares else None,
        labeller=evaluation.labeller if compares else None,
        reference=reference,
    )


def compared(steps: Sequence[Step], place: int, problems: Problems) -> Step:
    """A stage that picks the best: with the evaluations its patterns stand for, by round, and what it may skip."""
    step = steps[place]
    if not isinstance(step.stage, BestStage):
        return step
    earlier = [other for other in steps[:place] if isinstance(other.stage, EvaluateStage)]
    groups = [[found for text in group for found in _meant(text, earlier)] for group in step.stage.among]
    for i, text in [(i, t) for i, group in enumerate(step.stage.among) for t in group if not _meant(t, earlier)]:
        known = ", ".join(f"@{other.name}" for other in earlier) or "none; give evaluation.data=FILE"
        why = f"{text}: no evaluation that stands before is called so; there are: {known}"
        problems.append(((*step.written, "among", i), why))
    asked = [e.stage for group in groups for e in group if isinstance(e.stage, EvaluateStage)]
    if len({(str(one.data), str(one.rewards), str(one.tasks)) for one in asked}) > 1:
        names = ", ".join(one.name for one in asked)
        problems.append(
            ((*step.written, "among"), f"evaluations of different rows or rewards: {names}; name those alike")
        )
    skips = step.stage.skips
    if step.block:
        meant = [other for group in groups for other in group]
        groups = [[e for e in earlier if e in meant and _round(e, step) == i] for i in range(step.round + 1)]
        later = steps[place + 1 :] if step.stage.patience is not None else ()
        skips = tuple(other.name for other in later if _may_skip(other, step))
    among = tuple(tuple(f"@{e.name}" for e in group) for group in groups if group)
    metric = step.stage.metric or _first_reward([other for group in groups for other in group])
    return replace(step, stage=replace(step.stage, among=among, skips=skips, metric=metric))


def _first_reward(evaluations: Sequence[Step]) -> str | None:
    """The figure that the first evaluation's first counted reward is; null where it has none."""
    stage = evaluations[0].stage if evaluations else None
    rewards = stage.rewards if isinstance(stage, EvaluateStage) else ()
    return next((label_of(reward) for reward in rewards if reward.weight), None)


def _meant(text: str, evaluations: Sequence[Step]) -> list[Step]:
    """The evaluations that a name (in a repeat without its round) or a pattern stands for."""
    pattern = text.removeprefix("@")
    return [e for e in evaluations if fnmatchcase(e.name, pattern) or (e.block and e.name == f"{pattern}-{e.round}")]


def _round(step: Step, of: Step) -> int:
    """The round of a step in another's repeat; 0 for what stands before it."""
    return step.round if step.block == of.block else 0


def _may_skip(step: Step, best: Step) -> bool:
    """Whether a step is of a later round, and neither picks the best nor evaluates that."""
    if step.block != best.block or step.round <= best.round or step.stage is None:
        return False
    return step.stage.kind != "best" and step.name != f"eval-{best.name.rpartition('-')[0]}-{step.round}"
