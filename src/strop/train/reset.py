"""A reference that moves: every so many steps it becomes the policy as it then is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strop.data.encoded import EncodedGroup
from strop.model.forward import Model
from strop.rollout.stale import copy_weights, put_weights
from strop.train.annotate import Reference

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class ResetReference:
    """A reference whose weights are replaced by the policy's before every `every`-th step of the loop.

    The KL then holds the policy near where it was lately, not near where it began; without that a
    long run stands still once it is as far away as beta lets it. DeepSeek-R1 (arXiv:2501.12948)
    resets every 400 steps, ProRL (arXiv:2505.24864) when progress stalls.

    Attributes: calls: steps so far, one call each.
    Raises: ValueError if the two models' tensors differ in name or shape.
    """

    reference: Reference
    policy: Model
    every: int
    calls: int = 0

    def __post_init__(self) -> None:
        mine, theirs = (
            {(name, tensor.shape) for name, tensor in model.module.state_dict().items()}
            for model in (self.policy, self.reference.model)
        )
        if differ := sorted(name for name, _ in mine ^ theirs):
            raise ValueError(f"reset_reference_every: the reference and the policy differ in {differ[0]}")

    def __call__(self, groups: Sequence[EncodedGroup]) -> tuple[EncodedGroup, ...]:
        """The same groups with a `ref_logprobs` column, of the reference as it is now."""
        if self.calls and self.calls % self.every == 0:
            copy_weights(self.policy.module, self.reference.model.module)
        self.calls += 1
        return self.reference(groups)

    def tensors(self) -> Mapping[str, Tensor]:
        """The reference's weights, for a checkpoint; none while they are those that it was loaded with."""
        if self.calls <= self.every:
            return {}
        tensors: Mapping[str, Tensor] = self.reference.model.module.state_dict()
        return tensors

    def plain(self) -> Mapping[str, Any]:
        """How many steps there were."""
        return {"calls": self.calls}

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Put back what a checkpoint held."""
        self.calls = int(plain["calls"])
        if tensors:
            put_weights(tensors, self.reference.model.module)
