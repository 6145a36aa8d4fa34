"""Recipe files and `key=value` overrides, laid over one another as plain values.

Shorthands are written out first, so that layers meet in one form: `data: x.jsonl` is
`{path: x.jsonl}`, `objective: ipo` is `{name: ipo}`, `rewards: number` is `[{name: number}]`,
`rewards: mine.py:polite` a custom reward, and `stop: x` a list of one. Each value remembers where
it was written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from strop.recipes.plain import RECIPE_KEYS
from strop.recipes.settings import Written
from strop.recipes.shape import Shape, chosen, default_of, fields_of, shape_of
from strop.recipes.sources import Problem
from strop.recipes.yaml12 import Path

ROOT = shape_of(Written)
EXAMPLES = {"training.steps": "100", "data": "FILE", "model": "MODEL", "times": "3"}
"""Settings of which most kinds of stages have one, to show how an override names one."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a value was written; `user` where it was an override."""

    where: str
    user: bool = False


@dataclass(slots=True)
class Layers:
    """A recipe as plain values while files and overrides are laid over it.

    Attributes:
        tree: as `Written`, with `stages` a list.
        marks: where values were written, by path; the nearest path above speaks for those without.
        flat: written as one stage without `stages`, and so are its paths in messages.
        problems, bad: what is wrong so far, and the paths it is about.
    """

    tree: dict[str, Any]
    marks: dict[Path, Mark]
    flat: bool
    problems: list[Problem] = field(default_factory=list)
    bad: list[Path] = field(default_factory=list)

    def where(self, path: Path) -> str:
        """Where the value at a path, or the nearest above it, was written."""
        mark = self.mark(path)
        return mark.where if mark else ""

    def mark(self, path: Path) -> Mark | None:
        """The mark of the value at a path, or the nearest above it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.marks:
                return self.marks[path[:end]]
        return None

    def complain(self, path: Path, text: str) -> None:
        """Note a problem with the value at a path."""
        self.bad.append(path)
        self.problems.append(Problem(self.where(path), self.words(path), text))

    def suspect(self, path: Path) -> bool:
        """Whether a value at, below or above a path was complained about, so that more would be echoes."""
        return any(path[: len(bad)] == bad or bad[: len(path)] == path for bad in self.bad)

    def words(self, path: Path) -> str:
        """A path as messages show it: `stages[2].objective.beta`, in a flat recipe `objective.beta`."""
        return words(path[2:] if self.flat and path[:2] == ("stages", 0) else path)

    def override(self, address: str, value: Any, mark: Mark) -> None:
        """Lay a value over what `address` (`objective.beta`, `dpo.training.steps`) stands for."""
        path = self._resolve(address, mark, whole=isinstance(value, Mapping))
        if path is not None:
            self.lay(path, value, mark)

    def lay(self, path: Path, value: Any, mark: Mark) -> None:
        """Put a value at a path: mappings are merged, all else is replaced."""
        shape, default = self._place(path)
        parent, _ = self._place(path[:-1])
        if parent is not None and parent.tag == path[-1] and len(path) > 1:
            self.lay(path[:-1], {path[-1]: value}, mark)
            return
        holder = self._holder(path, mark)
        if holder is None:
            return
        old = _child(holder, path[-1])
        new = normal(value, shape, default) if shape else value
        holder[path[-1]] = self._merged(path, old, new, shape, default, mark)

    def _merged(self, path: Path, old: Any, new: Any, shape: Shape | None, default: Any, mark: Mark) -> Any:
        if not isinstance(old, dict) or not isinstance(new, dict):
            for known in [p for p in self.marks if p[: len(path)] == path]:
                del self.marks[known]
            self.marks[path] = mark
            return new
        if shape is not None and shape.tag in new:
            self._drop_other_variant(path, old, new, shape, default)
        for key, value in new.items():
            inner, inner_default = self._place((*path, key))
            old[key] = self._merged((*path, key), old.get(key), value, inner, inner_default, mark)
        return old

    def _drop_other_variant(
        self, path: Path, old: dict[str, Any], new: dict[str, Any], shape: Shape, default: Any
    ) -> None:
        """Drop the recipe's own keys that a newly named variant does not have; the user's stay, and fail."""
        cls, before = chosen(shape, new), chosen(shape, old, default)
        if cls is None or cls is before:
            return
        for key in [k for k in old if k not in fields_of(cls)]:
            mark = self.mark((*path, key))
            if mark is None or not mark.user:
                del old[key]

    def _holder(self, path: Path, mark: Mark) -> Any:
        """The mapping or list that holds the last part of a path, made where it is missing."""
        node: Any = self.tree
        for depth, part in enumerate(path):
            if isinstance(node, list):
                if not isinstance(part, int) or not 0 <= part < len(node):
                    return self._no_entry(path[:depth], part, len(node), mark)
            elif not isinstance(node, dict):
                self.problems.append(Problem(mark.where, self.words(path[:depth]), "has no settings of its own"))
                return None
            if depth == len(path) - 1:
                return node
            if isinstance(node, dict) and node.get(str(part)) is None:
                shape, _ = self._place(path[: depth + 1])
                node[str(part)] = [] if shape is not None and shape.item is not None else {}
            node = node[part]
        raise AssertionError("a path is never empty")

    def _no_entry(self, path: Path, part: Any, count: int, mark: Mark) -> None:
        entries = f"entries 0 to {count - 1}" if count else "no entries"
        self.problems.append(Problem(mark.where, self.words(path), f"has {entries}; {part!r} is not among them"))

    def _place(self, path: Path) -> tuple[Shape | None, Any]:
        """The shape at a path and the default there; (None, None) where there is no such setting."""
        shape: Shape | None = ROOT
        node: Any = self.tree
        default: Any = None
        for part in path:
            assert shape is not None
            shape, default = step_into(shape, node, default, part)
            if shape is None:
                return None, None
            node = _child(node, part)
        return shape, default

    def _resolve(self, address: str, mark: Mark, *, whole: bool = False) -> Path | None:
        """An override's address as a path from the top; a stage's name alone where its value is a mapping (`whole`)."""
        parts: list[str | int] = [int(p) if p.isdigit() else p for p in address.split(".")]
        places = self._stages()
        first = parts[0]
        if "" in parts:
            self.problems.append(Problem(mark.where, "", "a key is names joined by single dots, as objective.beta"))
            return None
        if first in RECIPE_KEYS or first == "stages":
            return tuple(parts)
        if len(places) == 1 and (first not in places or first in self._stage_keys(("stages", 0))):
            return ("stages", 0, *parts)
        if isinstance(first, str) and first in places:
            if len(parts) > 1 or whole:
                return (*places[first], *parts[1:])
            keys = self._stage_keys(places[first])
            example = next(
                (f"{key}={value}" for key, value in EXAMPLES.items() if key.partition(".")[0] in keys), "name=x"
            )
            text = f"is a stage; say which setting, as {first}.{example}"
            self.problems.append(Problem(mark.where, first, text))
            return None
        known = [*(n for n in places if n), *RECIPE_KEYS]
        near = difflib.get_close_matches(str(first), known, 1)
        hint = f" did you mean {near[0]}?" if near else ""
        if owner := next((name for name, path in places.items() if name and first in self._stage_keys(path)), ""):
            hint = f" begin with a stage's name, as {owner}.{address};"
        self.problems.append(Problem(mark.where, str(first), f"unknown;{hint} known: {', '.join(known)}"))
        return None

    def _stages(self) -> dict[str, Path]:
        """Where the stages stand by name, the first of each; those of repeats too, behind the repeat's own."""
        found: dict[str, Path] = {}
        for path, entry in stages_of(self.tree):
            found.setdefault(str(entry.get("name") or "") if isinstance(entry, dict) else "", path)
        return found

    def _stage_keys(self, path: Path) -> set[str]:
        """The settings of the stage at a path; none where it has no kind."""
        shape, _ = self._place(path)
        value: Any = self.tree
        for part in path:
            value = _child(value, part)
        cls = chosen(shape, value) if shape else None
        return set(fields_of(cls)) if cls else set()


def words(path: Path) -> str:
    """A path in words: `stages[2].objective.beta`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


def stages_of(tree: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """The entries of `stages` and, behind each that repeats, those in it, with their paths."""
    for holder in _entries((), tree):
        yield holder
        if isinstance(holder[1], Mapping) and holder[1].get("kind") == "repeat":
            yield from _entries(*holder)


def _entries(path: Path, holder: Mapping[str, Any]) -> list[tuple[Path, Any]]:
    stages = holder.get("stages")
    return [((*path, "stages", i), entry) for i, entry in enumerate(stages)] if isinstance(stages, list) else []


def step_into(shape: Shape, value: Any, default: Any, part: str | int) -> tuple[Shape | None, Any]:
    """The shape and default of one part of a value; (None, None) where it has no such part."""
    if shape.item is not None:
        return (shape.item, None) if isinstance(part, int) else (None, None)
    if shape.entry is not None:
        return shape.entry, None
    cls = chosen(shape, value, default)
    for option in (cls, *shape.classes):
        if option is not None and str(part) in fields_of(option):
            return fields_of(option)[str(part)], default_of(option, str(part), default)
    return None, None


def normal(value: Any, shape: Shape, default: Any = None) -> Any:
    """A value with its shorthands written out, down to the leaves."""
    if value is None:
        return None
    if shape.item is not None:
        return [normal(v, shape.item) for v in (value if isinstance(value, list) else [value])]
    if not shape.classes:
        return value
    if not isinstance(value, dict):
        value = _written_out(value, shape)
    if not isinstance(value, dict):
        return value
    out = {}
    for key, inner in value.items():
        inner_shape, inner_default = step_into(shape, value, default, key)
        out[key] = normal(inner, inner_shape, inner_default) if inner_shape else inner
    return out


def _written_out(value: Any, shape: Shape) -> Any:
    tag = shape.tag
    if isinstance(value, str | list) and len(shape.classes) == 1 and "data" in fields_of(shape.classes[0]):
        return {"data": {"path": value}}  # an evaluation on these prompts
    if isinstance(value, str) and tag is not None:
        custom = value not in shape.tags and ":" in value and "custom" in shape.tags
        return _custom(value, tag) if custom else {tag: value}
    if isinstance(value, str | list) and tag is None and any("path" in fields_of(c) for c in shape.classes):
        return {"path": value}
    return value


def _custom(value: str, tag: str) -> dict[str, Any]:
    """A function of the user's, logged under its own name."""
    return {tag: "custom", "function": value, "label": value.rpartition(":")[2]}


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, Mapping):
        return node.get(part)
    if isinstance(node, list) and isinstance(part, int) and part < len(node):
        return node[part]
    return None
