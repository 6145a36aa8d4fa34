"""Whether an evaluation's prompts stand in what the recipe trained its model on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from strop.data.formats import load_dataset
from strop.evaluate.overlap import WORDS, Judged
from strop.recipes.artifacts import named, paths_of, sources_of
from strop.recipes.context import Context
from strop.recipes.inputs import rows_of
from strop.recipes.settings import Data, EvaluateStage, Stage
from strop.rewards.gym import sized
from strop.types import Group

TRAINED = ("data", "old")
"""Settings of data that a stage trains on."""
MOST_ROWS = 100_000
"""Training rows of each stage that are looked through, the first ones."""


def overlaps(stage: EvaluateStage, groups: Sequence[Group], context: Context) -> dict[str, Any]:
    """The account's `overlap`: for each file that the model was trained on, how many of the prompts stand in it.

    Returns: {"overlap": [{stage, path, words, prompts, rows, same, shared, examples}, ...]}, one entry a source; {}
        where no source is known.
    """
    sources = list(_sources(stage, context))
    judged = Judged(groups) if sources else None
    found = []
    for name, data in sources:
        assert judged is not None
        path = ", ".join(paths_of(data))
        try:
            rows = _read(data, context)
        except ValueError as error:
            context.event("note", f"the overlap with {path} is not known: {error}")
            continue
        seen = judged.overlap(islice(rows, MOST_ROWS))
        found.append({"stage": name, "path": path, "words": WORDS, **asdict(seen)})
        if seen.shared:
            first = seen.examples[0]
            what = path if data is stage.trained_on else f"what {name} was trained on ({path})"
            text = f"{seen.shared} of {rows_of(len(groups))} overlap with {what}"
            context.event("note", f"{text}; first {first.judged} with {first.trained}: {first.words!r}")
    return {"overlap": found} if found else {}


def _sources(stage: EvaluateStage, context: Context) -> Iterator[tuple[str, Data]]:
    """What the evaluated model was trained on, each with the stage that did it, nearest first."""
    earlier = {other.name: other for other in context.recipe.stages[: context.index]}
    waiting = [text for path, text in named(stage) if path == ("model",)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop(0).removeprefix("@")
        if name in seen or name not in earlier:
            continue
        seen.add(name)
        other = earlier[name]
        waiting += _came_from(other)
        if not isinstance(other, EvaluateStage):
            yield from ((name, data) for key, data in sources_of(other).items() if key in TRAINED)
    if stage.trained_on is not None:
        yield "trained_on", stage.trained_on


def _came_from(stage: Stage) -> list[str]:
    """The models that a stage's was made from, as it names them."""
    return [text for path, text in named(stage) if path[0] in ("model", "members", "among")]


def _read(data: Data, context: Context) -> Sequence[Group]:
    """Rows as the stage read them, without saying again what was dropped."""
    return load_dataset(
        [context.resolve_data(sized(path, data.limit)) for path in paths_of(data)],
        kind=data.kind,
        columns=data.columns,
        split=data.split,
        limit=data.limit,
    ).groups
