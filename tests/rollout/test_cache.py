"""The cache's bookkeeping, and attention over it against one plain softmax."""

import numpy as np
import pytest
import torch

from strop.rollout.attention import attend_tokens
from strop.rollout.cache import Asked, Cache, Slab

CPU = torch.device("cpu")


def test_rows_that_stand_in_another_order_than_their_prompts_need_the_grid():
    for slot in ([0, 1, 2, 3], [3, 1, 2, 0], [1, 2, 0, 0], [0, 0, 1, 1]):
        state = Cache(Slab(4, 8), Slab(4, 8), CPU)
        state.begin_prompts([3] * (max(slot) + 1))
        state.add_rows(np.arange(4), np.array(slot))
        if slot in ([0, 1, 2, 3], [0, 0, 1, 1]):
            assert state.grid is None
            continue
        cells = state.grid.row.view(max(slot) + 1, -1)
        assert cells[state.grid.slot, state.grid.rank].tolist() == [0, 1, 2, 3]  # each row is in its own cell
        assert state.grid.slot.tolist() == slot  # and the cell is its prompt's


def test_dropped_rows_are_filled_from_the_end_with_their_keys():
    state = Cache(Slab(3, 4), Slab(5, 8), CPU)
    state.begin_prompts([4, 2, 3])
    state.add_rows(np.arange(10, 15), np.array([0, 0, 1, 2, 2]))
    state.next_column()
    key = torch.arange(5.0)[:, None, None].expand(5, 1, 2)
    buffers = state.own.at(0, key, key)
    buffers[0][:, :, 0] = key
    state.prompts.at(0, key, key)[0][:] = torch.arange(3.0)[:, None, None, None]
    order = state.drop_rows(np.array([True, True, False, False, False]))
    assert state.row.tolist() == (10 + order).tolist() and sorted(state.row.tolist()) == [12, 13, 14]
    assert buffers[0][:3, 0, 0, 0].tolist() == (state.row - 10).tolist()
    assert state.lengths[state.slot].tolist() == [[4, 2, 3][[0, 0, 1, 2, 2][r - 10]] for r in state.row]
    assert state.prompts.layers[0][0][state.slot, 0, -1, 0].tolist() == [[0, 0, 1, 2, 2][r - 10] for r in state.row]


def test_columns_shift_to_the_front_when_their_front_is_free_and_grow_otherwise():
    state = Cache(Slab(2, 4), Slab(2, 4), CPU)
    state.begin_prompts([2, 3])
    state.add_rows(np.array([0]), np.array([0]))
    positions = [state.next_column().tolist() for _ in range(5)]
    assert positions == [[2], [3], [4], [5], [6]] and state.own.num_columns == 8
    state.add_rows(np.array([1]), np.array([1]))
    state.drop_rows(np.array([True, False]))
    positions = [state.next_column().tolist() for _ in range(4)]
    assert positions == [[3], [4], [5], [6]]
    assert (state.own.num_columns, state.column, state.start.tolist()) == (8, 3, [0])


@pytest.mark.parametrize("window", [None, 100, 6, 3, 1])
@pytest.mark.parametrize("slot", [[0, 0, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0]])
@pytest.mark.parametrize("lengths", [[4, 4], [5, 2]])
def test_a_step_is_one_softmax_over_the_prompt_and_the_rows_own_tokens(window, slot, lengths):
    torch.manual_seed(0)
    heads, shared, dim, own = 2, 3, 8, 4
    state = Cache(Slab(3, 7), Slab(5, 6), CPU)
    state.asked[0] = Asked(0.3, window)
    lengths = lengths[: max(slot) + 1]
    state.begin_prompts(lengths)
    tokens = torch.randn(sum(lengths), heads * shared + 2 * heads, dim)
    attend_tokens(state, 0, *tokens.split([heads * shared, heads, heads], 1))
    state.add_rows(np.arange(4), np.array(slot))
    state.start = np.array([0, 2, 0, 1])  # some rows began later
    steps = torch.randn(own, 4, heads * shared + 2 * heads, dim)
    for step in steps:
        state.next_column()
        query, key, value = step.split([heads * shared, heads, heads], 1)
        got = attend_tokens(state, 0, query, key, value)
    prompts = tokens.split(lengths)
    for row in range(4):
        whole = torch.cat([prompts[slot[row]], steps[state.start[row] :, row]])[-(window or 100) :]
        _, keys, values = (t.repeat_interleave(shared, 1) for t in whole.split([heads * shared, heads, heads], 1))
        scores = torch.einsum("hd,thd->ht", query[row], keys) * 0.3
        want = torch.einsum("ht,thd->hd", scores.softmax(-1), values)
        torch.testing.assert_close(got[row], want, atol=1e-5, rtol=0)
