"""What a recipe is without some of its stages: those that have no data, and those of rounds that are over."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from strop.recipes.artifacts import named, names_data, own_model, paths_of, renamed
from strop.recipes.settings import BestStage, Data, EvaluateStage, Recipe, ShipStage, Stage, Written
from strop.recipes.steps import SCORERS, Change, Entry, LeftOut, Step, flat, source
from strop.recipes.yaml12 import Path


def without_data(recipe: Written, entries: Sequence[Entry]) -> dict[str, LeftOut]:
    """The optional stages that are left out, by name: whose data are unset, or are what such stages would leave.

    A stage that is optional by another setting (`distill.model`) is left out where that is unset, too, and one that
    ships where it could judge by nothing.
    """
    gone = {
        s.name: LeftOut(s.written, s.name, ("evaluation.data", f"{s.name}.data"))
        for s in flat(entries)
        if _unjudged(s, recipe, entries)
    }
    keys = dict(text.partition(".")[::2] for text in recipe.optional)
    optional = [s for s in flat(entries) if s.stage is not None and s.stage.datasets and s.name in keys]
    for step in optional:
        if (key := keys[step.name]) and getattr(step.stage, key, step) is None:
            gone[step.name] = LeftOut(step.written, step.name, (f"{step.name}.{key}",))
    for _ in optional:  # one that stands later in a block may take an earlier one with it
        for step in optional:
            assert step.stage is not None
            key = step.stage.datasets[0]
            data: Data | None = getattr(step.stage, key)
            before = [] if data is None else [source(path) for path in paths_of(data)]
            if all(name in gone for name in before):
                there = [missing for name in before for missing in gone[name].missing]
                gone.setdefault(step.name, LeftOut(step.written, step.name, (f"{step.name}.{key}", *there)))
    return gone


def _unjudged(step: Step, recipe: Written, entries: Sequence[Entry]) -> bool:
    """Whether a stage is optional and ships, and nothing says how good its model is."""
    if not isinstance(step.stage, ShipStage) or step.name not in recipe.optional:
        return False
    asks = step.stage.data is not None or bool(step.stage.safety or step.stage.capability)
    return not (asks or recipe.evaluation.asks or any(isinstance(s.stage, EvaluateStage) for s in flat(entries)))


def unscored(gone: Mapping[str, LeftOut], entries: Sequence[Entry]) -> Iterator[tuple[Path, str]]:
    """Models that score and are left out, where others ask for them."""
    kinds = {step.name: step.stage.kind for step in flat(entries) if step.stage is not None}
    for step in [s for s in flat(entries) if s.stage is not None and s.name not in gone]:
        assert step.stage is not None
        for path, text in named(step.stage):
            name = source(text)
            if name in gone and kinds[name] in SCORERS and not names_data(step.stage, path):
                why = f"{text}: {name} is left out, and no other model can stand for it"
                yield (*step.written, *path), f"{why}; {gone[name].fix}"


def unfed(gone: Mapping[str, LeftOut], entries: Sequence[Entry]) -> Iterator[tuple[Path, str]]:
    """Stages that are not optional, and whose data are all of stages that are left out."""
    for step in [s for s in flat(entries) if s.stage is not None and s.name not in gone]:
        data: Data | None = getattr(step.stage, "data", None)
        names = [source(path) for path in paths_of(data)] if data is not None else []
        if names and all(name in gone for name in names):
            why = f"@{names[0]}: left out, for it has no data; {gone[names[0]].fix}, or {step.name}.data"
            yield (*step.written, "data"), why


def kept_of(entries: Sequence[Entry], gone: Mapping[str, LeftOut]) -> list[Entry]:
    """The entries without what is left out, and without blocks of which nothing is left."""
    out: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Step):
            out += [entry] if entry.name not in gone else []
        elif steps := tuple(step for step in entry.steps if step.name not in gone):
            out.append(replace(entry, steps=steps))
    return out


def forgetting(model: str | None, starts: Mapping[str, str | None], firsts: Mapping[str, str]) -> Change:
    """A left-out stage's name becomes, as a model, that of the one it would have started from; as data, none.

    Args: starts: what the left-out stages start from, by name. firsts: what they go on from in a block's first round.
    """

    def start(text: str) -> str | None:
        seen = set()
        while (name := source(text)) in starts:
            before = starts[name]
            if before is None:
                return model
            if name in seen:  # a stage of a block that starts from what it left itself
                return firsts.get(name, model)
            seen.add(name)
            text = before
        return text

    return lambda stage: renamed(stage, start, lambda path: () if source(path) in starts else (path,))


def without(recipe: Recipe, names: Collection[str]) -> Recipe:
    """The recipe without some stages: their names become those of the round before, or as if they were left out."""
    stand_in = stand_ins(recipe.stages, names)
    starts = {s.name: own_model(s) for s in recipe.stages if s.name in names and s.name not in stand_in}

    def other(text: str) -> str:
        return f"@{stand_in[text[1:]]}" if text[:1] == "@" and text[1:] in stand_in else text

    def kept(stage: Stage) -> Stage:
        stage = forgetting(recipe.model, starts, {})(renamed(stage, other, lambda path: (other(path),)))
        if isinstance(stage, BestStage):
            groups = [tuple(text for text in group if text[1:] not in names) for group in stage.among]
            return replace(stage, among=tuple(group for group in groups if group))
        return stage

    return replace(recipe, stages=tuple(kept(stage) for stage in recipe.stages if stage.name not in names))


def stand_ins(stages: Sequence[Stage | None], names: Collection[str]) -> dict[str, str]:
    """Of stages that are not run, those that the round before can stand for: the last one of theirs that is run."""
    kinds = {stage.name: stage.kind for stage in stages if stage is not None}
    found: dict[str, str] = {}
    for name in [name for name in kinds if name in names]:
        root, _, number = name.rpartition("-")
        before = f"{root}-{int(number) - 1}" if number.isdigit() else ""
        if kinds.get(before) == kinds[name] and (before not in names or before in found):
            found[name] = found.get(before, before)
    return found
