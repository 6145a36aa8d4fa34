"""Sampled answers of an evaluate stage: drawn, scored, held against another model's and against a reference."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate

import numpy as np

from strop.data.encoded import EncodedGroup
from strop.evaluate.matching import matched
from strop.evaluate.sampled import KL, TASK, Evaluation, Wanted, evaluate_samples, win_names
from strop.evaluate.statistics import Measure
from strop.evaluate.wins import Match, match_wins
from strop.model.divergence import token_divergences
from strop.model.forward import LanguageModel
from strop.model.load import load_tokenizer
from strop.recipes.context import Context
from strop.recipes.inputs import Loaded, prompts_of, read_groups, rows_of
from strop.recipes.settings import Data, EvaluateStage
from strop.recipes.stages.common import (
    load_frozen,
    micro_batch_tokens,
    num_positions,
    open_frozen,
    sampler,
    tokenizer_of,
)
from strop.recipes.stages.label import principles_of
from strop.rewards import Exact, Number, Only, RewardSettings, Shaped, label_of, load_rewards, score
from strop.rewards.judge import judged_text
from strop.rewards.protocol import weighted_sum, weights_of
from strop.rollout.couples import Couple, Preference
from strop.rollout.labellers import Judge
from strop.rollout.principles import drawn
from strop.rollout.select import sampled_sequence
from strop.types import Completion, Fact, Group

PREFERRED = "preferred"
"""Under this name an answer's facts and reasons say what came of comparing it."""
FEW = 8
"""A judge that says nothing of so many comparisons has failed."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an evaluation found: figures, the groups they are of, seconds by phase, and the account of the rows."""

    figures: Mapping[str, Measure]
    groups: tuple[Group, ...]
    seconds: Mapping[str, float]
    data: Loaded


def sampled(stage: EvaluateStage, settings: Data, data: Loaded, context: Context) -> Found:
    """Answers of the stage's model to the rows' prompts, and all that is asked about them."""
    if stage.rewards:
        load_rewards(stage.rewards)
    if "reference" in context.models:
        _check_vocabulary(context.models["reference"], stage, context)
    earlier = () if stage.against is None else _answered(stage.against, data.groups, context)
    own = _answers(context.model, stage, settings, data.groups, context)
    opponents: Opponents = {}
    if "baseline" in context.models:
        questions = [replace(group, completions=()) for group in own.groups]
        other = _answers(context.models["baseline"], stage, settings, questions, context)
        own = own.only({group.origin for group in other.groups})  # its tokenizer may leave no room for some
        opponents = dict(enumerate(other.groups))
    elif stage.against is not None:
        opponents = _earlier(stage, stage.against, earlier, own.groups, context)
    if "reference" in context.models:
        own = _with_kl(own, context.models["reference"], stage, context)
    figures: dict[str, Measure] = {}
    if stage.labeller is not None and opponents:
        own, figures = _compared(own, opponents, stage, context)
    if opponents:
        figures = _differences(own, opponents, context.recipe.seed) | figures
    figures = own.measures(seed=context.recipe.seed) | figures
    asked = {**asdict(stage.sampling), "num_samples": stage.num_samples, "seed": context.seed}
    told = {"kept": len(own.groups), "sampling": {**asked, "template": _template(context)}}
    kept = replace(data, summary={**data.summary, **told})
    return Found(figures, own.groups, own.seconds, kept)


def _answers(path: str, stage: EvaluateStage, settings: Data, groups: Sequence[Group], context: Context) -> Evaluation:
    model, chat = open_frozen(path, settings, context)
    budget = num_positions(model) - stage.sampling.max_completion_length
    prompts = prompts_of(groups, chat, budget, context)
    draw = sampler(model, chat, stage.sampling, context.seed, stage.num_samples)
    context.begin({"model": path, "prompts": f"{len(prompts.groups)} x {stage.num_samples} answers"})
    found = evaluate_samples(prompts.groups, prompts.ids, draw, chat.decode, partial(_scored, stage), context.phase)
    return replace(found, wanted=wanted_of(stage))


def _template(context: Context) -> str | None:
    """A hash of the chat template that prompts were written by; None where the model has none."""
    template = tokenizer_of(context.model, context).chat_template
    return None if not template else hashlib.sha256(str(template).encode()).hexdigest()[:16]


def _scored(stage: EvaluateStage, groups: Sequence[Group]) -> Sequence[Group]:
    return score(groups, stage.rewards) if stage.rewards else groups


def wanted_of(stage: EvaluateStage) -> Wanted:
    """How maj@k finds each reward's answers, and whose subsets are told."""
    return Wanted(answers={label_of(r): stage.answer or _answer_of(r) for r in stage.rewards}, by=stage.by)


def _answer_of(reward: RewardSettings) -> str:
    """How a reward finds the answer that it judges, as `canonical_answer` has it."""
    if isinstance(reward, Number):
        return "number" if reward.unmarked else "auto"
    if isinstance(reward, Exact) and reward.extract is not None:
        return reward.extract
    return _answer_of(reward.reward) if isinstance(reward, Only | Shaped) else "auto"


# Another model's answers.


Opponents = Mapping[int, Group]
"""The other model's answers to our prompts, by the place of ours."""


def _answered(settings: Data, groups: Sequence[Group], context: Context) -> Sequence[Group]:
    """The rows of `against` that hold answers, read before anything is sampled.

    Raises: ValueError if they answer none of our prompts.
    """
    found = read_groups(settings, context)
    answered = [group for group in found.groups if group.completions and TASK not in group.row]
    _check_matched(len(matched(groups, answered)), len(groups), settings, context)
    return answered


def _earlier(
    stage: EvaluateStage, settings: Data, answered: Sequence[Group], groups: Sequence[Group], context: Context
) -> Opponents:
    """The answers of `against` to our prompts, scored by the same rewards.

    Raises: ValueError if it answers none of them.
    """
    places = matched(groups, answered)
    say_matched(len(places), len(groups), settings, context)
    theirs = [replace(answered[j], row={**answered[j].row, **groups[i].row}) for i, j in places]
    ours = [{name for c in groups[i].completions for name in c.rewards} for i, _ in places]
    if any(not names <= set(c.rewards) for names, g in zip(ours, theirs, strict=True) for c in g.completions):
        context.event("note", f"the answers of {settings.path} are scored by this stage's rewards")
        context.phase("scoring")
        theirs = score(theirs, stage.rewards)
    elif stage.rewards:
        theirs = [_weighed(group, weights_of(stage.rewards)) for group in theirs]
    return {i: group for (i, _), group in zip(places, theirs, strict=True)}


def _weighed(group: Group, weights: Mapping[str, float]) -> Group:
    """Answers whose rewards are known, with their score by these weights: another stage may have weighed them else."""
    answers = (replace(c, score=weighted_sum(c.rewards, weights)) for c in group.completions)
    return replace(group, completions=tuple(answers))


def say_matched(num: int, of: int, settings: Data, context: Context) -> None:
    """Say how many of our rows are among those of `against`. Raises: ValueError if none is."""
    _check_matched(num, of, settings, context)
    if num < of:
        text = f"{num} of {rows_of(of)} are answered in {settings.path} too; differences rest on those"
        context.event("note", text)


def _check_matched(num: int, of: int, settings: Data, context: Context) -> None:
    if not num:
        raise ValueError(
            f"{context.name}.against: {settings.path} answers none of this stage's {rows_of(of)}; name answers to the "
            "same prompts, or a model to ask, as baseline=MODEL"
        )


def _differences(own: Evaluation, opponents: Opponents, seed: int) -> dict[str, Measure]:
    ours = replace(own, groups=tuple(own.groups[i] for i in opponents))
    return ours.against(replace(own, groups=tuple(opponents.values())), seed=seed)


def _compared(
    own: Evaluation, opponents: Opponents, stage: EvaluateStage, context: Context
) -> tuple[Evaluation, dict[str, Measure]]:
    """What the labeller says of our answers beside theirs, written to ours, and its figures.

    Raises: ValueError if a judge answered nothing at all.
    """
    assert stage.labeller is not None
    began = time.perf_counter()
    context.phase("judging")
    principles = principles_of(stage.labeller)
    number = stage.labeller.num_principles if isinstance(stage.labeller, Judge) else 0
    shown = _without_thinking if isinstance(stage.labeller, Judge) else _whole
    couples = []
    for place, theirs in opponents.items():
        generator = np.random.default_rng([context.seed, place])
        for mine, other in zip(own.groups[place].completions, theirs.completions, strict=False):
            pair = replace(own.groups[place], completions=(shown(mine), shown(other)))
            couples.append(Couple(group=pair, first=0, second=1, principles=drawn(principles, number, generator)))
    said = stage.labeller(couples)
    if isinstance(stage.labeller, Judge) and said and all(p.probability is None for p in said):
        raise ValueError(
            f"{stage.name}.labeller: the judge left all of {len(said)} comparisons without an answer: {said[0].reason}"
        )
    told = iter(zip(couples, said, strict=True))
    groups, matches = list(own.groups), []
    for place, theirs in opponents.items():
        num = min(len(own.groups[place].completions), len(theirs.completions))
        here = [next(told) for _ in range(num)]
        matches += [_match(place, couple, preference) for couple, preference in here]
        answers = own.groups[place].completions
        marked = [_marked(mine, preference) for mine, (_, preference) in zip(answers, here, strict=False)]
        groups[place] = replace(groups[place], completions=(*marked, *answers[num:]))
    figures = win_names(stage.labeller.name, match_wins(matches, seed=context.recipe.seed))
    seconds = {**own.seconds, "judging": time.perf_counter() - began}
    return replace(own, groups=tuple(groups), seconds=seconds), figures


def _without_thinking(completion: Completion) -> Completion:
    """What a judge is shown of an answer that thinks first: what stands behind its thinking."""
    thinks = "<think>" in completion.text or "</think>" in completion.text
    return replace(completion, content=judged_text(completion)) if thinks else completion


def _whole(completion: Completion) -> Completion:
    return completion


def _match(place: int, couple: Couple, told: Preference) -> Match:
    mine, other = couple.answers
    return Match(
        prompt=place,
        probability=told.probability,
        tie=told.tie,
        forward=told.facts.get("forward"),
        backward=told.facts.get("backward"),
        longer_by=len(mine.text) - len(other.text),
    )


def _marked(completion: Completion, told: Preference) -> Completion:
    facts: dict[str, Fact] = {k: float(v) for k, v in told.facts.items() if isinstance(v, bool | int | float)}
    if told.probability is not None:
        facts["probability"] = told.probability
    reasons = {**completion.reasons, PREFERRED: told.reason} if told.reason else completion.reasons
    return replace(completion, facts={**completion.facts, PREFERRED: facts}, reasons=reasons)


# The reference.


def _check_vocabulary(path: str, stage: EvaluateStage, context: Context) -> None:
    """Raises ValueError if the reference writes with other tokens."""
    ours, theirs = (load_tokenizer(p).get_vocab() for p in (context.model, path))
    if ours != theirs:
        raise ValueError(
            f"{stage.name}.reference: {path} has another vocabulary than {context.model}, so there is no KL between "
            "them; name a model of the same family, or leave reference out"
        )


def _with_kl(own: Evaluation, path: str, stage: EvaluateStage, context: Context) -> Evaluation:
    """Every answer with its KL to the reference: whole vocabulary, one draw, and a token; nats."""
    began = time.perf_counter()
    context.phase("evaluating")
    model, reference = load_frozen(context.model, context), load_frozen(path, context)
    numbers = _token_numbers(own.groups, model, reference, stage.sampling.temperature)
    ends = list(accumulate((len(group.completions) for group in own.groups), initial=0))
    groups = [
        replace(group, completions=tuple(map(_with_numbers, group.completions, numbers[start:stop])))
        for group, start, stop in zip(own.groups, ends, ends[1:], strict=False)
    ]
    seconds = {**own.seconds, "evaluating": time.perf_counter() - began}
    return replace(own, groups=tuple(groups), seconds=seconds)


def _token_numbers(
    groups: Sequence[Group], model: LanguageModel, reference: LanguageModel, temperature: float
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None]:
    """[tokens, 2] of every answer in order; None of one without tokens."""
    encoded = [
        EncodedGroup(g.prompt_ids or (), tuple(sampled_sequence(c) for c in g.completions if c.token_ids))
        for g in groups
    ]
    rows = token_divergences(
        model,
        reference,
        [group for group in encoded if group.sequences],
        temperature=temperature,
        max_tokens=micro_batch_tokens(model.device),
        device=model.device,
    )
    numbers = iter([one for row in rows for one in row])
    return [next(numbers) if c.token_ids else None for group in groups for c in group.completions]


def _with_numbers(
    completion: Completion, numbers: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None
) -> Completion:
    if numbers is None:
        return completion
    whole, single = (float(column) for column in numbers.sum(0, dtype=np.float64))
    facts: dict[str, Fact] = {"sequence": whole, "sequence_k1": single, "per_token": whole / len(numbers)}
    return replace(completion, facts={**completion.facts, KL: facts})
