"""A sampler with weights of its own, refreshed every few steps, as a remote engine's are.

In between the policy moves on and the sampler does not: what it draws is off-policy by a known
number of updates.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from strop.model.forward import LanguageModel
else:
    torch = lazy_module("torch")


@dataclass(slots=True)
class Snapshot:
    """A copy of the policy's weights that is taken anew at every `every`-th step of the loop.

    Attributes:
        policy: the model that is trained.
        updates: how many updates the policy has made so far.
        version: how many it had made when the copy was taken.
        model: the copy, for sampling alone.
    """

    policy: LanguageModel
    updates: Callable[[], int]
    every: int
    version: int = 0
    model: LanguageModel = field(init=False)

    def __post_init__(self) -> None:
        module = copy.deepcopy(self.policy.module).requires_grad_(False)
        self.model = replace(self.policy, module=module, tail=None, value_head=None)

    def refresh(self, step: int) -> None:
        """Take the policy's weights if it is time; to be called before a step is sampled."""
        if step % self.every == 0:
            copy_weights(self.policy.module, self.model.module)
            self.version = self.updates()

    def tensors(self) -> Mapping[str, Tensor]:
        """The copy's weights, for a checkpoint."""
        tensors: Mapping[str, Tensor] = self.model.module.state_dict()
        return tensors

    def plain(self) -> Mapping[str, Any]:
        """Which version they are."""
        return {"version": self.version}

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Put back what a checkpoint held."""
        put_weights(tensors, self.model.module)
        self.version = int(plain["version"])


def copy_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """One module's tensors into another's of the same architecture."""
    put_weights(source.state_dict(), target)


def put_weights(tensors: Mapping[str, Tensor], target: torch.nn.Module) -> None:
    """Tensors by name into a module that has the same names."""
    with torch.no_grad():
        for name, tensor in target.state_dict().items():
            tensor.copy_(tensors[name])
