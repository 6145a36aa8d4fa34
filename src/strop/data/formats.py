"""Rows become a data set of groups: the kind detected by the columns and said, bad rows counted.

The shapes that are recognised stand in `shapes`. A row that cannot be used is dropped and counted
by reason, the first of each reason kept with its file and line; a data set in which no row can be
used is an error.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from strop.data.read import Problem, Row, data_files, read_rows, sha256
from strop.data.shapes import KINDS, SHAPES, Shape
from strop.data.templates import conversation
from strop.data.turns import BadRow
from strop.types import Group, Message

_LOOKAHEAD = 1000
_DROPPED_COLUMNS = ("images", "image", "videos", "audio", "tools")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Groups in the files' order, and what became of every row.

    Attributes:
        kind: what a row is for; one of `shapes.KINDS`.
        shape: the columns' habit that was recognised, in words ("HH dialogue", "Alpaca").
        columns: the files' columns, in order.
        dropped: number of rows by reason; examples: the first of each, "file:line: what and why".
        sha256: of the raw bytes of `files`, one after another; where the `datasets` library read
            the rows there are no files, and it is of the rows read.
        num_rows: rows met, good or bad; one row of Self-Instruct may make several groups.
    """

    groups: tuple[Group, ...]
    kind: str
    shape: str
    columns: tuple[str, ...]
    dropped: Mapping[str, int]
    examples: Mapping[str, str]
    sha256: str
    files: tuple[str, ...]
    num_rows: int

    @property
    def num_dropped(self) -> int:
        """Rows that gave no group."""
        return sum(self.dropped.values())


def load_dataset(
    path: str | Sequence[str],
    *,
    kind: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    limit: int | None = None,
    system: str | None = None,
) -> Dataset:
    """The groups of a file, folder or `datasets` name, or of several, which share one kind.

    Args:
        kind: one of `shapes.KINDS`; detected by the columns when None.
        columns: our column name -> the file's; others may be mapped too, for rewards to read.
        split: of a `datasets` name.
        limit: stop after this many groups.
        system: a system turn put before every conversation that has none. A plain prompt has no
            place for one, so it and its completions become a conversation.
    Raises: ValueError naming the path, and the columns or the reasons, if nothing can be used.
    """
    paths = [path] if isinstance(path, str) else list(path)
    _check(paths, kind, limit)
    files = [file for p in paths for file in data_files(p, split)]
    rows = _Hashed(chain.from_iterable(read_rows(p, split) for p in paths), active=not files)
    head = list(islice(rows, _LOOKAHEAD))
    seen = _columns(head)
    renamed = dict(columns or {})
    _check_columns(renamed, seen, paths)
    tally = _Tally()
    if not seen:
        raise _nothing_usable(paths, tally.after(chain(head, rows)))
    shape = _shape(head, seen, renamed, kind, paths)
    groups = tuple(islice(_grouped(chain(head, rows), shape, renamed, system, tally), limit))
    if not groups:
        raise _nothing_usable(paths, tally)
    return Dataset(
        groups=groups,
        kind=shape.kind,
        shape=tally.shapes.most_common(1)[0][0],
        columns=seen,
        dropped=dict(tally.dropped.most_common()),
        examples=tally.examples,
        sha256=sha256(files) if files else rows.digest.hexdigest(),
        files=tuple(str(file) for file in files),
        num_rows=tally.num_rows,
    )


@dataclass(slots=True)
class _Tally:
    """What was counted while rows became groups."""

    num_rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    shapes: Counter[str] = field(default_factory=Counter)

    def drop(self, origin: str, reason: str, detail: str) -> None:
        self.dropped[reason] += 1
        self.examples.setdefault(reason, f"{origin}: {reason}" + (f": {detail}" if detail else ""))

    def after(self, items: Iterable[Row | Problem]) -> _Tally:
        """Itself, once every item is counted and every problem dropped."""
        for item in items:
            self.num_rows += 1
            if isinstance(item, Problem):
                self.drop(item.origin, item.reason, item.detail)
        return self


class _Hashed:
    """Rows as they pass, with a hash of them where no file has one."""

    def __init__(self, rows: Iterator[Row | Problem], *, active: bool) -> None:
        self.digest = hashlib.sha256()
        self._rows = rows
        self._active = active

    def __iter__(self) -> Iterator[Row | Problem]:
        return self

    def __next__(self) -> Row | Problem:
        item = next(self._rows)
        if self._active and isinstance(item, Row):
            self.digest.update(json.dumps(item.value, sort_keys=True).encode())
        return item


def _check(paths: Sequence[str], kind: str | None, limit: int | None) -> None:
    if not paths:
        raise ValueError("path: no file is named; name at least one")
    if kind is not None and kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        raise ValueError(f"kind={kind!r}: unknown{_mean(near)}; known: {', '.join(KINDS)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: must be at least 1, or null for all")


def _check_columns(renamed: Mapping[str, str], seen: Sequence[str], paths: Sequence[str]) -> None:
    for ours, theirs in renamed.items():
        if seen and theirs not in seen:
            near = difflib.get_close_matches(theirs, seen, n=1)
            raise ValueError(f"columns.{ours}={theirs!r}: {_all(paths)} has no such column{_mean(near)}; {_has(seen)}")
        known = {name for shape in SHAPES for name in shape.required + shape.optional}
        near = difflib.get_close_matches(ours, known, n=1, cutoff=0.8)
        if ours not in known and ours not in seen and near:
            raise ValueError(f"columns.{ours}: unknown{_mean(near)}")


def _mean(near: Sequence[str]) -> str:
    return f"; did you mean {near[0]}?" if near else ""


def _has(seen: Sequence[str]) -> str:
    return f"columns there: {', '.join(seen)}"


def _all(paths: Sequence[str]) -> str:
    return ", ".join(paths)


def _columns(head: Sequence[Row | Problem]) -> tuple[str, ...]:
    """Columns that at least half of the first rows have, so that a stray row decides nothing."""
    rows = [item.value for item in head if isinstance(item, Row)]
    counts = Counter(name for row in rows for name in row)
    return tuple(name for name, count in counts.items() if 2 * count >= len(rows))


def _shape(
    head: Sequence[Row | Problem],
    seen: Sequence[str],
    renamed: Mapping[str, str],
    kind: str | None,
    paths: Sequence[str],
) -> Shape:
    """The first shape of that kind, or of any, whose columns are all there."""
    names = set(seen) - set(renamed.values()) | set(renamed)
    cells = [_cells(item.value, renamed) for item in head if isinstance(item, Row)]
    if kind is None and _are_groups(cells):
        return SHAPES[0]
    usable = [s for s in SHAPES if (s.kind == kind if kind else s.detected) and (s.kind != "groups" or kind)]
    found = next((s for s in usable if names >= set(s.required) and (kind or _looks(s, cells))), None)
    unordered = kind is None and found is not None and found.name == "prompt" and names & {"completions", "responses"}
    if found and not unordered:
        return found
    if kind:
        needs = " or ".join(dict.fromkeys(" + ".join(s.required) for s in usable))
        missing = min((sorted(set(s.required) - names) for s in usable), key=len)
        what = f"kind={kind!r} needs the columns {needs}; missing: {', '.join(missing)}"
    else:
        known = "; ".join(dict.fromkeys(" + ".join(s.required) for s in SHAPES if s.detected))
        what = f"no known kind of row has these columns (known: {known})"
        if unordered:
            what += "; answers without ranks or scores are a ranking only if kind=ranking says that the best is first"
    raise ValueError(f"{_all(paths)}: {what}; {_has(seen)}; map others with columns: {{our name: the file's}}")


def _looks(shape: Shape, cells: Sequence[Mapping[str, Any]]) -> bool:
    return shape.looks is None or 2 * sum(map(shape.looks, cells)) > len(cells)


def _are_groups(cells: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows are groups as we write them: completions that are objects with content and no role."""
    known = {"prompt", "completions", "row", "origin", "prompt_ids"}
    fitting = [
        c["completions"] for c in cells if "prompt" in c and set(c) <= known and isinstance(c.get("completions"), list)
    ]
    ours = [a for a in fitting if all(isinstance(x, Mapping) and "content" in x and "role" not in x for x in a)]
    return 2 * len(ours) > len(cells)


def _cells(row: Mapping[str, Any], renamed: Mapping[str, str]) -> Mapping[str, Any]:
    """A row by our names: a mapped column stands under ours, and no longer under the file's."""
    if not renamed:
        return row
    taken = set(renamed.values())
    cells = {name: cell for name, cell in row.items() if name not in taken}
    cells.update({ours: row[theirs] for ours, theirs in renamed.items() if theirs in row})
    return cells


def _grouped(
    items: Iterable[Row | Problem], shape: Shape, renamed: Mapping[str, str], system: str | None, tally: _Tally
) -> Iterator[Group]:
    """The groups of good rows; every row is counted, and every bad one dropped, in the tally."""
    for item in items:
        tally.num_rows += 1
        if isinstance(item, Problem):
            tally.drop(item.origin, item.reason, item.detail)
            continue
        try:
            cells = _cells(item.value, renamed)
            groups = _parsed(cells, shape)
        except BadRow as bad:
            tally.drop(item.origin, bad.reason, bad.detail)
            continue
        tally.shapes[_described(shape, cells, groups[0])] += 1
        rest = None if shape.kind == "groups" else _rest(item.value, cells, shape, renamed)
        for group in groups:
            told = group if system is None else _with_system(group, system, item.origin)
            origin = told.origin if rest is None and told.origin else item.origin
            yield replace(told, origin=origin, row=told.row if rest is None else rest)


def _parsed(cells: Mapping[str, Any], shape: Shape) -> Sequence[Group]:
    missing = next((name for name in shape.required if name not in cells), None)
    if missing:
        raise BadRow(f"no column {missing}")
    if shape.kind != "groups":
        unread = next((name for name in _DROPPED_COLUMNS if cells.get(name) and name not in shape.required), None)
        if unread:
            raise BadRow(f"row with {unread}", "which are not supported and would be lost")
    return shape.parse(cells)


def _rest(row: Mapping[str, Any], cells: Mapping[str, Any], shape: Shape, renamed: Mapping[str, str]) -> dict[str, Any]:
    """What rewards may read: every column that is not in the group already, and the reference answer.

    A mapped column that the shape does not read stands there under both names.
    """
    read = set(shape.required + shape.optional) - set(shape.kept)
    hidden = {renamed.get(name, name) for name in read if name in cells}
    rest = {name: cell for name, cell in row.items() if name not in hidden}
    for ours, theirs in renamed.items():
        if ours not in read and theirs in row:
            rest.setdefault(ours, row[theirs])
    return rest


def _described(shape: Shape, cells: Mapping[str, Any], group: Group) -> str:
    """The shape in words, as `strop inspect` says it."""
    if shape.name not in ("preference", "unpaired", "prompt and completion", "prompt"):
        return shape.name
    first = cells.get("prompt") if cells.get("prompt") is not None else cells.get("chosen")
    if isinstance(first, str) and isinstance(group.prompt, tuple) and first.lstrip().startswith("Human:"):
        return "HH dialogue" if shape.name == "preference" else f"HH dialogue, {shape.name}"
    form = "plain" if isinstance(group.prompt, str) else "conversational"
    implicit = shape.name == "preference" and cells.get("prompt") is None
    return f"{form} {shape.name}" + (" with implicit prompt" if implicit else "")


def _with_system(group: Group, system: str, origin: str) -> Group:
    """The group with a system turn first, unless it has one; a plain prompt becomes a user turn."""
    if isinstance(group.prompt, str):
        if not group.prompt:
            raise ValueError(
                f"{origin}: system: this text has no prompt that a system turn could stand before; leave it out"
            )
        group = conversation(group)
    assert not isinstance(group.prompt, str)
    if any(m.role in ("system", "developer") for m in group.prompt):
        return group
    return replace(group, prompt=(Message("system", system), *group.prompt), prompt_ids=None)


def _nothing_usable(paths: Sequence[str], tally: _Tally) -> ValueError:
    if not tally.num_rows:
        return ValueError(f"{_all(paths)}: empty; it needs at least one row")
    reasons = "; ".join(f"{count} x {reason}" for reason, count in tally.dropped.most_common())
    first = next(iter(tally.examples.values()), "")
    return ValueError(f"{_all(paths)}: none of {tally.num_rows} rows can be used ({reasons}); the first: {first}")
