"""Two real processes over gloo: sums, shares, and the gradient of a step that they divide."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from strop import dist
from strop.objectives import GRPO


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, toys) -> list[dict[str, Any]]:
    """What two processes found, rank 0 first; forks, so that nothing is imported again."""
    folder = tmp_path_factory.mktemp("ranks")
    work = runpy.run_path(str(Path(__file__).with_name("rank_worker.py")))["work"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}

    def rank_main(rank: int) -> None:
        os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
        work(toys, folder / f"{rank}.json")

    workers = [multiprocessing.get_context("fork").Process(target=rank_main, args=(rank,)) for rank in range(2)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 40
    for worker in workers:
        worker.join(timeout=max(0.0, deadline - time.monotonic()))
    stuck = [worker for worker in workers if worker.is_alive()]
    for worker in stuck:
        worker.kill()
        worker.join()
    assert not stuck and [worker.exitcode for worker in workers] == [0, 0], "a rank failed or waits for the other"
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_one_process_needs_no_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    dist.start()
    assert (dist.rank(), dist.world_size()) == (0, 1)
    assert dist.share([1, 2, 3]) == [1, 2, 3] and dist.sum_numbers([1.5, 2.0]) == [1.5, 2.0]
    parameter = torch.nn.Parameter(torch.ones(1))
    dist.sum_gradients([parameter])
    assert parameter.grad is None
    dist.barrier()


def test_ranks_know_themselves_and_share_without_loss(ranks: list[dict[str, Any]]) -> None:
    assert [(r["rank"], r["world_size"]) for r in ranks] == [(0, 2), (1, 2)]
    assert ranks[0]["share"] == ["a", "c", "e"] and ranks[1]["share"] == ["b", "d"]


def test_numbers_are_summed_in_float64(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["sums"] == [3.0, 2.0**-39, 2.0**31, float("inf")]


def test_gradients_are_summed_and_a_missing_one_is_zero(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["gradients"] == [[3.0, 30.0], [5.0, 6.0], None, [0.0, 0.0]]


def test_a_step_divided_between_ranks_has_the_gradient_of_one_process(ranks: list[dict[str, Any]], toys) -> None:
    objective, model = GRPO(beta=0.1, aggregate="sequence"), toys.toy_model()
    loss, grads = toys.gradients(model, objective, [toys.one_batch(toys.step_of(objective))])
    for found in ranks:
        assert found["step"][0] == pytest.approx([loss], rel=1e-12)
        for ours, theirs in zip(found["step"][1:], grads, strict=True):
            ours = torch.tensor(ours, dtype=torch.float64)
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12 * float(theirs.abs().max()))


def test_metrics_are_means_over_both_ranks(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["metrics"] == {"both": 3.0, "one": 4.0}


def test_ranks_with_unlike_shares_make_the_same_updates(ranks: list[dict[str, Any]]) -> None:
    """Otherwise one waits for ever in a sum that the other never joins."""
    assert [r["loop"] for r in ranks] == [[2, 2], [1, 1]]
    for one, other in zip(*(r["updates"] for r in ranks), strict=True):
        assert one[1] == other[1] == one[0] + other[0]
    assert [u[0] for u in ranks[1]["updates"]] == [1, 0, 1, 0]


def test_a_rank_without_groups_joins_the_update(ranks: list[dict[str, Any]]) -> None:
    assert [r["lonely"] for r in ranks] == [[[1.0, 1.0]], [[0.0, 1.0]]]
