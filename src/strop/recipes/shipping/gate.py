"""The gate: what was found of each set of prompts, the alarms, and whether the model may go."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strop.recipes import artifacts
from strop.recipes.config import dump
from strop.recipes.context import Interrupted
from strop.recipes.display import Display
from strop.recipes.preflight import check_inputs, require_model
from strop.recipes.run import perform
from strop.recipes.rundir import is_run
from strop.recipes.settings import Data, EvaluateStage, Recipe, ShipStage
from strop.recipes.shipping.alarms import Alarm, alarms_of
from strop.recipes.shipping.evidence import (
    HELD_OUT,
    Question,
    groups_in,
    plainly,
    preferences_of,
    questions_of,
    read_answers,
    scores_of,
    seen_in,
)
from strop.recipes.shipping.left import Left, Subject, read_left, subject_of
from strop.recipes.shipping.rules import Outcome, above_floor, against_margin, nothing_to_judge, watched
from strop.recipes.words import clean
from strop.types import Group

NOTHING = (
    "the run evaluated nothing, so nothing says how good the model is; give data=test.jsonl rewards=number "
    "(in a recipe evaluation.data and evaluation.rewards)"
)
UNCHANGED = (
    "these are the very weights that the run was given: nothing that it trained is in them, so there is nothing to "
    "compare; name a stage that trained, as --stage NAME, or another model to compare with, as against=MODEL"
)
HALF = 0.5
"""The win rate of a model that is as good as the other."""
ALARM_LENGTH = 300
"""Characters of an alarm that are shown."""


@dataclass(frozen=True, slots=True)
class Rival:
    """The model that a model is compared with.

    Attributes: run: the other run that it is from, if it is from one.
    """

    name: str
    path: str
    hash: str
    run: Left | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with both models' answers, for whoever shows them. sampled: what was drawn for the gate."""

    question: Question
    ours: Sequence[Group]
    rival: str | None
    sampled: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate found.

    Attributes:
        watched: rewards that decide nothing.
        lenient: models pass whose loss the prompts are too few to exclude.
    """

    subject: str
    outcomes: tuple[Outcome, ...]
    alarms: tuple[Alarm, ...]
    watched: tuple[Outcome, ...] = ()
    asked: tuple[Asked, ...] = ()
    lenient: bool = False

    @property
    def passed(self) -> bool:
        """Nothing speaks against the model."""
        return not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why it did not pass."""
        refused = ("fail",) if self.lenient else ("fail", "unclear")
        found = [f"{o.of}: {o.why}" for o in self.outcomes if o.verdict in refused]
        shown = [
            f"open alarm of {a.stage} at step {a.step}: {clean(a.text, ALARM_LENGTH)}" for a in self.alarms if a.is_open
        ]
        return [*found, *shown]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "passed": self.passed,
            "stage": self.subject,
            "against": sorted({a.rival for a in self.asked if a.rival}),
            "unclear": "pass" if self.lenient else "hold",
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
            "watched": [outcome.to_json() for outcome in self.watched],
            "alarms": [{**alarm.to_json(), "open": alarm.is_open} for alarm in self.alarms],
            "reasons": self.reasons,
        }

    def lines(self) -> list[str]:
        """The same in words, a line a finding."""
        rivals = ", ".join(sorted({a.rival for a in self.asked if a.rival}))
        head = f"gate of {self.subject}{f' against {rivals}' if rivals else ''}: "
        lines = [head + ("passed" if self.passed else "NOT passed")]
        lines += [f"  {o.verdict:<8} {o.of}: {o.why}" for o in self.outcomes]
        for alarm in self.alarms:
            word = "alarm" if alarm.is_open else "closed"
            kept = "" if alarm.is_open else f" (the model kept is that of step {alarm.kept})"
            lines.append(f"  {word:<8} {alarm.stage} at step {alarm.step}: {clean(alarm.text, ALARM_LENGTH)}{kept}")
        if not any(alarm.is_open for alarm in self.alarms):
            lines.append("  pass     no open alarm of the monitor")
        return lines


def rival_of(text: str, left: Left) -> Rival:
    """What `against` names: a stage of the run, another run (its last model), a model's folder or hub name.

    Raises: ValueError if there is no such model.
    """
    name = text.removeprefix("@")
    if left.entry(name) is not None:
        found = subject_of(left, name)
        return Rival(name, str(found.model), found.hash)
    if is_run(Path(text)):
        other = read_left(Path(text))
        found = subject_of(other, None)
        return Rival(Path(text).resolve().name, str(found.model), found.hash, other)
    path = left.path_of(text)
    require_model(path)
    if "/" in path and not Path(path).expanduser().is_dir() and Path(path).expanduser().parent.is_dir():
        raise ValueError(f"against={text}: no such run or model's folder; `strop ls` lists the runs")
    return Rival(text, path, artifacts.hash_model(path, left.recipe.seed))


def judge(
    subject: Subject,
    settings: ShipStage,
    folder: Path,
    *,
    rival: Rival | None,
    show: Callable[[], Display],
) -> Gate:
    """Put the model through the gate.

    Args:
        settings: with no `@name` in it. folder: for what must be sampled for it; a later call takes up what is there.
        rival: what `against` names; null is what the run's first evaluation asked, or the model training began with.
        show: makes the display of what must be sampled.
    Raises: ValueError if an input is missing, or answers were changed; Interrupted when asked to stop.
    """
    left = subject.left
    unchanged = rival is None and left.came_in(subject.hash)
    questions = questions_of(left, settings, subject.hash, rival.hash if rival else None)
    questions = [_of_other_run(question, rival) for question in questions]
    if unchanged:  # what it can do is told, and not as a change
        questions = [replace(question, theirs=None, margin=None) for question in questions]
    missing: dict[str, EvaluateStage] = {}
    for question in questions:
        missing |= _to_ask(question, subject, rival)
    drawn: Mapping[str, list[Group]] = {}
    try:
        drawn = _ask(left, missing, folder, show) if missing else {}
    except ValueError as error:
        if rival is None or Path(rival.path).expanduser().is_dir():
            raise
        stages = ", ".join(entry["name"] for entry in left.done if "model" in entry.get("artifacts", {}))
        told = f"against={rival.name} is no stage of the run ({stages}), run or folder, so it was taken for a hub name"
        raise ValueError(f"{error} {told}") from error
    asked = [_answered(question, subject, rival, drawn) for question in questions]
    found = [outcome for one, theirs in asked for outcome in _outcomes(one, theirs, left.recipe.seed)]
    compared = preferences_of(left, settings, subject.hash, rival.hash if rival else None)
    found += [above_floor(scores, HALF - settings.margin, left.recipe.seed) for scores in compared]
    outcomes = [outcome for outcome in found if outcome.rule != "watched"]
    if unchanged or not outcomes:
        outcomes.append(nothing_to_judge(HELD_OUT, UNCHANGED if unchanged else NOTHING))
    watching = tuple(outcome for outcome in found if outcome.rule == "watched")
    alarms = alarms_of(left, subject.stage)
    lenient = settings.unclear == "pass"
    return Gate(subject.stage, tuple(outcomes), tuple(alarms), watching, tuple(one for one, _ in asked), lenient)


def _of_other_run(question: Question, rival: Rival | None) -> Question:
    """The question with the other run's own evaluation, where that asked the same."""
    if rival is None or rival.run is None or question.theirs is not None or question.ours is None:
        return question
    same = [one for one in seen_in(rival.run) if one.asks == question.ours.asks and one.model == rival.hash]
    return replace(question, theirs=same[-1]) if same else question


def _to_ask(question: Question, subject: Subject, rival: Rival | None) -> dict[str, EvaluateStage]:
    """The evaluations that are missing, by name: which model, asked what."""
    found = {}
    if question.ours is None:
        found[_slug(question.of, "ours")] = replace(question.stage, model=str(subject.model))
    if question.theirs is None and question.margin is not None:
        path = rival.path if rival else _start_of(subject)
        found[_slug(question.of, "theirs")] = replace(question.stage, model=path)
    return found


def _start_of(subject: Subject) -> str:
    """Where the model is that training began with.

    Raises: ValueError if nothing says it, or it was a folder and is none from here.
    """
    left = subject.left
    start = left.start_of(subject.stage)
    if left.was_folder(start) and not Path(start).expanduser().is_dir():
        raise ValueError(
            f"{start}: training began with this folder, and there is none from here; ship from where the run was "
            "started, or name another model, as against=MODEL"
        )
    return left.path_of(start)


def _slug(of: str, side: str) -> str:
    """A stage's name that no other set has."""
    text = re.sub(r"[^A-Za-z0-9_-]+", "-", of).strip("-")[:40]
    if text != of:  # others may read the same now
        text = f"{text or 'set'}-{hashlib.sha256(of.encode()).hexdigest()[:6]}"
    return f"{text}-{side}"


def _ask(
    left: Left, wanted: Mapping[str, EvaluateStage], folder: Path, show: Callable[[], Display]
) -> dict[str, list[Group]]:
    """Sample and score what is missing, as a small run of its own; its answers by name."""
    shared = left.recipe
    recipe = Recipe(
        name="checks",
        seed=shared.seed,
        template=shared.template,
        threads=shared.threads,
        device=shared.device,
        precision=shared.precision,
        stages=tuple(_standing_alone(left, name, stage) for name, stage in wanted.items()),
    )
    check_inputs(recipe)
    (folder / "stages").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump(recipe), "utf-8")
    result = perform(recipe, folder, display=show(), command=f"strop ship {left.run_dir}", changed=())
    if result.error is not None:
        raise result.error
    if result.state != "finished":
        raise Interrupted
    return {name: groups_in(result.artifacts[name]["samples"]) for name in wanted}


def _standing_alone(left: Left, name: str, stage: EvaluateStage) -> EvaluateStage:
    """The evaluation under another name, compared with nothing, with every `@name` as a path."""
    assert stage.data is not None
    paths = tuple(left.path_of(path, "samples") for path in artifacts.paths_of(stage.data))
    data: Data = replace(stage.data, path=paths if len(paths) > 1 else paths[0])
    resolved = artifacts.resolved(plainly(replace(stage, data=data), name, stage.model), left.path_of)
    assert isinstance(resolved, EvaluateStage)
    return resolved


def _answered(
    question: Question, subject: Subject, rival: Rival | None, drawn: Mapping[str, list[Group]]
) -> tuple[Asked, Sequence[Group] | None]:
    """The question with our answers, and theirs."""
    mine, other = _slug(question.of, "ours"), _slug(question.of, "theirs")
    ours = read_answers(question.ours) if question.ours else drawn[mine]
    theirs: Sequence[Group] | None = drawn.get(other)
    name = rival.name if rival else None
    if question.theirs is not None:
        theirs = read_answers(question.theirs)
        name = name or str(question.theirs.stage.model or subject.left.recipe.model).removeprefix("@")
    elif theirs is not None:
        name = name or subject.left.start_of(subject.stage)
    asked = Asked(question, ours, name if theirs is not None else None, tuple(n for n in (mine, other) if n in drawn))
    return asked, theirs


def _outcomes(asked: Asked, theirs: Sequence[Group] | None, seed: int) -> list[Outcome]:
    question = asked.question
    found = []
    for scores in scores_of(question, asked.ours, theirs):
        if not scores.judged:
            found.append(watched(scores, seed))
            continue
        if question.margin is not None:
            found.append(against_margin(scores, question.margin, seed))
        if question.floor is not None:
            found.append(above_floor(scores, question.floor, seed))
    return found
