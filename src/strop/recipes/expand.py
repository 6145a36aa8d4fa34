"""A recipe as it is written to the stages that are run, one after the other.

In this order: optional stages without data are left out, repeated ones are written out by round, and an
evaluation is put behind every stage that leaves a model which writes text. What comes out says the same
without `optional`, `evaluation` and `repeat`; a run directory's config.yaml has it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import partial

from strop.recipes.artifacts import named, own_model, renamed
from strop.recipes.evaluations import compared, evaluated
from strop.recipes.leaving import forgetting, kept_of, unfed, unscored, without_data
from strop.recipes.repeats import unrolled
from strop.recipes.settings import Repeat, Stage, Written
from strop.recipes.steps import Block, Entry, Expanded, changed, entry_of, flat, source, with_stage
from strop.recipes.yaml12 import Path

OWN = "@model"
"""What a stage behind others calls the recipe's own model; no stage can have that name."""
BESIDE = ("average", "best", "evaluate", "ship")
"""Kinds that make nothing new: a recipe of which only these are left has nothing to do."""


def expand(recipe: Written, entries: Sequence[Stage | Repeat | None], *, whole: bool = False) -> Expanded:
    """The stages of a recipe in order.

    Args:
        entries: `recipe.stages`, null for those that could not be read.
        whole: leave nothing out, as of a recipe whose data are not named yet.
    """
    written = [entry_of(("stages", place), entry) for place, entry in enumerate(entries)]
    found = [changed(entry, partial(_own, recipe.model)) for entry in written]
    gone = {} if whole else without_data(recipe, found)
    problems = [*_unknown(recipe, found), *unscored(gone, found), *unfed(gone, found)]
    starts = {s.name: own_model(s.stage) for s in flat(found) if s.stage is not None and s.name in gone}
    firsts = {name: text for block in found if isinstance(block, Block) for name, text in block.settings.first.items()}
    forget = forgetting(recipe.model, starts, firsts)
    steps = unrolled(recipe.model, [changed(entry, forget) for entry in kept_of(found, gone)], problems)
    steps = [with_stage(step, forget) for step in steps]  # what a block's `first` says may be left out too
    idle = bool(gone) and not any(step.stage is None or step.stage.kind not in BESIDE for step in steps)
    if idle:
        kinds = {step.name: step.stage.kind for step in flat(found) if step.stage is not None}
        makers = [out for out in gone.values() if kinds[out.name] not in BESIDE]
        missing = " or ".join(dict.fromkeys(key for out in makers for key in out.missing))
        problems.append((("stages",), f"nothing is left to do, for no stage has data; give {missing}"))
    if recipe.evaluation.asks and not idle:
        steps = evaluated(recipe, recipe.evaluation, steps, problems)
    if not whole:
        steps = [compared(steps, place, problems) for place in range(len(steps))]
    return Expanded(tuple(steps), tuple(gone.values()), tuple(problems))


def _own(model: str | None, stage: Stage) -> Stage:
    """The stage with the recipe's model where it asks for that."""
    return renamed(stage, lambda text: model or text if text == OWN else text, lambda path: (path,))


def _unknown(recipe: Written, entries: Sequence[Entry]) -> Iterator[tuple[Path, str]]:
    """Names of stages that there are none of, and rounds that are none."""
    names = [step.name for step in flat(entries)]
    for place, text in enumerate(recipe.optional if names else ()):
        name, _, key = text.partition(".")
        if name not in names and "" not in names:
            yield ("optional", place), f"{name}: no stage of that name; there are: {', '.join(names)}"
        stage = next((step.stage for step in flat(entries) if step.name == name), None)
        if key and stage is not None and key not in (*stage.models, *stage.datasets):
            known = ", ".join((*stage.models, *stage.datasets))
            yield ("optional", place), f"{text}: no model and no data of that stage; there are: {known}"
    for block in [entry for entry in entries if isinstance(entry, Block)]:
        yield from _nowhere(block, names)
        inner = [step.name for step in block.steps]
        if block.settings.times < 1:
            yield (*block.written, "times"), f"must be at least 1, got {block.settings.times}"
        if block.settings.name in names:
            yield (*block.written, "name"), f"{block.settings.name!r} is a stage's name already"
        for name in [name for name in block.settings.first if name not in inner]:
            yield (*block.written, "first", name), f"no stage of the block is called so; there are: {', '.join(inner)}"


def _nowhere(block: Block, names: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Models and data of a block's stages by names that no stage of the recipe has, whatever the round."""
    known = ("", OWN[1:], "start", *names)
    for step in block.steps if "" not in names else ():
        for path, text in named(step.stage) if step.stage is not None else ():
            name = source(text)
            if path[0] != "among" and re.sub(r"^eval-|-\d+$", "", name) not in known:
                near = get_close_matches(name, names, 1)
                hint = f"did you mean @{near[0]}? " if near else ""
                yield (*step.written, *path), f"{text}: no stage of that name; {hint}there are: {', '.join(names)}"
