"""A copy of the policy that samples: it lags by as much as it says, and comes back as it was saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from strop.credit import LeaveOneOut
from strop.model.forward import LanguageModel
from strop.model.load import prepare
from strop.rollout.rollouts import Rollouts
from strop.rollout.sampler import Sampled
from strop.rollout.select import Credited
from strop.rollout.stale import Snapshot
from strop.types import Group


class Policy:
    """A tiny model and a count of pretended updates, each of which adds 1 to every weight."""

    def __init__(self, toys) -> None:
        self.model: LanguageModel = prepare(toys.stock("Qwen3"))
        self.updates = 0

    def update(self) -> None:
        self.updates += 1
        with torch.no_grad():
            for parameter in self.model.module.parameters():
                parameter.add_(1.0)

    def weight(self) -> float:
        return float(self.model.module.get_input_embeddings().weight.detach()[0, 0])


def weight(snapshot: Snapshot) -> float:
    return float(snapshot.model.module.get_input_embeddings().weight[0, 0])


def test_the_copy_is_renewed_at_every_nth_step_and_knows_its_age(toys) -> None:
    policy = Policy(toys)
    start = policy.weight()
    snapshot = Snapshot(policy.model, lambda: policy.updates, every=3)
    seen = []
    for step in range(7):
        snapshot.refresh(step)
        seen.append((round(weight(snapshot) - start), snapshot.version, policy.updates - snapshot.version))
        policy.update()
        policy.update()
    assert seen == [(0, 0, 0), (0, 0, 2), (0, 0, 4), (6, 6, 0), (6, 6, 2), (6, 6, 4), (12, 12, 0)]
    assert not any(p.requires_grad for p in snapshot.model.module.parameters())
    assert all(p.requires_grad for p in policy.model.module.parameters())


def test_a_restored_copy_is_the_saved_one(toys) -> None:
    policy = Policy(toys)
    snapshot = Snapshot(policy.model, lambda: policy.updates, every=4)
    policy.update()
    snapshot.refresh(0)
    policy.update()
    tensors = {name: tensor.clone() for name, tensor in snapshot.tensors().items()}
    plain = snapshot.plain()
    again = Snapshot(policy.model, lambda: policy.updates, every=4)
    assert weight(again) != weight(snapshot)
    again.restore(tensors, plain)
    assert again.version == 1
    for name, tensor in snapshot.model.module.state_dict().items():
        assert torch.equal(tensor, again.model.module.state_dict()[name]), name


class Aged:
    """Stands for a snapshot: taken at update `version`, `lag` updates ago."""

    def __init__(self, version: int, lag: int) -> None:
        self.version = version
        self.lag = lag
        self.refreshed: list[int] = []

    def updates(self) -> int:
        return self.version + self.lag

    def refresh(self, step: int) -> None:
        self.refreshed.append(step)


def rollouts(stale: Aged | None, **settings: int) -> Rollouts:
    def score(groups: Sequence[Group]) -> list[Group]:
        return [
            replace(g, completions=tuple(replace(c, score=float(i)) for i, c in enumerate(g.completions)))
            for g in groups
        ]

    made = [Sampled((1, 2), (-1.0, -1.0), "stop"), Sampled((3,), (-1.0,), "stop")]
    return Rollouts(
        prompts=[Group("q")] * 2,
        prompt_ids=[(5,)] * 2,
        sample=lambda prompts, step, first_index: [made for _ in prompts],
        decode=str,
        score=score,
        select=Credited(LeaveOneOut()),
        batch_size=2,
        num_generations=2,
        seed=0,
        stale=stale,
        **settings,
    )


def test_samples_carry_their_version_and_the_age_is_logged() -> None:
    stale = Aged(version=7, lag=3)
    collected = rollouts(stale)(4)
    assert stale.refreshed == [4]
    assert {c.version for g in collected.samples for c in g.completions} == {7}
    assert collected.metrics["staleness/mean"] == 3.0 and "staleness/dropped" not in collected.metrics
    plain = rollouts(None)(4)
    assert "staleness/mean" not in plain.metrics
    assert {c.version for g in plain.samples for c in g.completions} == {None}


def test_what_is_too_old_is_left_out_and_counted() -> None:
    kept = rollouts(Aged(7, lag=3), max_staleness=3)(0)
    assert len(kept.groups) == 2 and kept.metrics["staleness/dropped"] == 0.0
    old = rollouts(Aged(7, lag=4), max_staleness=3)(0)
    assert old.groups == () and old.metrics["staleness/dropped"] == 2.0
    assert old.metrics["reward"] == 0.5  # it was sampled and scored all the same
