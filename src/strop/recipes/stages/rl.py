"""The RL stage: groups sampled from the current policy, scored, credited and trained on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from strop.recipes.arithmetic import num_steps
from strop.recipes.context import Context, StageResult
from strop.recipes.fit import Job, fit
from strop.recipes.inputs import load_groups, prompts_of
from strop.recipes.settings import RLStage
from strop.recipes.stages.common import (
    arithmetic,
    check_rollout,
    learner_of,
    open_training,
    packing_of,
    reference_of,
    sampled_measures,
    sampler,
)
from strop.rewards import load_rewards, score
from strop.rollout.rollouts import Rollouts
from strop.train.loop import Annotate, Passes


def run(stage: RLStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    load_rewards(stage.rewards)
    model, chat, data = open_training(stage, context)
    budget = stage.training.max_length - stage.sampling.max_completion_length
    prompts = prompts_of(data.groups, chat, budget, context)
    data = data.without(prompts.dropped)
    steps = num_steps(len(prompts.groups), stage.training)
    source = Rollouts(
        prompts=prompts.groups,
        prompt_ids=prompts.ids,
        sample=sampler(model, chat, stage.sampling, context.seed, stage.num_generations),
        decode=chat.decode,
        score=partial(score, rewards=stage.rewards),
        advantage=stage.advantage,
        batch_size=stage.training.batch_size,
        num_generations=stage.num_generations,
        seed=context.seed,
        keep_equal=stage.objective.beta > 0,
        mask_truncated=stage.mask_truncated,
    )
    passes = Passes(stage.passes, stage.minibatches, context.seed)
    annotations: tuple[Annotate, ...] = ()
    if "ref_logprobs" in stage.objective.needs:
        annotations = (
            reference_of(stage.reference, context, model, cached=False, temperature=stage.sampling.temperature),
        )
    evaluation = None
    if stage.eval_data is not None:
        held_out = prompts_of(load_groups(stage.eval_data, context).groups, chat, budget, context)
        evaluation = partial(sampled_measures, stage, context, chat, held_out, model)
    job = Job(
        context=context,
        training=stage.training,
        chat=chat,
        learners=(learner_of(stage, model, stage.objective, steps * passes.updates, stage.sampling.temperature),),
        source=source,
        steps=steps,
        packing=packing_of(stage, model, stage.objective),
        passes=passes,
        evaluate=evaluation,
        check_first=partial(check_rollout, dtype=model.precision),
        begin={"data": data.said, "batch": arithmetic(stage, steps, f"x {stage.num_generations} completions")},
        annotations=annotations,
    )
    return replace(fit(job), data=data.summary)
