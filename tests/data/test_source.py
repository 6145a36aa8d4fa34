"""Sources: each step's rows from (seed, step) alone, every row equally often."""

from __future__ import annotations

from collections import Counter

import pytest

from strop import dist
from strop.data.source import Fixed, rows


@pytest.mark.parametrize(("num_rows", "batch_size"), [(10, 4), (7, 7), (5, 12), (1, 3), (64, 1)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_equally_often(num_rows: int, batch_size: int, shuffle: bool) -> None:
    """After lcm(rows, batch) rows each was seen as often, and at no time is one two passes ahead."""
    seen: Counter[int] = Counter()
    for step in range(2 * num_rows):
        taken = rows(step, num_rows=num_rows, batch_size=batch_size, seed=3, shuffle=shuffle)
        assert len(taken) == batch_size
        seen.update(taken)
        counts = [seen[i] for i in range(num_rows)]
        assert max(counts) - min(counts) <= 1
    assert [seen[i] for i in range(num_rows)] == [2 * batch_size] * num_rows


def test_a_pass_is_a_permutation_and_each_pass_another() -> None:
    passes = [tuple(rows(step, num_rows=20, batch_size=20, seed=0)) for step in range(4)]
    assert all(sorted(p) == list(range(20)) for p in passes) and len(set(passes)) == 4
    assert tuple(rows(0, num_rows=20, batch_size=20, seed=1)) != passes[0]


def test_steps_are_cut_from_one_stream() -> None:
    """The batch size decides where the stream is cut, not what it holds."""
    by_four = [i for step in range(6) for i in rows(step, num_rows=10, batch_size=4, seed=5)]
    by_six = [i for step in range(4) for i in rows(step, num_rows=10, batch_size=6, seed=5)]
    assert by_four == by_six


def test_a_step_needs_none_of_those_before_it() -> None:
    forwards = [rows(step, num_rows=9, batch_size=4, seed=2) for step in range(50)]
    backwards = [rows(step, num_rows=9, batch_size=4, seed=2) for step in reversed(range(50))]
    assert forwards == backwards[::-1]


def test_unshuffled_rows_come_in_order() -> None:
    assert [rows(step, num_rows=5, batch_size=3, seed=9, shuffle=False) for step in range(3)] == [
        [0, 1, 2], [3, 4, 0], [1, 2, 3],
    ]  # fmt: skip


def test_the_order_is_pinned() -> None:
    """A resumed run of an older version must see the same rows."""
    assert rows(0, num_rows=8, batch_size=8, seed=0) == PINNED


PINNED = [2, 4, 3, 6, 5, 0, 1, 7]


def test_fixed_gives_the_groups_of_those_rows(toys) -> None:
    groups = [toys.group((i,), (i,)) for i in range(7)]
    source = Fixed(groups, batch_size=3, seed=4)
    for step in (5, 0, 11):
        want = rows(step, num_rows=7, batch_size=3, seed=4)
        assert [g.prompt_ids[0] for g in source(step).groups] == want
        assert source(step) == source(step)


def test_ranks_divide_a_step(toys, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [toys.group((i,), (i,)) for i in range(7)]
    source = Fixed(groups, batch_size=5, seed=4)
    whole = source(2).groups
    shares = []
    for rank in range(2):
        monkeypatch.setattr(dist, "share", lambda items, rank=rank: items[rank::2])
        shares.append(source(2).groups)
    assert [len(s) for s in shares] == [3, 2]
    assert sorted(shares[0] + shares[1], key=str) == sorted(whole, key=str)
