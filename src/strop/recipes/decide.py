"""What the rows say: which method to begin with for each kind of data set, and what would change the answer.

The rows decide most: what kind they are, how many, how far their labels can be trusted. What else there is
(a verifier, a judge, a base model) decides the rest. Every threshold stands below with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from strop.data.formats import Dataset
from strop.data.quality import Comparisons, Quality
from strop.evaluate.statistics import wilson
from strop.recipes.memory import Size

NOISY = 0.05
"""From this share of flipped labels on, DPO's push towards certainty does harm; conservative DPO stops short of it."""
JUDGED_TWICE = 20
"""Pairs of judgements that a flip rate rests on at least."""
LONGER = 0.6
"""If clearly more than this share of better sides is the longer (or the shorter), length alone would be learnt."""
FEW_PAIRS = 2000
"""Fewer are soon learnt by heart, and too few for a reward model that must judge fresh answers."""
NUMERIC = 0.9
"""If so many reference answers are numbers, the verifier `number` can check answers."""
BALANCED = (1.0, 4 / 3)
"""Where KTO wants weight x count of the desirable over that of the undesirable (its paper, section 4)."""


@dataclass(frozen=True, slots=True)
class Means:
    """What there is besides the rows.

    Attributes:
        verifier, judge: a reward by name or `file.py:function`; a judge's address.
        model: a folder or hub name. size: of the model. gib: the GPU's memory.
        base: the model has no chat template, so it was not fine-tuned to answer.
    """

    verifier: str | None = None
    judge: str | None = None
    model: str | None = None
    size: Size | None = None
    gib: float | None = None
    base: bool = False


@dataclass(frozen=True, slots=True)
class Advice:
    """What to begin with.

    Attributes:
        method: a built-in recipe; None where nothing can tell a good answer from a bad one yet.
        why, findings: the reason, and what was seen in the rows.
        settings: what its command sets beyond model and data.
        runner_up: a recipe, and when it is the better one. changes: what would change the answer.
        memory: what it takes, in words. commands: to run it.
    """

    method: str | None
    why: str
    settings: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    runner_up: tuple[str, str] | None = None
    changes: tuple[str, ...] = ()
    memory: str = ""
    commands: tuple[str, ...] = ()


def decide(seen: Quality, means: Means, dataset: Dataset) -> Advice:
    """The method to begin with, without its commands and memory."""
    found = _BY_KIND[seen.kind](seen, _with_verifier(seen, means), dataset)
    return replace(found, changes=tuple(filter(None, found.changes)))


# By kind of rows.


def _pairs(seen: Quality, means: Means, dataset: Dataset) -> Advice:
    longest = max(len(g.completions) for g in dataset.groups)
    assert seen.comparisons is not None
    findings = tuple(_of_comparisons(seen.comparisons))
    if longest > 2:
        return Advice(
            "reward-ranking",
            f"rankings of up to {longest} answers: a reward model uses each whole, and then scores fresh answers",
            findings=findings,
            runner_up=("dpo", "on the best and the worst of each, as `strop run select keep=pair` leaves them"),
            changes=("two answers a row would go straight to dpo", _verifier_changes(means)),
        )
    name, why, settings = _pair_method(seen.comparisons, means)
    few = seen.comparisons.num < FEW_PAIRS
    spare = ("ipo", f"{seen.comparisons.num:,} pairs are soon learnt by heart; it stops at a margin")
    if not few:
        spare = (
            "reward",
            f"{seen.comparisons.num:,} pairs make a reward model, which can rank fresh answers (online-dpo)",
        )
    if means.verifier or means.judge:
        spare = ("online-dpo", f"{_reward(means)} can rank the model's own fresh answers to these prompts")
    return Advice(name, why, settings, findings=findings, runner_up=spare, changes=_pair_changes(name, means))


def _pair_method(found: Comparisons, means: Means) -> tuple[str, str, tuple[str, ...]]:
    flips, length = found.flip_rate, _longer(found)
    if flips is not None and found.twice >= JUDGED_TWICE and flips >= NOISY:
        why = f"{found.contradicting} of {found.twice} repeated judgements contradict, so about {flips:.0%} are flipped"
        return "cdpo", why, (f"objective.label_smoothing={min(flips, 0.45):.2f}",)
    if length is not None and (length[0] > LONGER or length[1] < 1 - LONGER):
        which = "longer" if length[0] > LONGER else "shorter"
        return "dpo-norm", f"the better side is mostly the {which}, which DPO on sums would learn instead", ()
    if means.base:
        return "orpo", "the model has no chat template, so it cannot answer yet; this fine-tunes and prefers in one", ()
    return "dpo", "pairs are at hand, and nothing in them speaks against the plainest method", ()


def _pair_changes(name: str, means: Means) -> tuple[str, ...]:
    others = {
        "cdpo": f"repeated judgements of which {NOISY:.0%} or more are flipped: cdpo",
        "dpo-norm": f"more than {LONGER:.0%} of the better sides being the longer: dpo-norm",
        "orpo": "a base model without a chat template: orpo, or sft on the chosen sides first",
    }
    return (*(text for key, text in others.items() if key != name), _verifier_changes(means))


def _unpaired(seen: Quality, means: Means, dataset: Dataset) -> Advice:
    labels = seen.labels
    assert labels is not None
    findings = [f"{labels.desirable:,} desirable and {labels.undesirable:,} undesirable answers"]
    if labels.contradicting:
        findings.append(f"{labels.contradicting:,} answers are called both; decide them, or leave them out")
    if not (labels.desirable and labels.undesirable):
        which = "desirable" if labels.desirable else "undesirable"
        if which == "undesirable":
            return Advice(
                None, "all answers are undesirable: there is nothing to move towards", findings=tuple(findings)
            )
        return Advice(
            "sft",
            "all answers are desirable, so there is nothing to prefer them to",
            ("data.kind=prompt_completion",),
            findings=tuple(findings),
            changes=("answers found undesirable: kto", _verifier_changes(means)),
        )
    share = labels.prompts_with_both / seen.prompts
    return Advice(
        "kto",
        "answers with a label, not compared with each other",
        _weights(labels.desirable / labels.undesirable),
        findings=tuple(findings),
        runner_up=("dpo", f"{share:.0%} of the prompts have a good and a bad answer; paired, they say more")
        if share >= 0.5
        else ("sft", "on the desirable ones alone, if the labels are doubtful"),
        changes=("good and bad answers to the same prompts: pair them, and dpo", _verifier_changes(means)),
    )


def _weights(ratio: float) -> tuple[str, ...]:
    """The one weight that brings desirable over undesirable into KTO's range; none where it is there."""
    low, high = BALANCED
    if ratio < low:
        return (f"objective.desirable_weight={math.ceil(100 * low / ratio) / 100:g}",)
    return (f"objective.undesirable_weight={math.ceil(100 * ratio / high) / 100:g}",) if ratio > high else ()


def _texts(seen: Quality, means: Means, dataset: Dataset) -> Advice:
    findings = tuple(_of_texts(seen))
    fine_tune = Advice(
        "sft",
        "answers to learn from, and nothing that compares them",
        findings=findings,
        runner_up=("raft", "once there is a reward: fine-tune on the best of the model's own answers"),
        changes=("two answers to a prompt of which one is better: dpo", _verifier_changes(means)),
    )
    if not means.verifier or seen.kind == "language_modeling":
        return fine_tune
    if means.base:
        why = "the model has no chat template, so it must learn to answer before a verifier can reward it"
        return replace(fine_tune, why=why, runner_up=("grpo", f"after it, with rewards={means.verifier}"))
    return Advice(
        "grpo",
        f"a verifier ({means.verifier}) can check any answer, so the model learns from its own, not from copying these",
        (f"rewards={means.verifier}",),
        findings=findings,
        runner_up=("sft", "first, if the model solves almost none: `strop run best-of-n` tells its pass@k"),
        changes=("fewer than 2 % solved in 16 tries: sft first", "nearly all solved: harder prompts"),
    )


def _prompts(seen: Quality, means: Means, dataset: Dataset) -> Advice:
    findings = tuple(_of_texts(seen))
    if means.verifier:
        return Advice(
            "grpo",
            f"prompts, and a verifier ({means.verifier}) that can check any answer",
            (f"rewards={means.verifier}",),
            findings=findings,
            runner_up=(
                "rejection-sampling",
                "fewer settings, and it cannot game the reward for long; reaches less far",
            ),
            changes=("fewer than 2 % solved in 16 tries (`strop run best-of-n`): sft on worked answers first",),
        )
    if means.judge:
        return Advice(
            "online-dpo",
            "prompts, and a judge: it is surer of which of two answers is better than of a score",
            ("rewards=judge.py:score",),
            findings=(
                *findings,
                f"judge.py:score is yours to write: a function of (completion, row) that asks {means.judge}",
            ),
            runner_up=("raft", "the judge scores each answer once; cheaper to ask, and steadier"),
            changes=("a verifier for right and wrong: grpo", "pairs that people ranked: dpo"),
        )
    return Advice(
        None,
        "prompts alone: nothing here can tell a good answer from a bad one",
        findings=findings,
        changes=(
            "a verifier (--verifier number, or file.py:function): grpo",
            "a judge (--judge URL): online-dpo",
            "written answers: sft; pairs: dpo",
        ),
    )


def _steps(seen: Quality, means: Means, dataset: Dataset) -> Advice:
    assert seen.steps is not None
    total = seen.steps.right + seen.steps.wrong
    findings = [f"{seen.steps.solutions:,} solutions, {seen.steps.wrong / max(total, 1):.0%} of {total:,} steps wrong"]
    if seen.steps.unlabelled:
        findings.append(f"{seen.steps.unlabelled:,} steps without a label are read, not trained")
    return Advice(
        "process",
        "steps with labels: a process reward model judges each",
        findings=tuple(findings),
        runner_up=("grpo", f"if {means.verifier} can check the outcome, it needs no step labels")
        if means.verifier
        else ("reward", "if only whole solutions are compared"),
        changes=("a verifier of outcomes: grpo; majority votes are hard to beat, so measure them first",),
    )


def _groups(seen: Quality, means: Means, dataset: Dataset) -> Advice:
    most = max(len(g.completions) for g in dataset.groups)
    findings = tuple(_of_texts(seen))
    if most == 0:
        return _prompts(seen, means, dataset)
    if most == 1:
        return Advice("sft", "one answer a prompt, as a select stage leaves them", findings=findings)
    if not seen.scored and most == 2:
        return Advice(
            "dpo", "two answers a prompt, the better first", findings=findings, runner_up=("kto", "if unsure")
        )
    if not seen.scored:
        return Advice(
            "score",
            "several answers a prompt that nobody scored yet",
            (f"rewards={_reward(means)}",) if means.verifier else ("rewards=my_rewards.py:good",),
            findings=findings,
            changes=("scores: select, then sft or dpo",),
        )
    return Advice(
        "select",
        "scored answers: the best and the worst of each prompt are pairs of the model's own, for dpo",
        ("keep=[finished,dedup_answers,pair]",),
        findings=findings,
        runner_up=("sft", "on the best of each (`keep=[finished,best]`): steadier, and it cannot unlearn to write"),
        changes=("answers of another model than the one to train: sft on the best",),
    )


def _compared(seen: Quality, means: Means, dataset: Dataset) -> Advice:
    return Advice(
        "label-people",
        "two answers a prompt in no order: what people said makes pairs with soft labels, for dpo and reward",
        findings=tuple(_of_texts(seen)),
        runner_up=("label-judge", "if few rows say who wins; where they do, it tells how far judge and people agree"),
        changes=("columns chosen and rejected would go straight to dpo",),
    )


_BY_KIND: Mapping[str, Callable[[Quality, Means, Dataset], Advice]] = {
    "preference": _pairs,
    "ranking": _pairs,
    "comparison": _compared,
    "unpaired_preference": _unpaired,
    "prompt_completion": _texts,
    "language_modeling": _texts,
    "prompt_only": _prompts,
    "stepwise": _steps,
    "stepwise_strict": _steps,
    "groups": _groups,
}


# What was seen.


def _of_comparisons(found: Comparisons) -> Iterator[str]:
    if found.identical or found.tied:
        yield f"{found.identical:,} pairs with identical sides and {found.tied:,} ties were left out"
    if found.twice:
        flips = f", about {found.flip_rate:.0%} flipped" if found.twice >= JUDGED_TWICE else ", too few to tell"
        yield f"{found.contradicting:,} of {found.twice:,} repeated judgements contradict{flips}"
    else:
        yield "no two answers were judged twice, so the share of flipped labels is not known"
    if (interval := _longer(found)) is not None:
        share = found.longer / found.unlike
        yield f"the better side is the longer in {share:.0%} [{interval[0]:.0%}, {interval[1]:.0%}] of pairs"


def _longer(found: Comparisons) -> tuple[float, float] | None:
    """The interval of how often the better side is the longer."""
    if not found.unlike:
        return None
    share = wilson(found.longer, found.unlike)
    assert share.low is not None and share.high is not None
    return share.low, share.high


def _of_texts(seen: Quality) -> Iterator[str]:
    if seen.prompts < seen.rows:
        yield f"{seen.prompts:,} different prompts in {seen.rows:,} rows"
    if seen.repeated:
        yield f"{seen.repeated:,} answers stand there more than once"
    if seen.references:
        numbers = f", {seen.numeric:.0%} of them numbers" if seen.numeric else ""
        yield f"reference answers in {seen.references[0]}{numbers}"


def _with_verifier(seen: Quality, means: Means) -> Means:
    """Numbers to compare with are a verifier, if none was named."""
    if means.verifier or seen.numeric < NUMERIC or seen.kind not in ("prompt_only", "prompt_completion", "groups"):
        return means
    column = seen.references[0]
    return replace(means, verifier="number" if column == "answer" else f"[{{name: number, column: {column}}}]")


def _reward(means: Means) -> str:
    return means.verifier or "judge.py:score"


def _verifier_changes(means: Means) -> str:
    return "a verifier of right and wrong (--verifier): grpo on the prompts" if not means.verifier else ""
