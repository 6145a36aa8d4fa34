"""What a training stage looks at besides its own figures: greedy answers to held-out prompts, and the monitor's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup
from strop.evaluate.sampled import evaluate_samples
from strop.evaluate.statistics import Measure
from strop.model.adapter import base_of, layers_of
from strop.model.forward import LanguageModel
from strop.monitor.judge import Watch
from strop.monitor.samples import HELD_OUT, OWN
from strop.recipes.artifacts import stage_seed
from strop.recipes.context import Context
from strop.recipes.inputs import Prompts, prompts_of, read_groups
from strop.recipes.monitor import Monitor
from strop.recipes.parts import Sampling
from strop.recipes.settings import OnPolicyStage, PreferenceStage, UnpairedStage
from strop.recipes.stages.common import reference_of, sampled_measures, sampler
from strop.recipes.watching import Monitoring
from strop.rewards import RewardSettings, label_of, load_rewards, score
from strop.rollout.rollouts import Sampler
from strop.rollout.select import sampled_sequence
from strop.train.annotate import Reference
from strop.train.loop import Annotate
from strop.types import Completion, Group

Watched = OnPolicyStage | PreferenceStage | UnpairedStage
"""Stages that have a monitor."""
SEED = "monitor"
"""The samples' seed is a function of the stage's seed and this."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What `fit` looks at: held-out figures, and the monitor."""

    evaluate: Callable[[], dict[str, Measure]] | None
    monitor: Monitoring | None


def looks_of(
    stage: OnPolicyStage,
    context: Context,
    chat: Chat,
    model: LanguageModel,
    groups: Sequence[Group],
    steps: int,
    annotations: Sequence[Annotate] = (),
) -> Looks:
    """Of a stage that samples: greedy answers to `eval_data`, which the cheap detectors read where no monitor is set.

    Args: groups: the stage's prompts. annotations: one of them may be the reference that a monitor needs.
    """
    evaluate, monitor = None, None
    if stage.eval_data is not None:
        budget = stage.training.max_length - stage.sampling.max_completion_length
        held_out = prompts_of(read_groups(stage.eval_data, context).groups, chat, budget, context)
        latest = Latest()
        evaluate = partial(sampled_measures, stage, context, chat, held_out, model, keep=latest.take)
        if stage.monitor is None:
            monitor = _light(stage, context, latest, steps)
    if stage.monitor is not None:
        monitor = monitoring_of(stage, context, chat, model, groups, steps, annotations)
    return Looks(evaluate, monitor)


@dataclass(slots=True)
class Latest:
    """The samples of the newest evaluation."""

    groups: Sequence[Group] = field(default=())

    def take(self, groups: Sequence[Group]) -> None:
        self.groups = groups

    def give(self) -> Sequence[Group]:
        return self.groups


def _light(stage: OnPolicyStage, context: Context, latest: Latest, steps: int) -> Monitoring:
    """The detectors that need nothing but the greedy answers that are drawn anyway."""
    settings = Monitor(every=stage.training.eval_every, kl=False)
    watch = Watch(settings.thresholds, settings.patience, context.seed)
    return Monitoring(context, settings, latest.give, steps, stage.training.eval_every, watch, {})


def monitoring_of(
    stage: Watched,
    context: Context,
    chat: Chat,
    model: LanguageModel,
    groups: Sequence[Group],
    steps: int,
    annotations: Sequence[Annotate] = (),
) -> Monitoring | None:
    """The monitor that a stage's settings ask for; None where they ask for none."""
    settings = stage.monitor
    if settings is None:
        return None
    rewards = tuple(replace(r, label=HELD_OUT + label_of(r)) for r in settings.rewards)
    if rewards:
        load_rewards(rewards)
    sampling = _sampling(stage, settings)
    prompts = _prompts(stage, settings, sampling, context, chat, groups)
    seed = stage_seed(context.seed, SEED)
    draw = sampler(model, chat, sampling, seed, settings.num_generations)
    reference = _reference(stage, settings, sampling, context, model, annotations)
    trained = stage.rewards if isinstance(stage, OnPolicyStage) else ()
    sampled = partial(_samples, prompts, draw, chat, trained, rewards, reference, context)
    weights = {label_of(r): r.weight for r in settings.rewards}
    watch = Watch(settings.thresholds, settings.patience, seed)
    return Monitoring(context, settings, sampled, steps, stage.training.eval_every, watch, weights)


def _sampling(stage: Watched, settings: Monitor) -> Sampling:
    if settings.sampling is not None:
        return settings.sampling
    if isinstance(stage, OnPolicyStage):
        return stage.sampling
    return Sampling(max_completion_length=min(Sampling().max_completion_length, stage.training.max_length // 2))


def _prompts(
    stage: Watched, settings: Monitor, sampling: Sampling, context: Context, chat: Chat, groups: Sequence[Group]
) -> Prompts:
    """The first so many distinct prompts of what is named, of eval_data, or of the stage's data."""
    named = settings.data or stage.eval_data
    found = groups if named is None else read_groups(named, context).groups
    first = list({group.prompt: group for group in reversed(found)}.values())[::-1][: settings.num_prompts]
    budget = stage.training.max_length - sampling.max_completion_length
    if budget < 1:
        raise ValueError(
            f"{stage.name}.monitor: {sampling.max_completion_length} tokens an answer leave no room for a prompt in "
            f"training.max_length={stage.training.max_length}; set monitor.sampling.max_completion_length"
        )
    return prompts_of(first, chat, budget, context)


def _reference(
    stage: Watched,
    settings: Monitor,
    sampling: Sampling,
    context: Context,
    model: LanguageModel,
    annotations: Sequence[Annotate],
) -> Reference | None:
    """The starting model: the stage's own reference where that is it, else the policy's base model or a copy."""
    if not settings.kl or sampling.temperature == 0:
        return None
    held = next((a for a in annotations if isinstance(a, Reference)), None)
    if held is not None and stage.reference is None:
        return replace(held, temperature=sampling.temperature)
    learned = layers_of(model.module) and base_of(context.model) != context.model
    path = context.model if learned else None
    found = reference_of(path, context, model, cached=False, temperature=sampling.temperature)
    if found.model is not model and not layers_of(model.module):
        size = sum(p.numel() * p.element_size() for p in found.model.module.parameters()) / 2**20
        context.event(
            "note", f"the monitor holds a copy of the start for the KL: {size:.0f} MiB (monitor.kl=false: none)"
        )
    return found


def _samples(
    prompts: Prompts,
    draw: Sampler,
    chat: Chat,
    trained: Sequence[RewardSettings],
    held: Sequence[RewardSettings],
    reference: Reference | None,
    context: Context,
) -> list[Group]:
    """Answers to the prompts with the training rewards' score, the held-out rewards, and the KL to the start."""

    def scores(groups: Sequence[Group]) -> list[Group]:
        scored = score(groups, trained) if trained else list(groups)
        return with_held_out(scored, held) if held else scored

    found = evaluate_samples(prompts.groups, prompts.ids, draw, chat.decode, scores, context.phase)
    return with_kl(found.groups, reference) if reference is not None else list(found.groups)


def with_held_out(groups: Sequence[Group], rewards: Sequence[RewardSettings]) -> list[Group]:
    """Groups with held-out rewards beside the others; their score stays that of the training rewards."""
    judged = score(groups, rewards)
    return [
        replace(
            ours,
            completions=tuple(replace(c, score=o.score) for c, o in zip(g.completions, ours.completions, strict=True)),
        )
        for g, ours in zip(judged, groups, strict=True)
    ]


def with_kl(groups: Sequence[Group], reference: Reference) -> list[Group]:
    """Groups whose completions state log(policy / reference) of what was sampled, nats."""
    assert all(group.prompt_ids is not None for group in groups)
    encoded = [
        EncodedGroup(
            g.prompt_ids or (), tuple(sampled_sequence(c) for c in g.completions if c.token_ids), origin=g.origin
        )
        for g in groups
    ]
    out = []
    for group, known in zip(groups, reference(encoded), strict=True):
        rows = iter(known.sequences)
        own = [_log_ratio(c, next(rows).columns["ref_logprobs"]) if c.token_ids else 0.0 for c in group.completions]
        told = [_stating(c, value) for c, value in zip(group.completions, own, strict=True)]
        out.append(replace(group, completions=tuple(told)))
    return out


def _log_ratio(completion: Completion, reference: float | tuple[float, ...]) -> float:
    return float(np.sum(completion.logprobs or ()) - np.nansum(reference))


def _stating(completion: Completion, kl: float) -> Completion:
    return replace(completion, facts={**completion.facts, OWN: {**completion.facts.get(OWN, {}), "kl": kl}})
