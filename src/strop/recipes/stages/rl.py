"""The RL stage: groups sampled from the policy, scored, credited and trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from strop.credit import LeaveOneOut, ProcessRelative
from strop.model.forward import LanguageModel
from strop.objectives import DPPO
from strop.recipes.arithmetic import num_steps
from strop.recipes.context import Context, StageResult
from strop.recipes.fit import Job, fit
from strop.recipes.inputs import prompts_of
from strop.recipes.settings import RLStage
from strop.recipes.stages.common import (
    arithmetic,
    check_kl,
    check_rollout,
    check_sequence_kl,
    learner_of,
    open_training,
    packing_of,
    reference_of,
    sampler,
)
from strop.recipes.stages.monitoring import looks_of
from strop.rewards import load_rewards, score
from strop.rollout.process import StepCredited
from strop.rollout.rollouts import Rollouts
from strop.rollout.select import Credited, Scored, Select, creditable
from strop.rollout.stale import Snapshot
from strop.token_credit import ReinforcePP, ReinforcePPBaseline
from strop.train.checkpoint import Carried
from strop.train.correct import Corrected
from strop.train.crediting import BaselineCredit, ReinforcePPCredit
from strop.train.group_credit import ShapedGroupCredit
from strop.train.loop import Annotate, Packing, Passes
from strop.train.reset import ResetReference


def run(stage: RLStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    load_rewards(stage.rewards)
    model, chat, data = open_training(stage, context)
    budget = stage.training.max_length - stage.sampling.max_completion_length
    prompts = prompts_of(data.groups, chat, budget, context)
    data = data.without(prompts.dropped)
    steps = num_steps(len(prompts.groups), stage.training)
    passes = Passes(stage.passes, stage.minibatches, context.seed)
    objective = replace(stage.objective, weighted=stage.correction is not None)
    learner = learner_of(stage, model, objective, steps * passes.updates, stage.sampling.temperature)
    packing = packing_of(stage, model, objective)
    select, credit = credit_of(stage, chat.decode)
    between = annotations_of(stage, context, model, packing)
    stale = Snapshot(model, lambda: learner.updates, stage.sync_every) if stage.sync_every > 1 else None
    source = Rollouts(
        prompts=prompts.groups,
        prompt_ids=prompts.ids,
        sample=sampler(stale.model if stale else model, chat, stage.sampling, context.seed, stage.num_generations),
        decode=chat.decode,
        score=partial(score, rewards=stage.rewards),
        select=select,
        batch_size=stage.training.batch_size,
        num_generations=stage.num_generations,
        seed=context.seed,
        dynamic=stage.dynamic_sampling,
        counted=partial(creditable, mask_truncated=stage.mask_truncated, missing_eos_penalty=stage.missing_eos_penalty),
        stale=stale,
        max_staleness=stage.max_staleness,
    )
    looks = looks_of(stage, context, chat, model, data.groups, steps, between.annotations)
    job = Job(
        context=context,
        training=stage.training,
        chat=chat,
        learners=(learner,),
        source=source,
        steps=steps,
        packing=packing,
        passes=passes,
        evaluate=looks.evaluate,
        monitor=looks.monitor,
        # A correction measures the sampler against the trainer at every step.
        check_first=partial(_check_first, stage, model),
        begin={"data": data.said, "batch": arithmetic(stage, steps, f"x {stage.num_generations} completions")},
        annotations=(*between.annotations, *credit),
        carried={**between.carried, **({"sampler": stale} if stale else {})},
    )
    return replace(fit(job), data=data.summary)


def _check_first(stage: RLStage, model: LanguageModel, first: dict[str, float]) -> None:
    if stage.correction is None:
        check_rollout(first, dtype=model.precision)
    if stage.wants_reference and stage.reference is None:
        check = check_kl if "ref_logprobs" in stage.objective.needs else check_sequence_kl
        check(first, dtype=model.precision)


def credit_of(stage: RLStage, decode: Callable[[Sequence[int]], str]) -> tuple[Select, tuple[Annotate, ...]]:
    """What becomes of scored groups, and the annotations that finish their credit once log-probs are known."""
    advantage = stage.advantage
    scored = Scored(stage.mask_truncated, stage.missing_eos_penalty)
    if isinstance(advantage, ReinforcePP):
        return scored, (ReinforcePPCredit(advantage),)
    if isinstance(advantage, LeaveOneOut) and advantage.beta > 0:
        return scored, (ShapedGroupCredit(advantage),)
    whitened = isinstance(advantage, ReinforcePPBaseline)  # over all the step's tokens, so all are there
    pulled_back = isinstance(stage.objective, DPPO) and stage.objective.tau > 0  # whatever the advantage
    keep_equal = whitened or pulled_back or "ref_logprobs" in stage.objective.needs
    if isinstance(advantage, ProcessRelative):
        return StepCredited(advantage, decode, keep_equal, stage.mask_truncated, stage.missing_eos_penalty), ()
    credited = Credited(advantage, keep_equal, stage.mask_truncated, stage.missing_eos_penalty)
    return credited, (BaselineCredit(advantage),) if isinstance(advantage, ReinforcePPBaseline) else ()


@dataclass(frozen=True, slots=True)
class Between:
    """What stands between sampling and credit, in order, and what of it a checkpoint holds."""

    annotations: tuple[Annotate, ...] = ()
    carried: dict[str, Carried] = field(default_factory=dict)


def annotations_of(stage: RLStage, context: Context, model: LanguageModel, packing: Packing) -> Between:
    """The policy's own log-probs where a correction asks for them, then the reference's."""
    annotations: list[Annotate] = []
    carried: dict[str, Carried] = {}
    temperature = stage.sampling.temperature
    if stage.correction is not None:
        annotations.append(Corrected(model, stage.correction, temperature, packing.max_tokens, packing.device))
    if stage.wants_reference:
        reference = reference_of(stage.reference, context, model, cached=False, temperature=temperature)
        if stage.reset_reference_every:
            moving = ResetReference(reference, model, stage.reset_reference_every)
            annotations.append(moving)
            carried["reference"] = moving
        else:
            annotations.append(reference)
    return Between(tuple(annotations), carried)
