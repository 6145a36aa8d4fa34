"""The label stage: which of two answers is better, by rules, scores or a judge, as pairs with soft labels.

Every comparison is written to comparisons.jsonl, a line a prompt, as it comes; a stage that was
stopped goes on behind the last whole chunk. samples.jsonl, the pairs to train on, is made of that
file alone, so it is the same however often the stage was stopped.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from strop.evaluate.sampled import as_line
from strop.evaluate.statistics import Measure
from strop.judges import usage_of
from strop.recipes.constitution import load_constitution
from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import Dropped, Loaded, load_groups
from strop.recipes.settings import LabelStage
from strop.recipes.stages.chunks import FILE, bare, in_chunks
from strop.recipes.stages.labelled import CAPPED, KEY, SAME, label_measures, pairs_of
from strop.rewards import load_rewards, score
from strop.rewards.scale import read_figures
from strop.rollout.couples import Adjacent, BestWorst, Couple, Preference, couples_of
from strop.rollout.labellers import Judge, Labeller, Scores
from strop.rollout.people import people_of
from strop.rollout.principles import Principle
from strop.types import Group

COMPARISONS = "comparisons.jsonl"
FEW = 8
"""A judge that answers none of so many comparisons in a row has failed; its silence is not written down."""
MOST_REASONS = 12


def run(stage: LabelStage, context: Context) -> StageResult:
    """Run the stage to its end.

    Raises: ValueError if no pair is left, with the reasons, or if a judge answers nothing at all.
    """
    context.phase("loading")
    assert stage.data is not None and stage.labeller is not None
    if stage.rewards:
        load_rewards(stage.rewards)
    data = with_two_answers(load_groups(stage.data, context), context)
    labelling = Labelling(stage, labeller_of(stage), principles_of(stage.labeller), data.kind, context.seed)
    context.begin({"data": data.said, "labeller": stage.labeller.name, "pairs": stage.pairs.name})

    def work(chunk: Sequence[Group], first: int) -> tuple[list[Group], dict[str, float]]:
        made = labelling(chunk, first)
        _check_answered(stage, made, len(chunk) == len(data.groups))
        return made, _shares([record for group in made for record in group.row[KEY]])

    context.phase("labelling")
    began = time.perf_counter()
    done = in_chunks(data.groups, stage.save_every, work, context, COMPARISONS)
    pairs, refused = pairs_of(done, stage)
    seconds = time.perf_counter() - began
    _say(refused, stage, context)
    if not pairs:
        told = "; ".join(f"{count} x {reason}" for reason, count in refused.most_common(3))
        raise ValueError(f"{stage.name}: no pair is left of {len(done)} prompts ({told or 'nothing to compare'})")
    _write(pairs, context)
    context.samples(0, pairs[:3])
    figures = label_measures(done, pairs, context.recipe.seed)
    _say_agreement(figures, context)
    return StageResult(
        metrics=figures,
        artifacts={"samples": FILE},
        phases={"labelling": seconds},
        data=_account(data, pairs, refused),
    )


def with_two_answers(data: Loaded, context: Context) -> Loaded:
    """The rows that have at least two answers.

    Raises: ValueError if none has.
    """
    dropped = Dropped()
    left = []
    for group in data.groups:
        if len(group.completions) > 1:
            left.append(group)
        else:
            dropped.add("fewer than two answers", group.origin)
    if not left:
        path = data.summary["path"]
        raise ValueError(f"{path}: no row has two answers to compare; let a stage of kind sample come first")
    dropped.say(context)
    return replace(data.without(dropped), groups=tuple(left))


def labeller_of(stage: LabelStage) -> Labeller:
    """The stage's labeller, with a fitted temperature as the number it is on the scale of the scores.

    A reward model's score is (raw - mean) / std times its weight, and its temperature is one of raw scores.
    """
    labeller = stage.labeller
    assert labeller is not None
    if not isinstance(labeller, Scores) or labeller.temperature != "fitted":
        return labeller
    model = stage.fitted
    assert model is not None, "checked with the recipe"
    figures = read_figures(model.paths[0])
    if figures is None:
        raise ValueError(
            f"{stage.name}.labeller.temperature: {model.paths[0]} has no reward.json with a fitted temperature; run a "
            "stage of kind calibrate on it, or give a number"
        )
    unit = figures.std if model.normalize else 1.0
    return replace(labeller, temperature=figures.temperature * model.weight / unit)


def principles_of(labeller: Labeller) -> tuple[Principle, ...]:
    """What a judge judges by; none for the others."""
    if not isinstance(labeller, Judge) or labeller.constitution is None:
        return ()
    return load_constitution(labeller.constitution).principles


@dataclass(frozen=True, slots=True)
class Labelling:
    """What is made of groups: the same groups, scored where there are rewards, with a record of each comparison."""

    stage: LabelStage
    labeller: Labeller
    principles: tuple[Principle, ...]
    kind: str
    seed: int

    def __call__(self, groups: Sequence[Group], first: int) -> list[Group]:
        """Args: first: the place of the first group; what is drawn is a function of the seed and the place."""
        scored = score(groups, self.stage.rewards) if self.stage.rewards else groups
        couples = [self._couples(group, first + i) for i, group in enumerate(scored)]
        asked = [c for row in couples for c in row if c.answers[0].text != c.answers[1].text]
        said = iter(self.labeller(asked))
        out = []
        for given, group, row in zip(groups, scored, couples, strict=True):
            records = [
                self._record(c, given, next(said) if c.answers[0].text != c.answers[1].text else None) for c in row
            ]
            out.append(replace(group, row={**group.row, KEY: records}))
        return out

    def _couples(self, group: Group, place: int) -> list[Couple]:
        values: Sequence[float | None] = [None] * len(group.completions)
        if isinstance(self.stage.pairs, BestWorst | Adjacent):
            values = self.labeller.values(group)
        if isinstance(self.stage.pairs, BestWorst) and len(group.completions) == 2:
            values = [1.0, 0.0]  # there is nothing to choose
        number = self.labeller.num_principles if isinstance(self.labeller, Judge) else 0
        return couples_of(group, values, self.stage.pairs, self.principles, number, (self.seed, place))

    def _record(self, couple: Couple, given: Group, told: Preference | None) -> dict[str, Any]:
        """A comparison as JSON values; `told` None where the answers are the same and nobody was asked."""
        people = people_of(given, self.kind, self.stage.human, couple.first, couple.second)
        record = {"first": couple.first, "second": couple.second, **({"people": list(people)} if people else {})}
        if told is None:
            return {**record, "probability": None, "reason": SAME}
        return {
            **record,
            "probability": told.probability,
            "margin": told.margin,
            "tie": told.tie,
            "reason": told.reason,
            **told.facts,
        }


def _check_answered(stage: LabelStage, made: Sequence[Group], whole: bool) -> None:
    """Raises ValueError if a judge's cap is reached, or it answers none of many, before its silence is written down."""
    asked = [record for group in made for record in group.row[KEY] if record["reason"] != SAME]
    silent = [record["reason"] for record in asked if record["probability"] is None]
    capped = next((reason for reason in silent if CAPPED in reason), None)
    none = len(silent) == len(asked) and (len(asked) >= FEW or (whole and asked))
    if isinstance(stage.labeller, Judge) and (capped or none):
        raise ValueError(
            f"{stage.name}.labeller: the judge left {len(silent)} of {len(asked)} comparisons without an answer: "
            f"{capped or silent[0]}; mend that and start the run again, which goes on from here"
        )


def _write(pairs: Sequence[Group], context: Context) -> None:
    """The pairs' file, whole or not at all."""
    file = context.stage_dir / FILE
    beside = file.with_suffix(".part")
    with beside.open("w", encoding="utf-8") as out:
        out.writelines(as_line(bare(pair)) for pair in pairs)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)


def _shares(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What a chunk came to, for metrics.jsonl."""
    asked = [r for r in records if r["reason"] != SAME]
    known = [r for r in asked if r["probability"] is not None]
    out = {"label/comparisons": float(len(asked))}
    if asked:
        out["label/abstained"] = 1 - len(known) / len(asked)
    if known:
        out["label/ties"] = sum(r["tie"] for r in known) / len(known)
        out["label/margin"] = sum(r["margin"] for r in known) / len(known)
    return out


# Words.


def _say(refused: Counter[str], stage: LabelStage, context: Context) -> None:
    for reason, count in refused.most_common(MOST_REASONS):
        context.event("drop", f"{count} x {reason}")
    if len(refused) > MOST_REASONS:
        rest = sum(refused.values()) - sum(count for _, count in refused.most_common(MOST_REASONS))
        context.event("drop", f"{rest} x other reasons")
    if isinstance(stage.labeller, Judge):
        used = usage_of(stage.labeller.compare.backend).total
        context.event("note", f"the judge was called {used.calls} times; {used.cached} answers were known already")


def _say_agreement(figures: Mapping[str, Measure], context: Context) -> None:
    names = ("accuracy", "kappa", "alpha", "ece")
    known = {name: figures[f"agreement/{name}"] for name in names if f"agreement/{name}" in figures}
    if known:
        told = ", ".join(f"{name} {figure.value:.3g}{_interval(figure)}" for name, figure in known.items())
        context.event("note", f"people and the labeller, on {known['accuracy'].n} comparisons: {told}")


def _interval(figure: Measure) -> str:
    return "" if figure.low is None or figure.high is None else f" ({figure.low:.3g} to {figure.high:.3g})"


def _account(data: Loaded, pairs: Sequence[Group], refused: Counter[str]) -> dict[str, Any]:
    """The rows' account; what was refused are comparisons, as the reasons say."""
    most = dict(refused.most_common(MOST_REASONS))
    if rest := sum(refused.values()) - sum(most.values()):
        most["other reasons"] = rest
    return {**data.summary, "kept": len(pairs), "dropped": dict(Counter(data.summary["dropped"]) + Counter(most))}
