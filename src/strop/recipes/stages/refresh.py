"""The refresh stage: answers of the policy as it is now, labelled, and mixed with old pairs to train a reward model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup
from strop.data.whole import WholeChat
from strop.evaluate.calibration import reward_measures
from strop.evaluate.reliability import FILE as RELIABILITY
from strop.evaluate.sampled import write_groups
from strop.evaluate.statistics import Measure
from strop.model.head import ScalarModel
from strop.model.scoring import SharedScorer
from strop.recipes.arithmetic import num_held_out
from strop.recipes.context import Context, Interrupted, StageResult
from strop.recipes.fit import Finished
from strop.recipes.inputs import Dropped, Encoded, Loaded, Prompts, Split, drawn, encode_all, load_groups, prompts_of
from strop.recipes.settings import RefreshStage, RewardStage
from strop.recipes.stages.chunks import FILE, bare
from strop.recipes.stages.common import fit_fixed, load_frozen, num_positions, packing_of, sampler, tokenizer_of
from strop.recipes.stages.comparing import Comparisons, figures, scored
from strop.recipes.stages.reward import open_reward
from strop.rewards import load_rewards, score
from strop.rollout.choose import kept
from strop.types import Completion, Group, group_from_json

PAIRS = "pairs.jsonl"
"""The fresh pairs; all the labelled answers stand in samples.jsonl beside it."""
PROMPTS_AT_ONCE = 64
"""Prompts between two looks at whether to stop."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """Pairs as tokens: those to train on, those held out of the fresh and of the old ones, and what was left out."""

    train: list[EncodedGroup]
    fresh: list[EncodedGroup]
    old: list[EncodedGroup]
    dropped: Counter[str]


def run(stage: RefreshStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    load_rewards(stage.rewards)
    assert stage.data is not None
    data = load_groups(stage.data, context)
    old = load_groups(stage.old, context) if stage.old is not None else None
    labelled = _labelled(stage, context, data)
    as_reward = reward_stage(stage)
    tokenizer = tokenizer_of(context.model, context)
    chat = Comparisons(tokenizer, stage.data.system, pairs_only=True)
    model = open_reward(as_reward, context, chat)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.module.config.get_text_config().pad_token_id)
    pairs, refused = fresh_pairs(stage, context, labelled)
    _write(context.stage_dir / PAIRS, pairs)
    mixed = mixed_pairs(stage, context, chat, pairs, () if old is None else old.groups)
    before = _accuracies(stage, context, model, mixed)
    finish = partial(_leave_figures, stage, context, model, mixed, _answers(labelled, chat, stage), before)
    split = Split(mixed.train, [], _account(data, refused, mixed, len(labelled)))
    held = len(mixed.fresh) + len(mixed.old)
    result = fit_fixed(as_reward, context, model, chat, split, stage.objective, finish=finish, held_apart=held)
    return replace(result, artifacts={**result.artifacts, "samples": PAIRS})


def reward_stage(stage: RefreshStage) -> RewardStage:
    """The stage as the training of a reward model that it is."""
    return RewardStage(
        name=stage.name,
        model=stage.model,
        data=stage.data,
        adapter=stage.adapter,
        objective=stage.objective,
        optimizer=stage.optimizer,
        schedule=stage.schedule,
        training=stage.training,
    )


# Fresh answers.


def _labelled(stage: RefreshStage, context: Context, data: Loaded) -> list[Group]:
    """The policy's answers with their scores; those of the file where an earlier attempt wrote them all."""
    file = context.stage_dir / FILE
    if file.exists():
        return [group_from_json(json.loads(line)) for line in file.read_text("utf-8").splitlines()]
    assert stage.data is not None
    path = context.models["policy"]
    policy, chat = load_frozen(path, context), Chat(tokenizer_of(path, context), stage.data.system)
    prompts = prompts_of(data.groups, chat, num_positions(policy) - stage.sampling.max_completion_length, context)
    prompts = drawn(prompts, stage.num_prompts, context.seed)
    draw = sampler(policy, chat, stage.sampling, context.seed, stage.num_samples)
    context.phase("sampling")
    found: list[Group] = []
    for first in range(0, len(prompts.groups), PROMPTS_AT_ONCE):
        if context.should_stop():
            raise Interrupted
        chunk = slice(first, first + PROMPTS_AT_ONCE)
        rows = draw(prompts.ids[chunk], 0, first * stage.num_samples)
        texts = [[Completion(chat.decode(s.ids), token_ids=s.ids, finish=s.finish) for s in row] for row in rows]
        found += score(_answered(prompts, chunk, texts), stage.rewards)
    found = [bare(group) for group in found]
    _write(file, found)
    context.samples(0, found[:3])
    return found


def _answered(prompts: Prompts, chunk: slice, texts: Sequence[Sequence[Completion]]) -> list[Group]:
    return [replace(group, completions=tuple(row)) for group, row in zip(prompts.groups[chunk], texts, strict=True)]


def _write(file: Path, groups: Sequence[Group]) -> None:
    """All or nothing, so that a stage that was stopped never reads half of it."""
    part = file.with_suffix(".part")
    write_groups(part, groups)
    part.rename(file)


# Fresh and old pairs.


def fresh_pairs(stage: RefreshStage, context: Context, labelled: Sequence[Group]) -> tuple[list[Group], Counter[str]]:
    """The best and the worst answer of each prompt; and how many prompts gave none, by reason.

    Raises: ValueError if no prompt's answers differ in score.
    """
    pairs, refused = kept(labelled, [stage.pair])
    for reason, count in refused.items():
        context.event("drop", f"{count} {reason}")
    if not pairs:
        told = "; ".join(f"{count} {reason}" for reason, count in refused.most_common())
        raise ValueError(f"{stage.name}: no fresh pair is left of {len(labelled)} prompts ({told}); raise num_samples")
    return [bare(pair) for pair in pairs], refused


def mixed_pairs(
    stage: RefreshStage, context: Context, chat: Comparisons, pairs: Sequence[Group], old: Sequence[Group]
) -> Mixed:
    """Held-out shares of both kinds, and the rest: every fresh pair, and old ones, drawn by the seed, beside them."""
    limit = stage.training.max_length
    fresh = encode_all(pairs, chat, limit, context)
    known = encode_all(old, chat, limit, context) if old else Encoded([], [], Dropped())
    new, fresh_out = _parted(fresh.tokens, stage, context.seed)
    rest, old_out = _parted(known.tokens, stage, context.seed)
    wanted = old_pairs_for(len(new), stage.old_share)
    order = np.random.default_rng([context.seed, 3]).permutation(len(rest))[:wanted]
    taken = [rest[i] for i in sorted(order.tolist())]
    share = len(taken) / (len(taken) + len(new))
    context.event("note", f"{len(new)} fresh pairs and {len(taken)} old ones ({share:.0%} old) are trained on")
    if len(taken) < wanted:
        text = f"old_share={stage.old_share:g} asks for {wanted} old pairs and there are {len(taken)}"
        context.event("alarm", f"{text}; what the model knew may fade: give more, or fewer prompts")
    return Mixed([*new, *taken], fresh_out, old_out, fresh.dropped.reasons + known.dropped.reasons)


def old_pairs_for(num_fresh: int, old_share: float) -> int:
    """How many old pairs make their share of the mixture at least `old_share`: ceil(n s / (1 - s))."""
    return int(np.ceil(num_fresh * old_share / (1 - old_share) - 1e-9))


def _parted(
    groups: Sequence[EncodedGroup], stage: RefreshStage, seed: int
) -> tuple[list[EncodedGroup], list[EncodedGroup]]:
    """Trained and held-out ones, a fraction chosen by the seed."""
    count = num_held_out(len(groups), stage.training) if groups and stage.training.eval_fraction else 0
    chosen = set(np.random.default_rng([seed, 1]).permutation(len(groups))[:count].tolist())
    left = [group for i, group in enumerate(groups) if i not in chosen]
    return left, [group for i, group in enumerate(groups) if i in chosen]


def _account(data: Loaded, refused: Counter[str], mixed: Mixed, prompts: int) -> Loaded:
    """What is trained on, as the start block and the summary say it; how many prompts were asked and gave no pair."""
    count = len(mixed.train)
    told = {"kind": "preference", "shape": "fresh pairs of the policy, and old ones", "rows": count, "kept": count}
    dropped = dict(Counter(data.summary["dropped"]) + refused + mixed.dropped)
    return Loaded((), {**data.summary, **told, "dropped": dropped, "prompts": prompts})


# What is measured.


def _answers(labelled: Sequence[Group], chat: Comparisons, stage: RefreshStage) -> list[EncodedGroup]:
    """All fresh answers, for the scale of the finished model's scores."""
    found = WholeChat(chat.tokenizer, chat.system).encode_many(labelled, stage.training.max_length)
    return [e for e in found if isinstance(e, EncodedGroup)]


def _accuracies(stage: RefreshStage, context: Context, model: ScalarModel, mixed: Mixed) -> dict[str, Measure]:
    """How often the model is right about held-out fresh pairs, and about old ones."""
    max_tokens = packing_of(reward_stage(stage), model, stage.objective).max_tokens
    named = {"accuracy": mixed.fresh, "old/accuracy": mixed.old}
    return {
        name: reward_measures(scored(SharedScorer(model), pairs, max_tokens), seed=context.recipe.seed)["accuracy"]
        for name, pairs in named.items()
        if pairs
    }


def _leave_figures(
    stage: RefreshStage,
    context: Context,
    model: ScalarModel,
    mixed: Mixed,
    answers: list[EncodedGroup],
    before: Mapping[str, Measure],
) -> Finished:
    """Write reward.json beside the finished model: temperature of held-out fresh pairs, scale of fresh answers."""
    max_tokens = packing_of(reward_stage(stage), model, stage.objective).max_tokens
    if not mixed.fresh:
        text = "no fresh pairs are held out, so the temperature comes from trained ones; set training.eval_fraction"
        context.event("alarm", text)
    compared = mixed.fresh or mixed.train
    measures, known = figures(SharedScorer(model), compared, answers, "fresh answers", max_tokens, context)
    known.write(context.stage_dir / "model")
    if not mixed.fresh:
        (context.stage_dir / RELIABILITY).unlink()  # of trained rows it would flatter
    after = _accuracies(stage, context, model, mixed)
    was = {f"before/{name}": measure for name, measure in before.items()}
    return {**(measures if mixed.fresh else {}), **after, **was}, {}
