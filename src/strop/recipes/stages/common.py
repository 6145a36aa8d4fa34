"""What stages share: opening models and rows, the reference, the learner, sampling, and the first step's checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from strop.data.chat import Chat
from strop.data.source import Fixed, rows
from strop.data.templates import give_template
from strop.evaluate.heldout import evaluate_objective
from strop.evaluate.sampled import Wanted, evaluate_samples, write_groups
from strop.evaluate.statistics import Measure
from strop.model.adapter import WithoutAdapter, base_of, layers_of
from strop.model.forward import LanguageModel, Model
from strop.model.head import reads_last
from strop.model.load import choose_device, load, load_tokenizer
from strop.objectives import Objective
from strop.recipes.arithmetic import num_steps
from strop.recipes.context import Context, StageResult
from strop.recipes.fit import Finished, Job, fit
from strop.recipes.inputs import Loaded, Prompts, Split, load_groups, rows_of
from strop.recipes.settings import Data, OnPolicyStage, PreferenceStage, Sampling, TrainingStage, UnpairedStage
from strop.recipes.watching import Monitoring
from strop.rewards import score
from strop.rollout.rollouts import Sampler
from strop.rollout.sampler import Sampled, sample
from strop.train.annotate import Reference
from strop.train.learner import Learner
from strop.train.loop import Annotate, Packing, Passes, annotated
from strop.train.refcache import ReferenceCache, model_hash, module_hash
from strop.types import Group

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Check = Callable[[dict[str, float]], None]
"""Looks at the first optimizer step's metrics, and raises if they cannot be right."""

MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
"""Packed tokens a forward holds at most where the recipe does not say."""
AGREEMENT = {torch.float32: (1e-5, 1e-3), torch.bfloat16: (0.05, 2.0)}
"""Largest mean and single difference (nats) of rollout and training log-probs on the same weights."""


def open_training(stage: TrainingStage, context: Context) -> tuple[LanguageModel, Chat, Loaded]:
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
        adapter=stage.adapter,
        say=partial(context.event, "note"),
    )
    return model, Chat(tokenizer_of(context.model, context), stage.data.system), data


def open_frozen(path: str, settings: Data, context: Context) -> tuple[LanguageModel, Chat]:
    """A model that only answers, and its way of writing."""
    return load_frozen(path, context), Chat(tokenizer_of(path, context), settings.system)


def tokenizer_of(path: str, context: Context) -> PreTrainedTokenizerBase:
    """A model's tokenizer, with the recipe's chat template where it has none of its own."""
    tokenizer, template = load_tokenizer(path), context.recipe.template
    own = template is not None and not give_template(tokenizer, template)
    if own and not Path(path).is_relative_to(context.run_dir):  # what a stage left has its base's, which was said
        context.note_once(f"{path} has a chat template of its own, so template={template} is not used")
    return tokenizer


def load_frozen(path: str, context: Context) -> LanguageModel:
    """A model that is not trained."""
    device, precision, seed = choose_device(context.recipe.device), context.recipe.precision, context.recipe.seed
    return load(path, device=device, precision=precision, seed=seed, say=partial(context.event, "note"))


def fit_fixed(
    stage: TrainingStage,
    context: Context,
    model: Model,
    chat: Chat,
    split: Split,
    objective: Objective,
    *,
    annotations: tuple[Annotate, ...] = (),
    check_first: Check | None = None,
    finish: Callable[[], Finished] | None = None,
    monitor: Monitoring | None = None,
    held_apart: int = 0,
) -> StageResult:
    """Train on rows that stand in a file.

    Args: held_apart: rows that the stage has held out itself and measures in `finish`, for the account.
    """
    assert stage.data is not None
    steps = num_steps(len(split.train), stage.training)
    packing = packing_of(stage, model, objective)
    batch_size = stage.training.batch_size

    def held_out() -> dict[str, Measure]:
        groups, _ = annotated(annotations, split.held_out, {})
        return evaluate_objective(model, groups, objective, packing.max_tokens, packing.device)

    num_held = len(split.held_out) + held_apart
    job = Job(
        context=context,
        training=stage.training,
        chat=chat,
        learners=(learner_of(stage, model, objective, steps),),
        source=Fixed(split.train, batch_size, context.seed, stage.data.shuffle),
        steps=steps,
        packing=packing,
        passes=Passes(),
        evaluate=held_out if split.held_out else None,
        check_first=check_first,
        begin={"data": split.data.said, "held out": rows_of(num_held), "batch": arithmetic(stage, steps)},
        annotations=annotations,
        finish=finish,
        monitor=monitor,
    )
    return replace(fit(job), data={**split.data.summary, "held_out": num_held})


def learner_of(
    stage: TrainingStage, model: Model, objective: Objective, updates: int, temperature: float = 1.0
) -> Learner:
    """The learner of the stage's model, as its settings say."""
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


def packing_of(stage: TrainingStage, model: Model, objective: Objective) -> Packing:
    """How the stage's groups become micro-batches."""
    tokens = stage.training.micro_batch_tokens or micro_batch_tokens(model.device)
    splittable = all(r.unit != "group" for r in objective.reductions)
    return Packing(tokens, model.device, splittable=splittable, read_last=reads_last(model))


def needed_rows(stage: TrainingStage, num_rows: int, seed: int) -> list[int]:
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


def with_reference(
    stage: PreferenceStage | UnpairedStage, context: Context, model: LanguageModel, split: Split
) -> Split:
    """The rows that will be read, with the reference's log-probs."""
    context.phase("annotating")
    reference = reference_of(stage.reference, context, model, cached=True)
    needed = needed_rows(stage, len(split.train), context.seed)
    known = dict(zip(needed, reference([split.train[i] for i in needed]), strict=True))
    train = [known.get(i, group) for i, group in enumerate(split.train)]
    held_out = list(reference(split.held_out))
    assert reference.cache is not None
    name = stage.reference or "the starting model"
    context.event("note", f"{name} is the reference: log-probs of {rows_of(len(needed) + len(held_out))} taken")
    reference.cache.close()
    return replace(split, train=train, held_out=held_out)


def reference_of(
    path: str | None, context: Context, policy: LanguageModel, *, cached: bool, temperature: float = 1.0
) -> Reference:
    """The frozen reference and, where its data is fixed, the file that its log-probs are kept in."""
    model, name = reference_model(path, context, policy, cached=cached)
    identity = identity_of(name, model)
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


def reference_model(path: str | None, context: Context, policy: LanguageModel, *, cached: bool) -> tuple[Model, str]:
    """The reference, and what it was loaded from: another model only where the policy cannot stand in for it.

    A policy under an adapter is its own base model with the adapter off, at any time. Any other one is its own
    reference before step 0, which serves for fixed data, all of whose log-probs are taken then.

    Raises: ValueError if an adapter that has learned something is trained on and no reference is named.
    """
    start = context.model
    path = None if path is None else context.resolve(path)
    if layers_of(policy.module):
        base = base_of(start)
        if path is None and base != start:
            raise ValueError(
                f"{start} is an adapter, so with the adapter off the policy is its base model and not the one that "
                f"training starts from; name the reference: reference={start} or reference={base}"
            )
        if path is None or same_place(path, base):
            return WithoutAdapter(policy), base
    own = path is None or path == start
    name = start if path is None else path
    resumed = (context.stage_dir / "checkpoints").exists()
    if own and cached and not resumed and not layers_of(policy.module):
        return policy, name
    model = load(
        name,
        device=policy.device,
        precision=context.recipe.precision,
        seed=context.recipe.seed,
        trainable=own and cached,  # as the policy was when it stood in: in bf16 that computes other bits
        say=partial(context.event, "note"),
    )
    return model, name


def same_place(path: str, other: str) -> bool:
    """Whether two names mean one folder, or one name of a hub."""
    return path == other or (Path(path).is_dir() and Path(path).resolve() == Path(other).resolve())


def identity_of(path: str, model: Model) -> str:
    """The hash of a model's weights: of its files where there are some, of its tensors otherwise."""
    folder = Path(path)
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return model_hash(folder)
    return module_hash(model.module, model.module.config.to_dict())


def sampler(model: LanguageModel, chat: Chat, sampling: Sampling, seed: int, num_samples: int) -> Sampler:
    """Completions of prompts by a model, as the settings say."""

    def draw(prompts: Sequence[tuple[int, ...]], step: int, first_index: int) -> list[list[Sampled]]:
        with model.autocasting():
            return sample(
                model.module,
                prompts,
                num_samples=num_samples,
                max_new_tokens=sampling.max_completion_length,
                temperature=sampling.temperature,
                seed=seed,
                step=step,
                stop_ids=chat.stop_ids,
                stop_strings=sampling.stop,
                decode=chat.decode if sampling.stop else None,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                rows=sampling.rows,
                first_index=first_index,
                path="shared" if model.path == "packed" else "padded",
            )

    return draw


def micro_batch_tokens(device: str) -> int:
    """Packed tokens a forward holds at most on a device."""
    return MICRO_BATCH_TOKENS["cuda" if device.startswith("cuda") else "cpu"]


def num_positions(model: LanguageModel) -> int:
    """Tokens a sequence of the model may have."""
    return int(model.module.config.get_text_config().max_position_embeddings)


def sampled_measures(
    stage: OnPolicyStage,
    context: Context,
    chat: Chat,
    prompts: Prompts,
    model: LanguageModel,
    *,
    keep: Callable[[Sequence[Group]], None],
) -> dict[str, Measure]:
    """Greedy answers to held-out prompts, scored by the stage's rewards; `keep` is given them, too."""
    greedy = replace(stage.sampling, temperature=0.0)
    draw = sampler(model, chat, greedy, context.seed, 1)
    scores = partial(score, rewards=stage.rewards)
    found = evaluate_samples(prompts.groups, prompts.ids, draw, chat.decode, scores, context.phase)
    write_groups(context.stage_dir / "samples.jsonl", found.groups)
    context.samples(0, found.groups)
    keep(found.groups)
    return replace(found, wanted=Wanted(style=False)).measures(seed=context.recipe.seed)


def check_rollout(first: dict[str, float], *, dtype: torch.dtype) -> None:
    """The sampler and the trainer must agree on the same weights before anything is learned."""
    mean, worst = AGREEMENT[dtype]
    name = "sampling/sampling_logp_difference"
    if not (first[f"{name}/mean"] <= mean and first[f"{name}/max"] <= worst):
        raise RuntimeError(
            f"rollout and training log-probs differ by {first[f'{name}/mean']:.2g} nats a token on average and "
            f"{first[f'{name}/max']:.2g} at most, on the same weights; the limits are {mean:g} and {worst:g}. "
            "The model does not compute the same numbers when it decodes; please report its architecture."
        )


def check_reference(first: dict[str, float]) -> None:
    """The policy is its own reference before the first step, so every log-ratio is 0."""
    sides = ("rewards/chosen", "rewards/rejected")  # of unpaired rows a step may lack one
    worst = max(abs(first[name]) for name in sides if name in first)
    if worst > 1e-2:
        raise RuntimeError(
            f"the reference's log-probs differ from the policy's before the first step (mean reward {worst:.2g}, "
            "not 0); remove the cache folder .cache beside the runs and start again"
        )


def check_kl(first: dict[str, float], *, dtype: torch.dtype) -> None:
    """The policy that sampled is its own reference before the first step, so the KL in the loss is 0."""
    _check_no_kl(first["kl"], dtype)


def check_sequence_kl(first: dict[str, float], *, dtype: torch.dtype) -> None:
    """As `check_kl`, where the KL is measured by the completion: in the reward, or beside a loss on pairs."""
    if "completions/mean_length" in first:  # a rank may have none
        _check_no_kl(first["objective/kl"] / first["completions/mean_length"], dtype)


def _check_no_kl(kl: float, dtype: torch.dtype) -> None:
    limit = {torch.float32: 1e-4, torch.bfloat16: 0.05}[dtype]
    if abs(kl) > limit:
        raise RuntimeError(
            f"the reference's log-probs differ from the policy's before the first step (KL {kl:.2g} nats a "
            f"token, not 0; the limit is {limit:g}); the reference is not the model that training starts from"
        )


def arithmetic(stage: TrainingStage, steps: int, extra: str = "") -> str:
    """The steps and what each takes, in words."""
    other = "prompts" if isinstance(stage, OnPolicyStage) else "groups"
    what = {"sft": "rows", "preference": "pairs", "unpaired": "rows"}.get(stage.kind, other)
    return f"{steps} steps x {stage.training.batch_size} {what} {extra}".strip()
