"""Groups of token ids into micro-batches: a trie of segments a group, many groups a packed row.

Each group becomes a tree: the prompt once, the completions below it, and where completions go on
sharing at least `MIN_SHARED` tokens (dialogues with the same first turns, continuations of one
prefix), that shared part once too. Nothing is padded. A completion's last token predicts nothing,
so it is no input, unless a scalar head wants to read it (`read_last`).

Left out: splitting one sequence over micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from strop.batch import Batch, Layout, Step
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

Integers = NDArray[np.int64]

MIN_SHARED = 32
"""Completions share a segment only from this many common tokens on; smaller ones cost more than they save."""


def pack(
    groups: Sequence[EncodedGroup],
    *,
    max_tokens: int,
    device: str = "cpu",
    read_last: bool = False,
    splittable: bool = False,
    metrics: Mapping[str, float] | None = None,
) -> Step:
    """Micro-batches of at most `max_tokens` packed tokens, first-fit by decreasing size.

    A group is never split unless `splittable` (the objective's unit is not the group) and it is
    larger than the budget; then its sequences are spread and the prompt is repeated. A single
    group or sequence larger than the budget is a micro-batch of its own.
    """
    assert groups, "an optimizer step needs at least one group"
    trees: list[_Tree] = []
    first = 0
    for number, group in enumerate(groups):
        numbered = [_Numbered(first + i, i, sequence) for i, sequence in enumerate(group.sequences)]
        first += len(numbered)
        for part in _split(group, numbered, max_tokens) if splittable else [numbered]:
            trees.append(_tree(number, group, part, read_last))
    batches = [_batch(sorted(part, key=_order), device) for part in _first_fit(trees, max_tokens)]
    return Step(tuple(batches), dict(metrics or {}))


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A sequence, its number in the step and its place in its group."""

    number: int
    place: int
    sequence: EncodedSequence


@dataclass(slots=True)
class _Tree:
    """One group (or a part of it) as segments; offsets are within the tree."""

    group: int
    columns: Mapping[str, float]
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    leaves: dict[int, int] = field(default_factory=dict)
    predictors: dict[int, list[int]] = field(default_factory=dict)
    members: list[_Numbered] = field(default_factory=list)

    def add(self, ids: Sequence[int], position: int, parent: int) -> int:
        """A new segment below `parent`; returns its index."""
        self.start.append(len(self.ids))
        self.length.append(len(ids))
        self.parent.append(parent)
        self.ids.extend(ids)
        self.positions.extend(range(position, position + len(ids)))
        return len(self.start) - 1


def _tree(number: int, group: EncodedGroup, members: list[_Numbered], read_last: bool) -> _Tree:
    tree = _Tree(number, group.columns, members=members)
    inputs = {m.number: m.sequence.ids if read_last else m.sequence.ids[:-1] for m in members}
    assert group.prompt_ids or all(inputs.values()), "nothing to predict it: one token without a prompt"
    if len(members) == 1:  # nothing is shared: one segment, and attention has one piece
        (only,) = inputs
        ids = (*group.prompt_ids, *inputs[only])
        tree.leaves[only] = tree.add(ids, 0, -1)
        tree.predictors[only] = list(range(len(group.prompt_ids) - 1, len(ids)))
        return tree
    root = tree.add(group.prompt_ids, 0, -1) if group.prompt_ids else -1
    _grow(tree, inputs, 0, len(group.prompt_ids), root, [len(group.prompt_ids) - 1])
    return tree


def _grow(
    tree: _Tree, inputs: Mapping[int, Sequence[int]], at: int, position: int, parent: int, above: list[int]
) -> None:
    """Hang the sequences' tokens from offset `at` below `parent`.

    `above` lists the predictors of the tokens up to `at`: the prompt's last offset (-1, nothing,
    where there is no prompt), then the offset of each token before.
    """
    branches: dict[tuple[int, ...], list[int]] = {}
    for number, ids in inputs.items():
        branches.setdefault(tuple(ids[at : at + MIN_SHARED]), []).append(number)
    for key, numbers in branches.items():
        share = len(key) == MIN_SHARED and len(numbers) > 1
        for part in [numbers] if share else [[n] for n in numbers]:
            below = {n: inputs[n] for n in part}
            upto = _common(list(below.values()), at) if share else len(below[part[0]])
            ids = below[part[0]][at:upto]
            segment = tree.add(ids, position, parent) if ids else parent
            offset = tree.start[segment] if ids else 0
            chain = above + list(range(offset, offset + len(ids)))
            if share:
                _grow(tree, below, upto, position + len(ids), segment, chain)
            else:
                tree.leaves[part[0]] = segment
                tree.predictors[part[0]] = chain


def _common(sequences: Sequence[Sequence[int]], at: int) -> int:
    """The end of the prefix that all sequences share, at least `at`."""
    shortest = min(len(ids) for ids in sequences)
    first = sequences[0]
    end = at
    while end < shortest and all(ids[end] == first[end] for ids in sequences):
        end += 1
    return end


def _split(group: EncodedGroup, members: list[_Numbered], max_tokens: int) -> list[list[_Numbered]]:
    """The group's sequences in parts that fit the budget, each with the prompt."""
    parts: list[list[_Numbered]] = [[]]
    used = len(group.prompt_ids)
    for member in members:
        size = len(member.sequence.ids)
        if parts[-1] and used + size > max_tokens:
            parts.append([])
            used = len(group.prompt_ids)
        parts[-1].append(member)
        used += size
    return parts


def _first_fit(trees: Sequence[_Tree], max_tokens: int) -> list[list[_Tree]]:
    bins: list[list[_Tree]] = []
    room: list[int] = []
    for tree in sorted(trees, key=lambda t: (-len(t.ids), *_order(t))):
        size = len(tree.ids)
        where = next((i for i, left in enumerate(room) if left >= size), None)
        if where is None:
            bins.append([])
            room.append(max_tokens)
            where = len(bins) - 1
        bins[where].append(tree)
        room[where] -= size
    return bins


def _order(tree: _Tree) -> tuple[int, int]:
    return tree.group, tree.members[0].number


def _batch(trees: Sequence[_Tree], device: str) -> Batch:
    """Trees side by side in one row."""
    ids: list[int] = []
    positions: list[int] = []
    start: list[int] = []
    length: list[int] = []
    parent: list[int] = []
    leaf: list[int] = []
    members: list[_Numbered] = []
    predictor: list[Integers] = []
    position: list[Integers] = []
    target: list[Integers] = []
    for tree in trees:
        offset, segments = len(ids), len(start)
        ids += tree.ids
        positions += tree.positions
        start += [offset + s for s in tree.start]
        length += tree.length
        parent += [segments + p if p >= 0 else -1 for p in tree.parent]
        for member in tree.members:
            index, source, own = _trained(tree, member)
            predictor.append(source + offset)
            position.append(np.where(own < 0, own, own + offset))
            target.append(np.asarray(member.sequence.ids)[index])
            leaf.append(segments + tree.leaves[member.number])
            members.append(member)
    groups = np.repeat(np.arange(len(trees)), [len(tree.members) for tree in trees])
    seq = np.repeat(np.arange(len(members)), [len(part) for part in target])
    return Batch(
        input_ids=_tensor(ids, device),
        position_ids=_tensor(positions, device),
        layout=Layout(tuple(start), tuple(length), tuple(parent), tuple(leaf)),
        predictor=_tensor(np.concatenate(predictor), device),
        position=_tensor(np.concatenate(position), device),
        target=_tensor(np.concatenate(target), device),
        seq=_tensor(seq, device),
        group=_tensor(groups, device),
        place=_tensor([m.place for m in members], device),
        last=_tensor([start[i] + length[i] - 1 for i in leaf], device),
        num_groups=len(trees),
        columns=_columns(trees, device),
        sequence_ids=tuple(m.number for m in members),
    )


def _trained(tree: _Tree, member: _Numbered) -> tuple[Integers, Integers, Integers]:
    """The indices of a sequence's trained tokens, the offsets that predict them and their own.

    Without a prompt nothing predicts the first token, and it is not trained. A last token that is
    no input has the offset -1.
    """
    length = len(member.sequence.ids)
    offsets = np.asarray([*tree.predictors[member.number], -1])[: length + 1]
    index = np.flatnonzero(np.asarray(member.sequence.trained, dtype=bool) & (offsets[:length] >= 0))
    return index, offsets[index], offsets[index + 1]


def _columns(trees: Sequence[_Tree], device: str) -> dict[str, torch.Tensor]:
    """Recorded numbers as [G], [S] and [N] tensors; every tree, and every sequence, must have the same names."""
    out: dict[str, list[float]] = {}
    names = trees[0].members[0].sequence.columns.keys()
    for tree in trees:
        assert tree.columns.keys() == trees[0].columns.keys(), "groups of a step differ in their columns"
        for name, number in tree.columns.items():
            out.setdefault(name, []).append(number)
        for member in tree.members:
            assert member.sequence.columns.keys() == names, "sequences of a step differ in their columns"
            index, _, _ = _trained(tree, member)
            for name, value in member.sequence.columns.items():
                numbers = np.asarray(value)[index].tolist() if isinstance(value, tuple) else [value]
                out.setdefault(name, []).extend(numbers)
    return {name: torch.tensor(values, dtype=torch.float32, device=device) for name, values in out.items()}


def _tensor(values: Sequence[int] | Integers, device: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.int64)).to(device)
