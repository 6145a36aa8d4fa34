"""Packing: every trained token once, predicted from the right place, within the budget, with its columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from strop.batch import Batch
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pack import MIN_SHARED, pack

WHOLE = 1 << 30


def stem(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(i) for i in np.random.default_rng(seed).integers(1000, size=length))


def trees() -> list[EncodedGroup]:
    """Prompts, no prompts, shared stems three levels deep, duplicates, prefixes of one another, one-token answers."""
    long, longer = stem(40, 1), stem(35, 2)

    def sequence(*ids: int, untrained: Sequence[int] = ()) -> EncodedSequence:
        trained = tuple(i not in untrained for i in range(len(ids)))
        per_token = tuple(float(1000 * len(ids) + i) if t else math.nan for i, t in enumerate(trained))
        return EncodedSequence(ids, trained, {"per_token": per_token, "per_sequence": float(len(ids))})

    deep = (
        sequence(*long, *longer, 1, 2, untrained=(0, 1, 2, 41)),
        sequence(*long, *longer, 1, 3, 4),
        sequence(*long, 9, 9, 9),
        sequence(*long),
        sequence(7),
        sequence(*long, *longer),
        sequence(*long, *longer),
    )
    return [
        EncodedGroup((5, 6, 7), deep, {"per_group": 0.0}),
        EncodedGroup((), (sequence(*stem(50, 3)), sequence(*stem(50, 3)), sequence(1, 2, 3)), {"per_group": 1.0}),
        EncodedGroup((8,), (sequence(1), sequence(1), sequence(2)), {"per_group": 2.0}),
        EncodedGroup((1, 2), (sequence(3, 4, untrained=(0,)), sequence(3, 4, 5)), {"per_group": 3.0}),
    ]


def replay(batch: Batch, s: int) -> list[tuple[tuple[int, ...], int]]:
    """For each trained token of a sequence, the tokens its predictor has seen, and the token itself."""
    layout = batch.layout
    segment_of = [i for i, length in enumerate(layout.length) for _ in range(length)]
    assert list(layout.start) == [sum(layout.length[:i]) for i in range(len(layout.start))]
    seen = []
    for n in (batch.seq == s).nonzero()[:, 0].tolist():
        at = int(batch.predictor[n])
        ids: list[int] = []
        for segment in layout.path(segment_of[at]):
            end = at + 1 if segment == segment_of[at] else layout.start[segment] + layout.length[segment]
            ids += batch.input_ids[layout.start[segment] : end].tolist()
        seen.append((tuple(ids), int(batch.target[n])))
    return seen


def wanted(group: EncodedGroup, sequence: EncodedSequence) -> list[tuple[tuple[int, ...], int]]:
    """The same, spelled out: without a prompt nothing predicts the first token."""
    whole = group.prompt_ids + sequence.ids
    places = [len(group.prompt_ids) + i for i, trained in enumerate(sequence.trained) if trained]
    return [(whole[:place], whole[place]) for place in places if place > 0]


@pytest.mark.parametrize("read_last", [False, True])
@pytest.mark.parametrize(("max_tokens", "splittable"), [(WHOLE, False), (60, False), (1, False), (60, True), (1, True)])
def test_every_trained_token_once_and_from_the_right_place(max_tokens: int, splittable: bool, read_last: bool) -> None:
    groups = trees()
    step = pack(groups, max_tokens=max_tokens, splittable=splittable, read_last=read_last)
    sequences = [(g, s) for g in groups for s in g.sequences]
    found: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for batch in step.batches:
        for s, number in enumerate(batch.sequence_ids):
            assert number not in found, "a sequence stands in one micro-batch only"
            found[number] = replay(batch, s)
    assert found == {number: wanted(*sequence) for number, sequence in enumerate(sequences)}


@pytest.mark.parametrize("splittable", [False, True])
def test_positions_are_those_of_the_sequence_alone(splittable: bool) -> None:
    for batch in pack(trees(), max_tokens=70, splittable=splittable).batches:
        for leaf in set(batch.layout.leaf):
            path = batch.layout.path(leaf)
            spans = [batch.position_ids[batch.layout.start[i] :][: batch.layout.length[i]] for i in path]
            assert torch.cat(spans).tolist() == list(range(sum(batch.layout.length[i] for i in path)))


def test_segments_stand_in_depth_first_order_and_are_never_empty() -> None:
    """The attention plan relies on it: a segment's descendants follow it at once."""
    (batch,) = pack(trees(), max_tokens=WHOLE).batches
    layout = batch.layout
    assert min(layout.length) > 0
    for i, parent in enumerate(layout.parent):
        assert parent < i
        assert parent == -1 or parent in layout.path(i - 1), "between parent and child stand only the parent's own"


def test_what_is_shared_stands_once() -> None:
    """The prompt's 3; the 39 inputs that five answers share; the 35 that four of them go on sharing; then tails."""
    (batch,) = pack(trees()[:1], max_tokens=WHOLE).batches
    assert batch.input_ids.shape[0] == 3 + 39 + 35 + (2 + 3) + 3
    assert max(len(batch.layout.path(leaf)) for leaf in batch.layout.leaf) >= 4
    assert batch.num_tokens == sum(s.num_trained for s in trees()[0].sequences)


@pytest.mark.parametrize(("shared", "segments"), [(MIN_SHARED - 1, 3), (MIN_SHARED, 4)])
def test_completions_share_from_so_many_tokens_on(shared: int, segments: int, toys) -> None:
    ids = stem(shared)
    (batch,) = pack([toys.group((1, 2), (*ids, 1001, 5), (*ids, 1002, 5))], max_tokens=WHOLE).batches
    assert len(batch.layout.start) == segments
    assert batch.input_ids.shape[0] == 2 + (shared + 2 if segments == 4 else 2 * shared + 2)


def test_a_completion_that_ends_where_others_go_on() -> None:
    """The shared part is then a leaf and an ancestor at once; the 11 that two more share are too few."""
    ids = stem(60)
    sequences = tuple(EncodedSequence(ids[:n], (True,) * n) for n in (34, 60, 45))
    (batch,) = pack([EncodedGroup((1,), sequences)], max_tokens=WHOLE).batches
    assert batch.input_ids.shape[0] == 1 + 33 + (59 - 33) + (44 - 33)
    ended, *others = batch.layout.leaf
    assert [batch.layout.parent[leaf] for leaf in others] == [ended, ended]
    for s, n in enumerate((34, 60, 45)):
        assert [target for _, target in replay(batch, s)] == list(ids[:n])


def test_a_last_token_is_an_input_only_where_it_is_read(toys) -> None:
    groups = [toys.group((1, 2), (3, 4, 5), (6,)), toys.group((7,), (8, 9))]
    (without,) = pack(groups, max_tokens=WHOLE).batches
    assert without.input_ids.tolist() == [1, 2, 3, 4, 7, 8]
    (reading,) = pack(groups, max_tokens=WHOLE, read_last=True).batches
    assert reading.input_ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert reading.input_ids[reading.last].tolist() == [5, 6, 9]
    assert without.target.tolist() == reading.target.tolist() == [3, 4, 5, 6, 8, 9]


def test_numbering(toys) -> None:
    groups = [toys.group((i,), *[(j, j, j) for j in range(1 + i)]) for i in range(4)]
    for max_tokens in (WHOLE, 9):
        for batch in pack(groups, max_tokens=max_tokens).batches:
            for column in (batch.seq, batch.group):
                assert column.tolist() == sorted(column.tolist())
            owners = batch.input_ids[[batch.layout.start[batch.layout.path(leaf)[0]] for leaf in batch.layout.leaf]]
            first = {0: 0, 1: 1, 2: 3, 3: 6}
            assert [first[g] + p for g, p in zip(owners.tolist(), batch.place.tolist(), strict=True)] == list(
                batch.sequence_ids
            )
            assert batch.num_groups == len(set(owners.tolist())) == int(batch.group.max()) + 1


@pytest.mark.parametrize("splittable", [False, True])
@pytest.mark.parametrize("max_tokens", [20, 50, 200])
def test_budget(max_tokens: int, splittable: bool, toys) -> None:
    """Only what cannot be divided is over it, and then it is alone."""
    groups = toys.ragged(0, num_groups=30, sizes=(1, 2, 4), vocab=500, longest=12)
    for batch in pack(groups, max_tokens=max_tokens, splittable=splittable).batches:
        if batch.input_ids.shape[0] > max_tokens:
            assert batch.num_groups == 1 and (batch.num_sequences == 1 or not splittable)


def test_first_fit_by_decreasing_size_wastes_little(toys) -> None:
    """Sizes 6, 5, 4, 3, 2 and a budget of 10 fill two rows; in the order given they would need three."""
    groups = [toys.group(range(n), (1,)) for n in (2, 6, 3, 5, 4)]
    step = pack(groups, max_tokens=10)
    assert sorted(int(b.input_ids.shape[0]) for b in step.batches) == [10, 10]


def test_a_group_is_split_only_where_it_may_be_and_must(toys) -> None:
    group = toys.group((1, 2, 3), *[(5, 6, 7, 8)] * 6)
    assert len(pack([group], max_tokens=10).batches) == 1
    assert [b.num_sequences for b in pack([group], max_tokens=WHOLE, splittable=True).batches] == [6]
    parts = pack([group], max_tokens=12, splittable=True).batches
    assert [b.num_sequences for b in parts] == [2, 2, 2]
    assert all(b.input_ids[:3].tolist() == [1, 2, 3] for b in parts)
    assert [b.place.tolist() for b in parts] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("splittable", [False, True])
@pytest.mark.parametrize("max_tokens", [WHOLE, 60, 1])
def test_columns_go_with_what_they_describe(max_tokens: int, splittable: bool) -> None:
    """Numbers of untrained tokens (nan), and of a first token that nothing predicts, are left out."""
    groups = trees()
    sequences = [s for g in groups for s in g.sequences]
    owner = [number for number, g in enumerate(groups) for _ in g.sequences]
    for batch in pack(groups, max_tokens=max_tokens, splittable=splittable).batches:
        assert {name: tuple(c.shape) for name, c in batch.columns.items()} == {
            "per_token": (batch.num_tokens,), "per_sequence": (batch.num_sequences,), "per_group": (batch.num_groups,),
        }  # fmt: skip
        for s, number in enumerate(batch.sequence_ids):
            first = 0 if groups[owner[number]].prompt_ids else 1
            sequence = sequences[number]
            numbers = [v for v in sequence.columns["per_token"][first:] if not math.isnan(v)]
            assert batch.columns["per_token"][batch.seq == s].tolist() == numbers
            assert float(batch.columns["per_sequence"][s]) == len(sequence.ids)
            assert float(batch.columns["per_group"][batch.group[s]]) == owner[number]
        assert not any(bool(c.isnan().any()) for c in batch.columns.values())


def test_groups_that_differ_in_their_columns_are_refused(toys) -> None:
    with pytest.raises(AssertionError, match="differ in their columns"):
        pack([toys.group((1,), (2,), a=1.0), toys.group((1,), (2,))], max_tokens=WHOLE)


def test_a_sequence_column_that_is_missing_somewhere_is_refused() -> None:
    """Otherwise one sequence would be read with another one's numbers."""
    with_it, without = EncodedSequence((2,), (True,), {"a": 1.0}), EncodedSequence((2,), (True,))
    for sequences in ((with_it, without), (without, with_it)):
        with pytest.raises(AssertionError, match="sequences of a step differ in their columns"):
            pack([EncodedGroup((1,), sequences)], max_tokens=WHOLE)


def test_metrics_pass_through_and_an_empty_step_is_refused(toys) -> None:
    assert pack([toys.group((1,), (2,))], max_tokens=9, metrics={"data/empty": 2.0}).metrics == {"data/empty": 2.0}
    with pytest.raises(AssertionError, match="at least one group"):
        pack([], max_tokens=9)


def test_a_lone_token_without_a_prompt_is_refused(toys) -> None:
    """Nothing predicts it; its segment would be empty."""
    with pytest.raises(AssertionError, match="nothing to predict it"):
        pack([toys.group((), (5,))], max_tokens=9)
    (batch,) = pack([toys.group((), (5,))], max_tokens=9, read_last=True).batches
    assert batch.input_ids[batch.last].tolist() == [5] and batch.num_tokens == 0
