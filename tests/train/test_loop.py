"""The loop: which groups are trained on in which update, and what a step reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from strop.batch import Step
from strop.data.encoded import EncodedGroup
from strop.data.source import Collected
from strop.train.loop import Packing, Passes, means, train


def names(groups: Sequence[EncodedGroup]) -> list[int]:
    return [g.prompt_ids[0] for g in groups]


class Recording:
    """A learner that only notes which groups each update saw; its loss is the update's number."""

    begins_at = 0

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def update(self, step: Step) -> dict[str, float]:
        owners = [b.input_ids[b.layout.start[i]] for b in step.batches for i, p in enumerate(b.layout.parent) if p < 0]
        self.seen.append([int(owner) for owner in owners])
        return {"loss": float(len(self.seen)), "grad_norm": 2.0}


def run(learner: Any, source: Any, **settings: Any) -> list[Any]:
    known = {"steps": 2, "packing": Packing(1 << 30, "cpu", False), "passes": Passes()}
    return list(train([learner], source, **{**known, **settings}))


@pytest.mark.parametrize(("passes", "minibatches"), [(1, 1), (3, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("num_groups", [3, 8, 13])
def test_every_group_once_a_pass(passes: int, minibatches: int, num_groups: int, toys) -> None:
    groups = [toys.group((i,), (1, 2)) for i in range(num_groups)]
    parts = list(Passes(passes=passes, minibatches=minibatches, seed=1)(5, groups))
    assert len(parts) == passes * minibatches == Passes(passes=passes, minibatches=minibatches).updates
    for number in range(passes):
        own = parts[number * minibatches :][:minibatches]
        assert sorted(i for part in own for i in names(part)) == list(range(num_groups))
        sizes = [len(part) for part in own]
        assert max(sizes) - min(sizes) <= 1


def test_parts_are_a_function_of_seed_step_and_pass(toys) -> None:
    groups = [toys.group((i,), (1, 2)) for i in range(12)]

    def parts(seed: int, step: int) -> list[list[int]]:
        return [names(part) for part in Passes(passes=2, minibatches=3, seed=seed)(step, groups)]

    assert parts(0, 4) == parts(0, 4)
    assert parts(0, 4) != parts(1, 4) and parts(0, 4) != parts(0, 5)
    assert parts(0, 4)[:3] != parts(0, 4)[3:], "each pass has parts of its own"


def test_one_part_keeps_the_order(toys) -> None:
    groups = [toys.group((i,), (1, 2)) for i in (4, 1, 3)]
    assert [names(part) for part in Passes(passes=2)(0, groups)] == [[4, 1, 3], [4, 1, 3]]


def test_updates_of_a_step(toys) -> None:
    groups = [[toys.group((10 * step + i,), (1, 2)) for i in range(4)] for step in range(3)]
    learner = Recording()
    updates = run(
        learner, lambda step: Collected(tuple(groups[step])), steps=3, start=1, passes=Passes(passes=2, minibatches=2)
    )
    assert [u.step for u in updates] == [1, 2] and len(learner.seen) == 8
    for update, seen in zip(updates, (learner.seen[:4], learner.seen[4:]), strict=True):
        first = 10 * update.step
        assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3]) == list(range(first, first + 4))
    assert updates[1].first == {"loss": 5.0, "grad_norm": 2.0}
    assert updates[1].metrics == {"loss": 6.5, "grad_norm": 2.0}, "the mean over updates 5 to 8"


def test_annotations_come_before_packing_and_metrics_of_the_source_pass_through(toys) -> None:
    seen: list[int] = []

    def annotate(groups: Sequence[EncodedGroup]) -> Sequence[EncodedGroup]:
        seen.append(len(groups))
        return [toys.group((99,), (1,))]

    collected = Collected((toys.group((1,), (2,)), toys.group((3,), (4,))), {"reward": 0.5}, {"sampling": 1.25})
    learner = Recording()
    (update,) = run(learner, lambda step: collected, steps=1, annotations=(annotate,))
    assert seen == [2] and learner.seen == [[99]]
    assert update.metrics == {"loss": 1.0, "grad_norm": 2.0, "reward": 0.5}
    assert update.seconds["sampling"] == 1.25 and update.seconds["annotating"] >= 0 and update.seconds["training"] > 0
    assert update.collected is collected


def test_tokens_are_counted_with_the_prompt_for_each_completion(toys) -> None:
    """The peers' measure, so that tokens a second compare: (3 + 2) + (3 + 1) and 1 + 4, in each of two passes."""
    groups = (toys.group((1, 2, 3), (4, 5), (6,)), toys.group((7,), (8, 9, 10, 11)))
    (update,) = run(Recording(), lambda step: Collected(groups), steps=1, passes=Passes(passes=2))
    assert update.num_tokens == 2 * (5 + 4 + 5)


def test_a_step_without_groups_makes_no_update(toys) -> None:
    """As when every group was all right or all wrong."""
    learner, collected = Recording(), Collected((), {"frac_reward_zero_std": 1.0})
    (update,) = run(learner, lambda step: collected, steps=1, passes=Passes(passes=3))
    assert learner.seen == [] and update.first == {} and update.metrics == {"frac_reward_zero_std": 1.0}


def test_fewer_groups_than_parts(toys) -> None:
    learner = Recording()
    run(learner, lambda step: Collected((toys.group((5,), (1, 2)),)), steps=1, passes=Passes(minibatches=4))
    assert learner.seen == [[5]]


def test_means_are_over_the_updates_that_have_the_metric() -> None:
    assert means([{"a": 1.0, "b": 4.0}, {"a": 3.0}]) == {"a": 2.0, "b": 4.0}
    assert means([]) == {}


def test_an_extreme_of_a_step_is_that_of_its_updates() -> None:
    """The largest difference of four updates is the largest of all, not the mean of four largest ones."""
    results = [{"d/max": 0.1, "d/min": -3.0, "d/mean": 0.5}, {"d/max": 3.9, "d/min": 1.0, "d/mean": 1.5}]
    assert means(results) == {"d/max": 3.9, "d/min": -3.0, "d/mean": 1.0}


def test_the_first_updates_metrics_have_what_was_measured_before_it(toys) -> None:
    """Checks of the first update need the KL that credit measured, too; a step without an update has none."""

    class Credit:
        metrics = {"objective/kl": 0.25}

        def __call__(self, groups: Sequence[EncodedGroup]) -> Sequence[EncodedGroup]:
            return groups

    groups = [(toys.group((1,), (2,)),), ()]
    first, idle = run(
        Recording(), lambda step: Collected(groups[step], {"reward": 0.5}), annotations=(Credit(),), passes=Passes(2)
    )
    assert first.first == {"loss": 1.0, "grad_norm": 2.0, "objective/kl": 0.25, "reward": 0.5}
    assert idle.first == {}


def test_packing_settings_reach_the_packer(toys) -> None:
    group = toys.group((1, 2), *[(3, 4, 5)] * 4)
    assert len(Packing(8, "cpu", False)([group]).batches) == 1
    assert [b.num_sequences for b in Packing(8, "cpu", True)([group]).batches] == [2, 2]
    assert Packing(8, "cpu", True)([]).batches == ()
