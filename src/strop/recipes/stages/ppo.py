"""The PPO stage: completions of the current policy, scored, credited with a critic's help, and trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor

from strop.batch import Batch
from strop.data.chat import Chat
from strop.evaluate.statistics import Measure
from strop.model.forward import LanguageModel
from strop.model.head import ScalarModel, load_scalar
from strop.model.value import bring_to_scale, shared_values, with_value_head, write_critic
from strop.objectives import PPOWithValue
from strop.recipes.arithmetic import num_steps
from strop.recipes.context import Context, StageResult
from strop.recipes.fit import Finished, Job, fit
from strop.recipes.inputs import prompts_of
from strop.recipes.kinds.ppo import SHARED, PPOStage
from strop.recipes.stages.common import (
    arithmetic,
    check_rollout,
    check_sequence_kl,
    learner_of,
    micro_batch_tokens,
    open_training,
    packing_of,
    reference_of,
    sampler,
)
from strop.recipes.stages.monitoring import looks_of
from strop.rewards import load_rewards, score
from strop.rewards.scale import read_figures
from strop.rollout.process import StepScored
from strop.rollout.rollouts import Rollouts
from strop.rollout.select import Scored
from strop.train.control import KLControl
from strop.train.crediting import PPOCredit, Values
from strop.train.learner import Learner
from strop.train.loop import Annotate, Passes

Critic = Callable[[Batch], Tensor]
"""Values [N] of a batch."""

KL_SLACK = 1.5
"""A rollout's updates end once the KL to the policy that drew it is over so many times its target."""


def run(stage: PPOStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    load_rewards(stage.rewards)
    model, chat, data = open_training(stage, context)
    budget = stage.training.max_length - stage.sampling.max_completion_length
    prompts = prompts_of(data.groups, chat, budget, context)
    data = data.without(prompts.dropped)
    steps = num_steps(len(prompts.groups), stage.training)
    if stage.value_warmup >= steps:
        text = f"value_warmup {stage.value_warmup} takes all {steps} steps: the policy stays as it is"
        context.event("alarm", text)
    max_kl = None if stage.target_kl is None else KL_SLACK * stage.target_kl
    passes = Passes(stage.passes, stage.minibatches, context.seed, max_kl)
    if stage.critic == SHARED:
        model = with_value_head(model)
        learners, values = _shared(stage, model, steps * passes.updates)
    else:
        learners, values = _separate(stage, model, _critic(stage, context, model), steps, passes.updates)
    source = Rollouts(
        prompts=prompts.groups,
        prompt_ids=prompts.ids,
        sample=sampler(model, chat, stage.sampling, context.seed, stage.num_generations),
        decode=chat.decode,
        score=partial(score, rewards=stage.rewards),
        select=Scored() if stage.step_rewards is None else StepScored(stage.step_rewards, chat.decode),
        batch_size=stage.training.batch_size,
        num_generations=stage.num_generations,
        seed=context.seed,
    )
    control = KLControl(stage.kl)
    annotations = _annotations(stage, context, model, values, control)
    looks = looks_of(stage, context, chat, model, data.groups, steps, annotations)
    job = Job(
        context=context,
        training=stage.training,
        chat=chat,
        learners=learners,
        source=source,
        steps=steps,
        packing=packing_of(stage, model, learners[0].objective),
        passes=passes,
        evaluate=looks.evaluate,
        monitor=looks.monitor,
        check_first=partial(_check_first, stage, control, model),
        begin={"data": data.said, "batch": _said(stage, steps), "critic": _critic_said(stage)},
        annotations=annotations,
        carried={"kl": control},
        finish=partial(_finish, context, model, chat) if stage.critic == SHARED else None,
    )
    return replace(fit(job), data=data.summary)


def _check_first(stage: PPOStage, control: KLControl, model: LanguageModel, first: dict[str, float]) -> None:
    check_rollout(first, dtype=model.precision)
    if control.wants_reference and stage.reference is None:
        check_sequence_kl(first, dtype=model.precision)


def _shared(stage: PPOStage, model: LanguageModel, updates: int) -> tuple[tuple[Learner, ...], Critic]:
    """One learner of both losses, and what its head says."""
    objective = PPOWithValue(policy=stage.objective, value=stage.value)
    learner = learner_of(stage, model, objective, updates, stage.sampling.temperature)
    return (learner,), partial(shared_values, model)


def _separate(
    stage: PPOStage, model: LanguageModel, critic: ScalarModel, steps: int, updates: int
) -> tuple[tuple[Learner, ...], Critic]:
    """The policy's learner and the critic's, and what the critic says."""
    policy_steps = max(1, steps - stage.value_warmup)
    policy = learner_of(stage, model, stage.objective, policy_steps * updates, stage.sampling.temperature)
    policy.begins_at = stage.value_warmup
    value = learner_of(replace(stage, optimizer=stage.critic_optimizer), critic, stage.value, steps * updates)
    value.label = "critic"
    return (policy, value), partial(_values, critic)


def _values(critic: ScalarModel, batch: Batch) -> Tensor:
    values = critic(batch).values
    assert values is not None
    return values


def _critic(stage: PPOStage, context: Context, model: LanguageModel) -> ScalarModel:
    """A network of its own: a reward model, a critic, or the start's trunk with a head that says 0."""
    path = context.models.get("critic", context.model)
    critic = load_scalar(
        path,
        reads="before",
        device=model.device,
        precision=context.recipe.precision,
        seed=context.recipe.seed,
        trainable=True,
        init="zero",
        adapter=stage.adapter,
        gradient_checkpointing=stage.training.gradient_checkpointing,
        say=partial(context.event, "note"),
    )
    figures = read_figures(path)
    if figures is not None:  # a reward model's: returns are made of its scores as they are normalised
        bring_to_scale(critic, mean=figures.mean, std=figures.std)
    return critic


def _annotations(
    stage: PPOStage,
    context: Context,
    model: LanguageModel,
    values: Critic,
    control: KLControl,
) -> tuple[Annotate, ...]:
    """The reference's log-probs where the KL counts, the critic's values, then advantages and returns."""
    tokens = stage.training.micro_batch_tokens or micro_batch_tokens(model.device)
    credit = PPOCredit(stage.gae, control, stage.reward_clip, stage.missing_eos_penalty)
    own = (Values(values, tokens, model.device), credit)
    if not control.wants_reference:
        return own
    return (
        reference_of(stage.reference, context, model, cached=False, temperature=stage.sampling.temperature),
        *own,
    )


def _finish(context: Context, model: LanguageModel, chat: Chat) -> Finished:
    """The shared critic as a folder of its own."""
    folder = context.stage_dir / "critic"
    write_critic(model, folder)
    chat.tokenizer.save_pretrained(folder)
    figures: Mapping[str, Measure] = {}
    return figures, {"critic": "critic"}


def _said(stage: PPOStage, steps: int) -> str:
    return arithmetic(stage, steps, f"x {stage.num_generations} completion{'s'[: stage.num_generations > 1]}")


def _critic_said(stage: PPOStage) -> str:
    if stage.critic == SHARED:
        return "a head on the policy's trunk"
    start = stage.critic or "the policy's start, with a head that says 0"
    warmup = f", alone for {stage.value_warmup} steps" if stage.value_warmup else ""
    return f"from {start}{warmup}"
