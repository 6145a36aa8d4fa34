"""Groups whose loss is exactly zero: not computed, and the step comes out as if they had been."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from strop.batch import Idle, Reduction, step_totals
from strop.data.encoded import EncodedGroup
from strop.objectives import CISPO, DPPO, GRPO, GSPO, RLOO, GSPOToken
from strop.train.loop import Packing, Passes, counted, train

OBJECTIVES = (
    GRPO(),
    GRPO(aggregate="token"),
    GRPO(aggregate="constant", constant_length=40),
    CISPO(),
    DPPO(tau=0.0),  # with a pull back to the sampler it computes such groups
    GSPO(),
    GSPOToken(),
    RLOO(),
)


def without_advantage(group: EncodedGroup) -> EncodedGroup:
    nothing = [replace(s, columns={**s.columns, "advantages": (0.0,) * len(s.ids)}) for s in group.sequences]
    return replace(group, sequences=tuple(nothing))


def step(objective: Any, toys: Any) -> list[EncodedGroup]:
    groups = toys.step_of(objective, seed=3, num_groups=6)
    return [without_advantage(g) if i in (1, 4) else g for i, g in enumerate(groups)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.name}-{getattr(o, 'aggregate', '')}")
def test_an_idle_group_changes_neither_loss_nor_gradient(objective: Any, toys: Any) -> None:
    model = toys.toy_model()
    packing = Packing(60, "cpu", False)
    groups = step(objective, toys)
    computed = packing(groups)
    spared = packing([replace(g, idle=i in (1, 4)) for i, g in enumerate(groups)])
    assert sum(b.num_groups for b in spared.batches) == 4 and spared.idle.groups == 2
    results = [
        toys.gradients(model, objective, s.batches, step_totals(objective.reductions, s.batches, s.idle))
        for s in (computed, spared)
    ]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    for ours, whole in zip(results[1][1], results[0][1], strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-10, atol=1e-12)
    left_out = toys.gradients(model, objective, spared.batches)[1]
    assert not torch.allclose(left_out[0], results[0][1][0], rtol=1e-3)  # the normaliser is what it is about


def test_what_idle_groups_count(toys: Any) -> None:
    two = toys.group((1, 2), (3, 4, 5), (6,))
    one = toys.group((1,), (2, 3))
    idle = counted([two, one])
    assert idle == Idle(tokens=6, sequences=3, groups=2, first_tokens=5)
    totals = {
        Reduction("token", per="token"): 6.0,
        Reduction("token", per="sequence"): 3.0,
        Reduction("group", per="group"): 2.0,
        Reduction("token", per="token", chosen=True): 5.0,
        Reduction("sequence", per="sequence", chosen=True): 2.0,
    }
    batch = toys.one_batch([two, one])
    for reduction, total in totals.items():
        assert reduction.idle_total(idle) == total == reduction.total(batch)


def test_idle_groups_are_not_annotated_and_a_step_of_them_alone_makes_no_update(toys: Any) -> None:
    from strop.data.source import Collected

    class Recording:
        begins_at = 0

        def __init__(self) -> None:
            self.steps: list[Any] = []

        def update(self, step: Any) -> dict[str, float]:
            self.steps.append(step)
            return {"loss": 1.0}

    seen: list[int] = []

    def annotate(groups: Any) -> Any:
        seen.append(len(groups))
        return groups

    live, idle = toys.group((1,), (2, 3)), replace(toys.group((1,), (4, 5, 6)), idle=True)
    learner: Any = Recording()
    updates = list(
        train(
            [learner],
            lambda number: Collected([idle, live] if number == 0 else [idle]),
            steps=2,
            annotations=(annotate,),
            packing=Packing(100, "cpu", False),
            passes=Passes(),
        )
    )
    assert seen == [1, 0] and len(learner.steps) == 1
    assert learner.steps[0].idle == Idle(3, 1, 1, 3)
    assert updates[0].num_tokens == 3 and updates[1].metrics == {} and updates[1].num_tokens == 0


def test_parts_share_idle_groups_as_they_would_others(toys: Any) -> None:
    groups = [replace(toys.group((1,), (i, 3)), idle=i % 2 == 0) for i in range(2, 10)]
    parts = list(Passes(1, 2, seed=5)(0, groups))
    assert sorted(map(len, parts)) == [4, 4]
    assert np.sum([g.idle for part in parts for g in part]) == 4
