"""`strop judge`: a judge on rows whose better answer is known, and its quality in figures.

Rows are comparisons with people's verdict (LLMBar's `output_1`, `output_2`, `label`; `response_a`,
`response_b`, `winner`), preferences (`chosen`, `rejected`) or rankings. Which answer is called the first is
drawn by the seed, since files of preferences always list the better one first.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from strop.data.formats import Dataset, load_dataset
from strop.evaluate.judging import Trial, judge_measures
from strop.evaluate.statistics import Measure
from strop.judges import Compare, Comparison, Pair, Usage, usage_of
from strop.recipes.config import resolve
from strop.recipes.settings import LabelStage
from strop.recipes.sources import Problem, RecipeError
from strop.rollout.labellers import Judge
from strop.rollout.people import people_of
from strop.rollout.rules import length_of
from strop.types import Group

KINDS = ("comparison", "preference", "ranking", "groups")
OURS = ("data.", "human=")
"""Settings that are about the rows; all others are the judge's."""
OWN = {"url": "http", "path": "model", "function": "function"}
"""The setting that only one backend has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What became of a judge's trial.

    Attributes: figures: by name. comparisons: in the order of the rows. dropped: unusable rows, by reason.
    """

    figures: Mapping[str, Measure]
    comparisons: tuple[Comparison, ...]
    usage: Usage
    shape: str
    dropped: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
            "usage": asdict(self.usage),
            "shape": self.shape,
            "rows": len(self.comparisons),
            "dropped": dict(self.dropped),
            "comparisons": [asdict(one) for one in self.comparisons],
        }


def judge_file(file: str, pairs: Sequence[str]) -> Quality:
    """A judge's quality on a file's rows.

    Args: pairs: settings `key=value`: of `judges.Compare` (backend.url=..., think=true), `data.*`, and `human=COLUMN`.
    Raises: ValueError (RecipeError) for settings or rows that cannot be used, and for a judge that cannot be asked.
    """
    stage = stage_of(file, pairs)
    assert isinstance(stage.labeller, Judge) and stage.data is not None
    compare = stage.labeller.compare
    found = load_dataset(
        [file],
        kind=stage.data.kind,
        columns=stage.data.columns,
        split=stage.data.split,
        limit=stage.data.limit,
        system=stage.data.system,
    )
    if found.kind not in KINDS:
        raise ValueError(f"{file}: rows of kind {found.kind} hold no two answers; use comparisons or preferences")
    return _tried(compare, found, stage.human)


def stage_of(file: str, pairs: Sequence[str]) -> LabelStage:
    """The settings as those of a stage that labels by a judge.

    Raises: RecipeError for settings that are not known.
    """
    for pair in pairs:
        if "=" not in pair:
            raise RecipeError([Problem("", pair, "a setting is key=value, as backend.url=http://localhost:8000/v1")])
    if not any(pair.startswith("backend") for pair in pairs):
        text = (
            "is missing; name who judges: backend.url=... backend.model=..., backend.path=MODEL or backend.function=F"
        )
        raise RecipeError([Problem("", "backend", text)])
    mine = [pair if pair.startswith(OURS) else f"labeller.compare.{pair}" for pair in (*_backend(pairs), *pairs)]
    base = {"kind": "label", "name": "judge", "data": file, "labeller": {"name": "judge"}}
    try:
        stage = resolve(base, mine).stages[0]
    except RecipeError as error:
        raise RecipeError([_said(problem) for problem in error.problems]) from None
    assert isinstance(stage, LabelStage)
    return stage


def _backend(pairs: Sequence[str]) -> list[str]:
    """Which backend is meant, by the setting that only it has, where it is not named."""
    keys = {pair.partition("=")[0] for pair in pairs}
    if keys & {"backend", "backend.name"}:
        return []
    return [f"backend.name={name}" for key, name in OWN.items() if f"backend.{key}" in keys][:1]


def _said(problem: Problem) -> Problem:
    """The problem as the command line's, without the recipe around it."""
    path, where = (text.replace("labeller.compare.", "") for text in (problem.path, problem.where))
    return Problem(where, path.removeprefix("labeller.compare"), problem.text)


def _tried(compare: Compare, found: Dataset, human: str | None) -> Quality:
    rows = [_row(number, group, found.kind, human, compare.seed) for number, group in enumerate(found.groups)]
    before = usage_of(compare.backend).total
    said = compare([pair for pair, _, _ in rows])
    trials = [
        Trial(prompt=number, comparison=one, people=people, lengths=lengths)
        for number, (one, (_, people, lengths)) in enumerate(zip(said, rows, strict=True))
    ]
    if said and all(one.probability is None for one in said):
        raise ValueError(f"the judge answered none of {len(said)} comparisons; the first: {said[0].reason}")
    return Quality(
        figures=judge_measures(trials, seed=compare.seed),
        comparisons=tuple(said),
        usage=usage_of(compare.backend).total - before,
        shape=found.shape,
        dropped=dict(found.dropped),
    )


def _row(
    number: int, group: Group, kind: str, human: str | None, seed: int
) -> tuple[Pair, tuple[float | None, ...], tuple[int, int]]:
    """A row's pair in a drawn order, what people said of it, and both lengths; of a list, its two ends."""
    last = len(group.completions) - 1
    if last < 1:
        raise ValueError(f"{group.origin}: a row with one answer, where a judge compares two")
    swapped = random.Random(f"{seed}/{number}").random() < 0.5
    a, b = (last, 0) if swapped else (0, last)
    first, second = group.completions[a], group.completions[b]
    people = people_of(group, kind, human, a, b)
    return (
        Pair(prompt=group.prompt, first=first.text, second=second.text),
        people,
        (length_of(first), length_of(second)),
    )


# What is printed.


def as_text(quality: Quality) -> str:
    """The figures as a table, and what asking cost."""
    lines = [f"{'':28}{'value':>8}  {'95 % interval':<18}{'n':>6}"]
    for name, figure in quality.figures.items():
        low, high = figure.low, figure.high
        interval = "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
        lines.append(f"{name:28}{figure.value:8.3f}  {interval:<18}{figure.n:>6}")
    used = quality.usage
    cost = f", {used.spend:.4g} spent" if used.spend else ""
    lines += [
        "",
        f"{len(quality.comparisons)} rows ({quality.shape}); {used.calls} calls, {used.cached} from cache{cost}",
    ]
    lines += [f"{count} rows dropped: {reason}" for reason, count in quality.dropped.items()]
    if "accuracy" not in quality.figures:
        lines.append("no row says which answer is better, so agreement is not measured; name the column: human=COLUMN")
    return "\n".join(lines)
