"""The answers that the gate judges: those of the run's own evaluations, and where there are none, fresh ones.

An evaluation is told by what it asks: its data by content, its rewards, sampling and number of answers. Two
evaluate stages that ask the same of two models are compared prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from strop.evaluate.matching import matched
from strop.evaluate.statistics import Value
from strop.recipes import artifacts
from strop.recipes.kinds.ship import set_name
from strop.recipes.settings import EvaluateStage, ShipStage
from strop.recipes.shipping.left import Entry, Left
from strop.recipes.shipping.rules import Scores
from strop.rewards import label_of
from strop.train.metrics import read_jsonl
from strop.types import Completion, Group, group_from_json

HELD_OUT = "held-out"
"""What the set is called that `data` names."""
ASKING = ("data.", "rewards.")
"""How the inputs of an evaluation begin that say what is asked, and not of whom."""
PREFERRED = "preferred"
"""Under this name an answer's facts say how likely it is better than the other model's."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An evaluation that a run has made.

    Attributes: asks: what is asked, as a hash. model: the hash of the model that answered. name: as it is called.
    """

    left: Left
    stage: EvaluateStage
    asks: str
    model: str
    name: str
    samples: Path


@dataclass(frozen=True, slots=True)
class Question:
    """What the gate asks of both models.

    Attributes:
        of: the set's name. stage: the evaluation that asks it.
        ours, theirs: evaluations of the run that have the answers; null where they must be sampled.
        margin, floor: the limits; null where there is none.
        metrics: the rewards to judge by; none takes those that have a weight.
    """

    of: str
    stage: EvaluateStage
    margin: float | None
    floor: float | None
    metrics: tuple[str, ...] = ()
    ours: Seen | None = None
    theirs: Seen | None = None


def seen_in(left: Left) -> list[Seen]:
    """The run's finished evaluations, in order."""
    stages = {stage.name: stage for stage in left.recipe.stages}
    found = []
    for entry in left.done:
        stage = stages[entry["name"]]
        samples = entry.get("artifacts", {}).get("samples")
        if not isinstance(stage, EvaluateStage) or stage.data is None:
            continue
        if samples and (left.run_dir / samples).is_file():
            model = str(entry.get("input_hashes", {}).get("model", ""))
            found.append(Seen(left, stage, asks_of(stage, entry), model, stage.name, left.run_dir / samples))
    return found


def asks_of(stage: EvaluateStage, entry: Entry) -> str:
    """What an evaluation asks, whoever is asked, as a hash."""
    inputs = {k: v for k, v in entry.get("input_hashes", {}).items() if k.startswith(ASKING)}
    return artifacts.hash_stage(plainly(stage, ""), seed=0, device="", precision="", inputs=inputs)


def plainly(stage: EvaluateStage, name: str, model: str | None = None) -> EvaluateStage:
    """What an evaluation asks and how it scores, without what it compares with."""
    return EvaluateStage(
        name=name,
        model=model,
        data=stage.data,
        rewards=stage.rewards,
        num_samples=stage.num_samples,
        sampling=stage.sampling,
    )


def questions_of(left: Left, settings: ShipStage, model: str, against: str | None) -> list[Question]:
    """What the gate asks: `data` where it is given, else what the run's evaluations asked; then the further sets.

    Args: model: the shipped model's hash. against: that of the model to compare with, if one is named.
    Raises: ValueError if a set has the name of an evaluation.
    """
    seen = seen_in(left)
    if settings.data is not None:
        asked = EvaluateStage(
            data=settings.data, rewards=settings.rewards, num_samples=settings.num_samples, sampling=settings.sampling
        )
        own = [Question(HELD_OUT, asked, settings.margin, None, settings.metrics)]
    else:
        own = list(_of_run(seen, settings, model, against))
    sets = list(_of_sets(settings))
    if taken := {one.of for one in own} & {one.of for one in sets}:
        name = min(taken)
        raise ValueError(f"{name!r} is what an evaluation of the gate is called; give the set another name")
    return [*own, *sets]


def _of_run(seen: Sequence[Seen], settings: ShipStage, model: str, against: str | None) -> Iterator[Question]:
    """One question for each thing that was asked of the model, or if nothing was, for the last thing asked of any."""
    seen = [one for one in seen if one.stage.rewards or not one.stage.samples]
    mine = list(dict.fromkeys(one.asks for one in seen if one.model == model))
    mine = mine or [one.asks for one in seen if one.stage.rewards][-1:]
    for asks in mine:
        same = [one for one in seen if one.asks == asks]
        ours = next((one for one in reversed(same) if one.model == model), None)
        others = [one for one in same if one.model != model and against in (None, one.model)]
        stage = (ours or same[-1]).stage
        name = stage.name if len(mine) > 1 else HELD_OUT
        yield Question(name, stage, settings.margin, None, settings.metrics, ours, others[0] if others else None)


def _of_sets(settings: ShipStage) -> Iterator[Question]:
    for key in ("safety", "capability"):
        for index, one in enumerate(getattr(settings, key)):
            margin = settings.margin if one.margin is None and one.floor is None else one.margin
            asked = EvaluateStage(
                data=one.data, rewards=one.rewards, num_samples=one.num_samples, sampling=one.sampling
            )
            yield Question(set_name(key, index, one), asked, margin, one.floor)


def read_answers(seen: Seen) -> list[Group]:
    """An evaluation's scored answers.

    Raises: ValueError if they are not those that the stage left, or cannot be read.
    """
    entry = seen.left.entry(seen.name)
    known = entry.get("artifact_hashes", {}).get("samples") if entry else None
    if known is not None and artifacts.hash_artifact(seen.samples) != known:
        raise ValueError(
            f"{seen.samples}: was changed since {seen.name} left it; `strop run {seen.left.run_dir}` mends it"
        )
    return groups_in(seen.samples)


def groups_in(path: Path) -> list[Group]:
    """The groups of a file of samples.

    Raises: ValueError naming the file if a line is no group.
    """
    try:
        return [group_from_json(row) for row in read_jsonl(path)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def scores_of(question: Question, ours: Sequence[Group], theirs: Sequence[Group] | None) -> list[Scores]:
    """The values to judge, one a reward; theirs of the same prompts, none of one that they were not asked.

    Raises: ValueError if the two have no prompt in common, or a reward that is named is not there.
    """
    other: list[Group | None] | None = None
    if theirs is not None:
        places = dict(matched(ours, theirs, answers=not question.stage.rewards))
        if not places:
            raise ValueError(
                f"{question.of}: the two models were asked no prompt in common; give data=FILE to ask both"
            )
        other = [theirs[places[i]] if i in places else None for i in range(len(ours))]
    return [
        Scores(
            question.of,
            name,
            bool(less),
            _all_values(ours, name),
            None if other is None else _all_values(other, name),
            judged=less is not None,
        )
        for name, less in judged(question.stage, ours, question.metrics).items()
    ]


def judged(stage: EvaluateStage, groups: Sequence[Group], metrics: Sequence[str]) -> Mapping[str, bool | None]:
    """Every reward, and whether less is better; null of one that decides nothing.

    Raises: ValueError if one that is named is not there.
    """
    if not stage.rewards:
        return {"likelier": False} if all(len(g.completions) > 1 for g in groups) else {"loss": True}
    weights = {label_of(reward): reward.weight for reward in stage.rewards}
    if not metrics:
        return {name: weight < 0 if weight else None for name, weight in weights.items()}
    wanted = {text.removeprefix("-"): text.startswith("-") for text in metrics}
    if unknown := [name for name in wanted if name not in weights]:
        raise ValueError(f"metrics: no reward {unknown[0]} in {stage.name}; there are: {', '.join(weights)}")
    return {name: wanted.get(name) for name in weights}


def preferences_of(left: Left, settings: ShipStage, model: str, against: str | None) -> list[Scores]:
    """How likely the model's answers are better than another's, by judges and rules that the run's evaluations asked.

    Args: against: the other model's hash; null takes whatever it was compared with. With `data` the run's do not count.
    """
    seen = seen_in(left)
    last = {one.asks: one for one in seen if one.model == model and one.stage.labeller is not None}
    found = []
    for one in last.values() if settings.data is None else ():
        if against is None or against in _compared_with(one, seen):
            assert one.stage.labeller is not None
            values = [[_preferred(c) for c in group.completions] for group in read_answers(one)]
            found.append(Scores(one.name, f"{PREFERRED} by {one.stage.labeller.name}", False, values))
    return found


def _compared_with(one: Seen, seen: Sequence[Seen]) -> set[str]:
    """Hashes of the models that an evaluation held its own against."""
    entry = one.left.entry(one.name) or {}
    names = [path.removeprefix("@") for path in artifacts.paths_of(one.stage.against)] if one.stage.against else []
    return {str(entry.get("input_hashes", {}).get("baseline")), *(s.model for s in seen if s.name in names)}


def _preferred(completion: Completion) -> Value:
    found = completion.facts.get(PREFERRED, {}).get("probability")
    return float(found) if isinstance(found, int | float) else None


def _all_values(groups: Sequence[Group | None], name: str) -> list[list[Value]]:
    return [[] if group is None else _values(group, name) for group in groups]


def _values(group: Group, name: str) -> list[Value]:
    """A reward's values of a prompt's answers; of pairs, whether the better answer is the likelier."""
    if name != "likelier":
        return [completion.rewards.get(name) for completion in group.completions]
    likely = [completion.rewards.get("logps") for completion in group.completions]
    wins = [None if a is None or b is None else float(a > b) for a, b in combinations(likely, 2)]
    return list(wins)
