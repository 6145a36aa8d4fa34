"""What each of two ranks does in test_dist.py: one process, its rank in the environment, its findings as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from strop import dist
from strop.batch import step_totals
from strop.data.pack import pack
from strop.data.source import Fixed
from strop.objectives import GRPO
from strop.train.loop import Packing, Passes, train
from strop.train.metrics import MetricSums


class Recording:
    """A learner that counts what it is given, over all ranks as a real one does."""

    begins_at = 0

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def update(self, step) -> dict[str, float]:
        here = float(sum(batch.num_groups for batch in step.batches))
        self.seen.append([here, dist.sum_numbers([here])[0]])
        return {"loss": 0.0}


def work(toys: ModuleType, out: Path) -> None:
    dist.start()
    rank = dist.rank()
    found: dict[str, Any] = {"rank": rank, "world_size": dist.world_size(), "share": list(dist.share("abcde"))}
    found["sums"] = dist.sum_numbers([1.0 + rank, 2.0**-40, 2.0**30, float("inf") if rank else 0.0])

    # One parameter has a gradient on rank 0 only, one is frozen, one has none anywhere.
    parameters = [torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(4)]
    parameters[0].grad = torch.tensor([1.0, 10.0], dtype=torch.float64) * (rank + 1)
    parameters[1].grad = None if rank else torch.tensor([5.0, 6.0], dtype=torch.float64)
    parameters[2].requires_grad_(False)
    dist.sum_gradients(parameters)
    found["gradients"] = [None if p.grad is None else p.grad.tolist() for p in parameters]

    # A step's gradient, each rank with its share of the groups.
    objective = GRPO(beta=0.1, aggregate="sequence")
    model = toys.toy_model()
    batches = pack(dist.share(toys.step_of(objective)), max_tokens=30).batches
    loss, grads = toys.gradients(model, objective, batches, step_totals(objective.reductions, batches))
    for parameter, grad in zip(model.parameters, grads, strict=True):
        parameter.grad = grad
    dist.sum_gradients(model.parameters)
    found["step"] = [dist.sum_numbers([loss]), *(p.grad.tolist() for p in model.parameters)]

    # A metric that only one rank has.
    sums = MetricSums()
    sums.add("both", torch.tensor([1.0, 2.0]) if rank else torch.tensor([6.0]))
    if rank:
        sums.add("one", torch.tensor([4.0]))
    found["metrics"] = sums.result()

    # Three groups a step over two ranks, in two minibatches: rank 1 has one group, so one part of it is empty.
    learner = Recording()
    groups = [toys.group((1, 2), (3, 4)) for _ in range(6)]
    loop = train(
        (learner,),
        Fixed(groups, batch_size=3, seed=0),
        steps=2,
        annotations=(lambda g: g,),
        packing=Packing(100, "cpu", False),
        passes=Passes(passes=1, minibatches=2),
    )
    found["loop"] = [len(update.collected.groups) for update in loop]
    found["updates"] = learner.seen

    # A step in which one rank collects nothing, as when all its groups were alike; then one in which nobody does.
    learner = Recording()
    source = Fixed(groups, batch_size=1, seed=0)
    list(train([learner], source, steps=1, packing=Packing(100, "cpu", False), passes=Passes()))
    found["lonely"] = learner.seen
    dist.barrier()
    out.write_text(json.dumps(found))
