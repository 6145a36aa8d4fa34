"""What each kind of stage does: settings and inputs to artifacts and closing figures.

A stage loads a model and data, builds a learner and a source, and lets `fit` drive the loop; it
differs from the others in what its source gives and in what its figures are.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from strop import dist
from strop.data.chat import Chat
from strop.data.source import Fixed, rows
from strop.evaluate.heldout import evaluate_objective
from strop.evaluate.sampled import evaluate_samples, write_groups
from strop.evaluate.statistics import Measure
from strop.model.forward import LanguageModel
from strop.model.load import choose_device, load, load_tokenizer
from strop.objectives import Objective
from strop.recipes.arithmetic import num_steps
from strop.recipes.context import Context, StageResult
from strop.recipes.evaluating import evaluate, micro_batch_tokens, sampler
from strop.recipes.fit import Job, fit
from strop.recipes.inputs import Loaded, Prompts, Split, hold_out, load_groups, prompts_of, rows_of
from strop.recipes.settings import PreferenceStage, RLStage, SFTStage, Stage
from strop.rewards import load_rewards, score
from strop.rollout.rollouts import Rollouts
from strop.train.annotate import Reference
from strop.train.learner import Learner
from strop.train.loop import Annotate, Packing, Passes
from strop.train.memory import keep_freed_pages, peak_memory_mb
from strop.train.refcache import ReferenceCache, model_hash, module_hash

AGREEMENT = {torch.float32: (1e-5, 1e-3), torch.bfloat16: (0.05, 2.0)}
"""Largest mean and single difference (nats) of rollout and training log-probs on the same weights."""


def execute(stage: Stage, context: Context) -> StageResult:
    """Run one stage to its end.

    Raises: Interrupted once it saved and stopped on request; ValueError for inputs that cannot work.
    """
    began = time.perf_counter()
    keep_freed_pages()
    if context.recipe.threads is not None:
        torch.set_num_threads(context.recipe.threads)
    dist.start()
    result = _run(stage, context)
    return replace(result, seconds=time.perf_counter() - began, peak_memory_mb=_peak_mb())


def _run(stage: Stage, context: Context) -> StageResult:
    if isinstance(stage, SFTStage):
        return _sft(stage, context)
    if isinstance(stage, PreferenceStage):
        return _preference(stage, context)
    if isinstance(stage, RLStage):
        return _rl(stage, context)
    return evaluate(stage, context)


def _sft(stage: SFTStage, context: Context) -> StageResult:
    context.phase("loading")
    model, chat, data = _open(stage, context)
    split = hold_out(data, context, chat, stage.eval_data, stage.training)
    return _fit_fixed(stage, context, model, chat, split, stage.objective)


def _preference(stage: PreferenceStage, context: Context) -> StageResult:
    context.phase("loading")
    model, chat, data = _open(stage, context)
    split = hold_out(data, context, chat, stage.eval_data, stage.training)
    if "ref_logprobs" in stage.objective.needs:
        split = _annotated(stage, context, model, split)
    return _fit_fixed(stage, context, model, chat, split, stage.objective)


def _annotated(stage: PreferenceStage, context: Context, model: LanguageModel, split: Split) -> Split:
    """The rows that will be read, with the reference's log-probs."""
    context.phase("annotating")
    reference = _reference(stage.reference, context, model, cached=True)
    needed = _needed_rows(stage, len(split.train), context.seed)
    annotated = dict(zip(needed, reference([split.train[i] for i in needed]), strict=True))
    train = [annotated.get(i, group) for i, group in enumerate(split.train)]
    held_out = list(reference(split.held_out))
    assert reference.cache is not None
    name = stage.reference or "the starting model"
    context.event("note", f"{name} is the reference: log-probs of {rows_of(len(needed) + len(held_out))} taken")
    reference.cache.close()
    return replace(split, train=train, held_out=held_out)


def _rl(stage: RLStage, context: Context) -> StageResult:
    context.phase("loading")
    load_rewards(stage.rewards)
    model, chat, data = _open(stage, context)
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
    annotate: Annotate | None = None
    if stage.objective.beta > 0:
        annotate = _reference(stage.reference, context, model, cached=False, temperature=stage.sampling.temperature)
    evaluation = None
    if stage.eval_data is not None:
        held_out = prompts_of(load_groups(stage.eval_data, context).groups, chat, budget, context)
        evaluation = partial(_sampled_measures, stage, context, chat, held_out, model)
    job = Job(
        context=context,
        training=stage.training,
        chat=chat,
        learner=_learner(stage, model, stage.objective, steps * passes.updates, stage.sampling.temperature),
        source=source,
        steps=steps,
        annotate=annotate,
        packing=_packing(stage, model, stage.objective),
        passes=passes,
        evaluate=evaluation,
        check_first=partial(_check_rollout, dtype=model.precision),
        begin={"data": data.said, "batch": _arithmetic(stage, steps, f"x {stage.num_generations} completions")},
        temperature=stage.sampling.temperature,
    )
    return replace(fit(job), data=data.summary)


# What stages share.


def _open(stage: SFTStage | PreferenceStage | RLStage, context: Context) -> tuple[LanguageModel, Chat, Loaded]:
    """The model to train, its way of writing, and the rows."""
    if stage.data is None:
        raise ValueError(f"{stage.name}.data: nothing to train on; give data=FILE")
    data = load_groups(stage.data, context)
    model = load(
        context.model,
        device=choose_device(context.recipe.device),
        precision=context.recipe.precision,
        seed=context.recipe.seed,
        gradient_checkpointing=stage.training.gradient_checkpointing,
        trainable=True,
        say=partial(context.event, "note"),
    )
    return model, Chat(load_tokenizer(context.model), stage.data.system), data


def _fit_fixed(
    stage: SFTStage | PreferenceStage,
    context: Context,
    model: LanguageModel,
    chat: Chat,
    split: Split,
    objective: Objective,
) -> StageResult:
    """Train on rows that stand in a file."""
    assert stage.data is not None
    steps = num_steps(len(split.train), stage.training)
    packing = _packing(stage, model, objective)
    batch_size = stage.training.batch_size

    def held_out() -> dict[str, Measure]:
        return evaluate_objective(model, split.held_out, objective, packing.max_tokens, packing.device)

    job = Job(
        context=context,
        training=stage.training,
        chat=chat,
        learner=_learner(stage, model, objective, steps, 1.0),
        source=Fixed(split.train, batch_size, context.seed, stage.data.shuffle),
        steps=steps,
        annotate=None,
        packing=packing,
        passes=Passes(),
        evaluate=held_out if split.held_out else None,
        check_first=_check_reference if isinstance(stage, PreferenceStage) and stage.reference is None else None,
        begin={"data": split.data.said, "held out": rows_of(len(split.held_out)), "batch": _arithmetic(stage, steps)},
    )
    return replace(fit(job), data={**split.data.summary, "held_out": len(split.held_out)})


def _learner(
    stage: SFTStage | PreferenceStage | RLStage,
    model: LanguageModel,
    objective: Objective,
    updates: int,
    temperature: float,
) -> Learner:
    return Learner(
        model=model,
        objective=objective,
        optimizer=stage.optimizer(model.module),
        schedule=stage.schedule,
        num_updates=updates,
        max_grad_norm=stage.training.max_grad_norm,
        temperature=temperature,
        nonfinite_limit=stage.training.nonfinite_limit,
    )


def _packing(stage: SFTStage | PreferenceStage | RLStage, model: LanguageModel, objective: Objective) -> Packing:
    tokens = stage.training.micro_batch_tokens or micro_batch_tokens(model.device)
    return Packing(tokens, model.device, splittable=all(r.unit != "group" for r in objective.reductions))


def _needed_rows(stage: PreferenceStage, num_rows: int, seed: int) -> list[int]:
    """The rows that the stage's steps will take, ascending."""
    assert stage.data is not None
    wanted: set[int] = set()
    for step in range(num_steps(num_rows, stage.training)):
        taken = rows(
            step, num_rows=num_rows, batch_size=stage.training.batch_size, seed=seed, shuffle=stage.data.shuffle
        )
        wanted.update(taken)
        if len(wanted) == num_rows:
            break
    return sorted(wanted)


def _reference(
    path: str | None, context: Context, policy: LanguageModel, *, cached: bool, temperature: float = 1.0
) -> Reference:
    """The frozen reference: another model where one is named or where the policy will move on while it is asked.

    For fixed data all of its log-probs are taken before step 0, so the starting policy can stand in
    for itself and no second model is held.
    """
    start = context.model
    own = path is None or path == start
    name = start if path is None else path
    resumed = (context.stage_dir / "checkpoints").exists()
    model = policy
    if not (own and cached) or resumed:
        model = load(
            name,
            device=policy.device,
            precision=context.recipe.precision,
            seed=context.recipe.seed,
            trainable=own and cached,  # as the policy was when it stood in: in bf16 that computes other bits
            say=partial(context.event, "note"),
        )
    identity = _identity(name, model)
    cache = None
    if cached:
        file = context.run_dir.parent / ".cache" / f"reference-{identity[:16]}-{model.precision_name}.bin"
        cache = ReferenceCache(file, f"{identity} {model.precision_name}", partial(context.event, "note"))
    return Reference(
        model=model,
        identity=identity,
        precision=model.precision_name,
        cache=cache,
        temperature=temperature,
        max_tokens=micro_batch_tokens(policy.device),
        device=policy.device,
    )


def _identity(path: str, model: LanguageModel) -> str:
    """The hash of a model's weights: of its files where there are some, of its tensors otherwise."""
    folder = Path(path)
    if folder.is_dir() and any(folder.glob("*.safetensors")):
        return model_hash(folder)
    return module_hash(model.module, model.module.config.to_dict())


def _sampled_measures(
    stage: RLStage, context: Context, chat: Chat, prompts: Prompts, model: LanguageModel
) -> dict[str, Measure]:
    """Greedy answers to held-out prompts, scored by the stage's rewards."""
    greedy = replace(stage.sampling, temperature=0.0)
    draw = sampler(model, chat, greedy, context.seed, 1)
    scores = partial(score, rewards=stage.rewards)
    found = evaluate_samples(prompts.groups, prompts.ids, draw, chat.decode, scores, context.phase)
    write_groups(context.stage_dir / "samples.jsonl", found.groups)
    context.samples(0, found.groups)
    return found.measures(1, seed=context.recipe.seed)


def _check_rollout(first: dict[str, float], *, dtype: torch.dtype) -> None:
    """The sampler and the trainer must agree on the same weights before anything is learned."""
    mean, worst = AGREEMENT[dtype]
    name = "sampling/sampling_logp_difference"
    if not (first[f"{name}/mean"] <= mean and first[f"{name}/max"] <= worst):
        raise RuntimeError(
            f"rollout and training log-probs differ by {first[f'{name}/mean']:.2g} nats a token on average and "
            f"{first[f'{name}/max']:.2g} at most, on the same weights; the limits are {mean:g} and {worst:g}. "
            "The model does not compute the same numbers when it decodes; please report its architecture."
        )


def _check_reference(first: dict[str, float]) -> None:
    """The policy is its own reference before the first step, so every log-ratio is 0."""
    worst = max(abs(first[name]) for name in ("rewards/chosen", "rewards/rejected"))
    if worst > 1e-2:
        raise RuntimeError(
            f"the reference's log-probs differ from the policy's before the first step (mean reward {worst:.2g}, "
            "not 0); remove the cache folder .cache beside the runs and start again"
        )


def _arithmetic(stage: SFTStage | PreferenceStage | RLStage, steps: int, extra: str = "") -> str:
    what = {"sft": "rows", "preference": "pairs", "rl": "prompts"}[stage.kind]
    return f"{steps} steps x {stage.training.batch_size} {what} {extra}".strip()


def _peak_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_memory_mb()
