"""The cache's bookkeeping, and attention over it against one plain softmax."""

import numpy as np
import pytest
import torch

from strop.rollout import attention
from strop.rollout.attention import piece
from strop.rollout.cache import HIDDEN, Cache, Slab

CPU = torch.device("cpu")


def test_rows_that_stand_in_another_order_than_their_prompts_need_the_grid():
    for slot in ([0, 1, 2, 3], [3, 1, 2, 0], [1, 2, 0, 0], [0, 0, 1, 1]):
        state = Cache(Slab(4, 8), Slab(4, 8), CPU)
        state.begin_prompts([3] * (max(slot) + 1))
        state.add_rows(np.arange(4), np.array(slot))
        if slot in ([0, 1, 2, 3], [0, 0, 1, 1]):
            assert state.grid is None
            continue
        cells, cell = state.grid
        width = len(cells) // (max(slot) + 1)
        assert cells[cell].tolist() == [0, 1, 2, 3]  # each row is in its own cell
        assert (cell // width).tolist() == slot  # and the cell is its prompt's


def test_dropped_rows_are_filled_from_the_end_with_their_keys():
    state = Cache(Slab(3, 4), Slab(5, 8), CPU)
    state.begin_prompts([4, 2, 3])
    state.add_rows(np.arange(10, 15), np.array([0, 0, 1, 2, 2]))
    state.next_column()
    key = torch.arange(5.0)[None, None, :, None].expand(1, 1, 5, 2)
    buffers = state.own.at(0, key, key)
    buffers[0][:, :, 0] = key[0].transpose(0, 1)
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


@pytest.mark.parametrize("flash", [True, False])
def test_a_piece_is_attention_with_its_log_sum_exp(flash, monkeypatch):
    monkeypatch.setattr(attention, "_has_flash", lambda: flash)
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 5, 16), torch.randn(3, 2, 7, 16), torch.randn(3, 2, 7, 16)
    bias = torch.zeros(3, 1, 1, 7)
    bias[1, ..., :4] = HIDDEN
    scores = query @ key.transpose(-1, -2) * 0.3 + bias
    out, lse = piece(query, key, value, 0.3, bias)
    torch.testing.assert_close(out, scores.softmax(-1) @ value, atol=1e-5, rtol=0)
    torch.testing.assert_close(lse, scores.logsumexp(-1), atol=1e-5, rtol=0)
