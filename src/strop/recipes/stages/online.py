"""The online stage: pairs of the policy's own samples, one preference step on each batch of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from strop.batch import Batch, Outputs, Reduction, Terms, sum_by_sequence
from strop.data.chat import Chat
from strop.model.forward import LanguageModel
from strop.objectives import Objective
from strop.recipes.arithmetic import num_steps
from strop.recipes.context import Context, StageResult
from strop.recipes.fit import Job, fit
from strop.recipes.inputs import prompts_of
from strop.recipes.settings import OnlineStage
from strop.recipes.stages.common import (
    arithmetic,
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
from strop.rollout.pairs import BestAndWorst
from strop.rollout.rollouts import Rollouts
from strop.train.loop import Annotate, Passes


@dataclass(frozen=True, slots=True)
class OnPolicy:
    """A loss on pairs that the policy itself just sampled: the loss is the pairs' own, some metrics are more.

    objective/kl is the mean over the trained sequences of log(policy / reference), nats a sequence,
    an unbiased estimate of KL(policy || reference) where both of two samples are trained on; of the
    best and the worst of more it is one of the KL at the extremes.
    """

    pairs: Objective

    @property
    def needs(self) -> frozenset[str]:
        return self.pairs.needs | {"old_logprobs"}

    @property
    def wants(self) -> frozenset[str]:
        return self.pairs.wants

    @property
    def reductions(self) -> tuple[Reduction, ...]:
        return self.pairs.reductions

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        terms = self.pairs(outputs, batch)
        logprobs = outputs.logprobs.detach()
        difference = (logprobs - batch.columns["old_logprobs"]).abs()
        metrics = {
            "sampling/sampling_logp_difference/mean": difference,
            "sampling/sampling_logp_difference/max": difference,
        }
        if "ref_logprobs" in batch.columns:
            metrics["objective/kl"] = sum_by_sequence(logprobs - batch.columns["ref_logprobs"], batch)
        return Terms(terms.losses, {**terms.metrics, **metrics})


def run(stage: OnlineStage, context: Context) -> StageResult:
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
        select=BestAndWorst(missing_eos_penalty=stage.missing_eos_penalty, min_margin=stage.min_margin),
        batch_size=stage.training.batch_size,
        num_generations=stage.num_generations,
        seed=context.seed,
    )
    annotations = _annotations(stage, context, model, chat)
    looks = looks_of(stage, context, chat, model, data.groups, steps, annotations)
    objective = OnPolicy(stage.objective)
    job = Job(
        context=context,
        training=stage.training,
        chat=chat,
        learners=(learner_of(stage, model, objective, steps, stage.sampling.temperature),),
        source=source,
        steps=steps,
        packing=packing_of(stage, model, objective),
        passes=Passes(),
        evaluate=looks.evaluate,
        monitor=looks.monitor,
        check_first=partial(_check_first, stage, model),
        begin={"data": data.said, "batch": arithmetic(stage, steps, f"x {stage.num_generations} completions")},
        annotations=annotations,
    )
    return replace(fit(job), data=data.summary)


def _annotations(stage: OnlineStage, context: Context, model: LanguageModel, chat: Chat) -> tuple[Annotate, ...]:
    """What the loss needs: the fixed reference, at the temperature that is sampled and trained at; marked words."""
    found: list[Annotate] = []
    if "ref_logprobs" in stage.objective.needs:
        temperature = stage.sampling.temperature
        found.append(reference_of(stage.reference, context, model, cached=False, temperature=temperature))
    if "content" in stage.objective.needs:
        found.append(chat.with_content)
    return tuple(found)


def _check_first(stage: OnlineStage, model: LanguageModel, first: dict[str, float]) -> None:
    check_rollout(first, dtype=model.precision)
    if "ref_logprobs" in stage.objective.needs and stage.reference is None:
        check_sequence_kl(first, dtype=model.precision)
