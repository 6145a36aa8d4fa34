"""Repeats, written out round by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from strop.recipes.artifacts import named, names_data, renamed
from strop.recipes.steps import SCORERS, Block, Change, Entry, Problems, Step, changed, source, with_stage
from strop.recipes.yaml12 import Path


def unrolled(model: str | None, entries: Sequence[Entry], problems: Problems) -> list[Step]:
    """The stages of blocks written out, and their names in what follows."""
    steps: list[Step] = []
    rounds: dict[str, int] = {}
    for entry in entries:
        behind = _behind(rounds)
        if isinstance(entry, Step):
            steps.append(with_stage(entry, behind))
            continue
        problems += _unscored_at_first(entry)
        block = changed(entry, behind)
        assert isinstance(block, Block)
        times = max(1, block.settings.times)  # fewer are refused, and what is in it is checked all the same
        numbers = range(1, times + 1)
        made = [_in_round(block, place, number, model) for number in numbers for place in range(len(block.steps))]
        steps += [with_stage(step, behind) for step in made]  # what `first` names may be of an earlier block
        rounds = rounds | {step.name: times for step in block.steps}
    return steps


def _behind(rounds: Mapping[str, int]) -> Change:
    """Behind a block `@x` is what the last round left, `@x*` what all did."""

    def model(text: str) -> str:
        return f"{text}-{rounds[text[1:]]}" if text.startswith("@") and text[1:] in rounds else text

    def data(text: str) -> tuple[str, ...]:
        name = source(text)
        every = range(1, rounds.get(name, 0) + 1) if text.endswith("*") else ()
        return tuple(f"@{name}-{number}" for number in every) or (model(text),)

    return lambda stage: renamed(stage, model, data)


def _in_round(block: Block, place: int, number: int, start: str | None) -> Step:
    """A stage of a block in one of its rounds, counted from 1."""
    places = {step.name: i for i, step in enumerate(block.steps)}
    first = block.settings.first

    def latest(name: str) -> int:
        return number if places[name] < place else number - 1

    def model(text: str) -> str | None:
        name = source(text)
        if name not in places or text.endswith("*"):
            return text
        return f"@{name}-{latest(name)}" if latest(name) else first.get(name, start)

    def data(text: str) -> tuple[str, ...]:
        name = source(text)
        if name not in places:
            return (text,)
        if text.endswith("*"):
            return tuple(f"@{name}-{i}" for i in range(1, latest(name) + 1))
        before = (first[name],) if name in first else ()
        return (f"@{name}-{latest(name)}",) if latest(name) else before

    step = replace(block.steps[place], round=number)
    if step.stage is None:
        return step
    return replace(step, stage=replace(renamed(step.stage, model, data), name=f"{step.name}-{number}"))


def _unscored_at_first(block: Block) -> Iterator[tuple[Path, str]]:
    """Models that score and are asked for before the first round has made them."""
    places = {step.name: i for i, step in enumerate(block.steps)}
    for place, step in enumerate(block.steps):
        for path, text in () if step.stage is None else named(step.stage):
            name = source(text)
            own = path == ("model",) or step.stage is None or names_data(step.stage, path)
            if own or places.get(name, -1) < place or name in block.settings.first:
                continue
            maker = block.steps[places[name]].stage
            if maker is not None and maker.kind in SCORERS:
                why = f"{text}: in the first round there is no {name} yet, and no other model can stand for it"
                yield (*step.written, *path), f"{why}; say which, as first: {{{name}: MODEL}} of the block"
