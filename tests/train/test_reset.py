"""A reference that becomes the policy every so many steps."""

from __future__ import annotations

import pytest
import torch

from strop.model.load import prepare
from strop.train.annotate import Reference
from strop.train.crediting import trained_numbers
from strop.train.reset import ResetReference


@pytest.fixture
def moving(toys) -> ResetReference:
    policy, reference = (prepare(toys.stock("Llama"), say=pytest.fail) for _ in range(2))
    kept = Reference(
        model=reference, identity="m", precision="fp32", cache=None, temperature=1.0, max_tokens=100, device="cpu"
    )
    return ResetReference(kept, policy, every=2)


def nudge(moving: ResetReference, amount: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in moving.policy.module.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))


def test_the_reference_is_the_policy_as_it_was_when_reset(moving: ResetReference, toys) -> None:
    groups = toys.ragged(0, vocab=80)

    def logprobs() -> list[list[float]]:
        return [row.tolist() for row in trained_numbers(moving(groups), "ref_logprobs")]

    first = logprobs()  # step 0
    nudge(moving)
    assert logprobs() == first  # step 1: the policy moved, the reference did not
    nudge(moving)
    second = logprobs()  # step 2: it is the policy now
    assert second != first
    own = Reference(
        model=moving.policy, identity="p", precision="fp32", cache=None, temperature=1.0, max_tokens=100, device="cpu"
    )
    assert [row.tolist() for row in trained_numbers(own(groups), "ref_logprobs")] == second
    nudge(moving)
    assert logprobs() == second  # step 3


def test_what_a_checkpoint_held_is_put_back(moving: ResetReference, toys) -> None:
    groups = toys.ragged(1, vocab=80)
    assert moving.tensors() == {}
    for _ in range(2):
        moving(groups)
        nudge(moving)
    assert moving.tensors() == {}  # not reset yet: the file it was loaded from has it
    want = trained_numbers(moving(groups), "ref_logprobs")  # reset
    tensors, plain = {n: t.clone() for n, t in moving.tensors().items()}, moving.plain()
    assert tensors and plain == {"calls": 3}
    policy, reference = (prepare(toys.stock("Llama"), say=pytest.fail) for _ in range(2))
    fresh = ResetReference(
        Reference(
            model=reference, identity="m", precision="fp32", cache=None, temperature=1.0, max_tokens=100, device="cpu"
        ),
        policy,
        every=2,
    )
    fresh.restore(tensors, plain)
    got = trained_numbers(fresh(groups), "ref_logprobs")  # step 3: no reset
    assert all((a == b).all() for a, b in zip(got, want, strict=True)) and fresh.calls == 4


def test_a_step_without_groups_counts(moving: ResetReference) -> None:
    moving([])
    moving([])
    assert moving.calls == 2


def test_a_reference_of_another_shape_is_refused_before_anything_runs(moving: ResetReference, toys) -> None:
    """Not at the step where it would be reset, hours later."""
    other = prepare(toys.stock("Llama", intermediate_size=64), say=pytest.fail)
    with pytest.raises(ValueError, match=r"reset_reference_every: the reference and the policy differ in .*weight"):
        ResetReference(moving.reference, other, every=2)
