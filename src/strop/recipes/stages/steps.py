"""The steps stage: solutions whose steps are labelled by sampled continuations, for process reward models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup
from strop.evaluate.statistics import Measure, measure
from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import Dropped, Loaded, load_groups, prompts_of
from strop.recipes.settings import StepsStage
from strop.recipes.stages.chunks import FILE, in_chunks
from strop.recipes.stages.common import num_positions, open_frozen, sampler
from strop.rewards import load_rewards, score
from strop.rollout.rollouts import Sampler
from strop.rollout.steps import MonteCarlo
from strop.types import Completion, Group


def run(stage: StepsStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    assert stage.data is not None
    load_rewards(stage.rewards)
    data = load_groups(stage.data, context)
    model, chat = open_frozen(context.model, stage.data, context)
    # A solution and then a continuation from any of its steps must fit.
    room = num_positions(model) - stage.sampling.max_completion_length * (1 + (stage.solutions == "sampled"))
    groups, data = (_given if stage.solutions == "given" else _asked)(data, chat, room, context)
    solve = sampler(model, chat, stage.sampling, context.seed, stage.num_samples)
    label = MonteCarlo(
        sample=sampler(model, chat, stage.sampling, context.seed, stage.num_continuations),
        decode=chat.decode,
        score=partial(score, rewards=stage.rewards),
        separator=stage.separator,
        labels=stage.labels,
        right_above=stage.right_above,
    )

    def work(chunk: Sequence[Group], first: int) -> tuple[list[Group], dict[str, float]]:
        began = time.perf_counter()
        if stage.solutions == "sampled":
            chunk = _solved(chunk, solve, first * stage.num_samples, chat)
        found = label(label.score(chunk), 1 + first)
        values = {name: figure.value for name, figure in label_measures(found, stage.right_above, 0).items()}
        return found, {**values, "phase/sampling_s": time.perf_counter() - began}

    count = f"{stage.num_samples} sampled" if stage.solutions == "sampled" else "given"
    words = f"{len(groups)} with {count} solutions, {stage.num_continuations} continuations a step"
    context.begin({"model": context.model, "prompts": words})
    context.phase("sampling")
    began = time.perf_counter()
    labelled = in_chunks(groups, stage.save_every, work, context)
    context.samples(0, labelled[:3])
    return StageResult(
        metrics=label_measures(labelled, stage.right_above, context.recipe.seed),
        artifacts={"samples": FILE},
        phases={"sampling": time.perf_counter() - began},
        data=data.summary,
    )


def _asked(data: Loaded, chat: Chat, room: int, context: Context) -> tuple[list[Group], Loaded]:
    """Prompts to be solved."""
    prompts = prompts_of(data.groups, chat, room, context)
    return prompts.groups, data.without(prompts.dropped)


def _given(data: Loaded, chat: Chat, room: int, context: Context) -> tuple[list[Group], Loaded]:
    """Prompts with their solutions as tokens.

    Raises: ValueError if none can be used.
    """
    dropped, groups = Dropped(), []
    for group, encoded in zip(data.groups, chat.encode_many(data.groups, room), strict=True):
        fault = _fault(group, encoded)
        if fault or isinstance(encoded, str):
            dropped.add(fault, group.origin)
            continue
        pairs = zip(group.completions, encoded.sequences, strict=True)
        solutions = tuple(Completion(c.content, token_ids=s.ids, finish=c.finish) for c, s in pairs)
        groups.append(replace(group, completions=solutions, prompt_ids=encoded.prompt_ids))
    dropped.say(context)
    if not groups:
        raise ValueError(f"no given solution can be used: {'; '.join(dropped.told())}; or let solutions=sampled")
    return groups, data.without(dropped)


def _fault(group: Group, encoded: EncodedGroup | str) -> str:
    if isinstance(encoded, str):
        return encoded
    if not group.completions:
        return "a prompt without a solution"
    if any(s.truncated and c.finish != "length" for c, s in zip(group.completions, encoded.sequences, strict=True)):
        return "a solution that leaves no room for a continuation"
    return "" if all(all(s.trained) for s in encoded.sequences) else "a solution of several turns"


def _solved(prompts: Sequence[Group], solve: Sampler, first_index: int, chat: Chat) -> list[Group]:
    """The prompts with sampled solutions."""
    sampled = solve([group.prompt_ids or () for group in prompts], 0, first_index)
    return [
        replace(group, completions=tuple(Completion(chat.decode(s.ids), token_ids=s.ids, finish=s.finish) for s in row))
        for group, row in zip(prompts, sampled, strict=True)
    ]


def label_measures(groups: Sequence[Group], right_above: float, seed: int) -> dict[str, Measure]:
    """Steps a solution, their mean label, and the share of them, and of solutions, that are right.

    `recovered`: of the steps from which at least half of the continuations fail, those in solutions that came out
    right all the same. Where it is high, labels say little of the steps themselves.
    """
    completions = [group.completions for group in groups]
    labels = [[y for c in row for y in c.step_labels] for row in completions]
    outcomes = [[None if c.score is None else c.score > right_above for c in row] for row in completions]
    doubted = [
        [c.step_labels[-1] for c in row for y in c.step_labels[:-1] if y is not None and y <= 0.5]
        for row in completions
    ]
    return {
        "steps/number": measure([[float(len(c.steps)) for c in row] for row in completions], share=False, seed=seed),
        "steps/label": measure(labels, share=True, seed=seed),
        "steps/right": measure([[None if y is None else y > 0.5 for y in row] for row in labels], seed=seed),
        "solutions/right": measure(outcomes, seed=seed),
        "steps/recovered": measure(doubted, seed=seed),
    }
