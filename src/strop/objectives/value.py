"""The critic's objective: a clipped regression to the returns of a rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import TOKEN_MEAN, Batch, Outputs, Reduction, Terms
from strop.lazy import lazy_module
from strop.objectives.ppo import PPO

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """Half the squared error of each token's value, [N]: (V - R)^2 / 2."""
    return (values - returns).square() / 2


def clipped_value_loss(values: Tensor, returns: Tensor, old_values: Tensor, *, clip: float) -> Tensor:
    """PPO's value loss per token: max((V - R)^2, (clip(V, V_old +- clip) - R)^2) / 2.

    Args: values, returns, old_values: [N]; old_values those of the rollout, of which R was made.
    Returns: [N], unreduced. The gradient is 0 where V has moved towards R by more than `clip`.
    As in OpenAI's baselines, TRL and verl; Schulman et al. 2017 do not clip the value.
    """
    bounded = torch.minimum(torch.maximum(values, old_values - clip), old_values + clip)
    return torch.maximum(value_loss(values, returns), value_loss(bounded, returns))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedValue:
    """The critic's loss: mean over all tokens of the optimizer step.

    Attributes:
        clip: values may move by this much a rollout; None does not clip.
        coefficient: weight of the loss, beside the policy's where they share a network.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"returns", "old_values"})
    wants: ClassVar[frozenset[str]] = frozenset({"values"})
    reductions: ClassVar[tuple[Reduction, ...]] = (TOKEN_MEAN,)

    name: Literal["clipped_value"] = "clipped_value"
    clip: float | None = 0.2
    coefficient: float = 0.1

    def __post_init__(self) -> None:
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip must be positive, or null for none, got {self.clip}")
        if self.coefficient <= 0:
            raise ValueError(f"coefficient must be positive, got {self.coefficient}")

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        """Loss [N]; logs TRL's loss/value_avg, without the coefficient, and val/clipfrac_avg."""
        assert outputs.values is not None, "a critic's forward gives values"
        returns = batch.columns["returns"]
        plain = value_loss(outputs.values, returns)
        loss = plain
        if self.clip is not None:
            loss = clipped_value_loss(outputs.values, returns, batch.columns["old_values"], clip=self.clip)
        clipped = (loss > plain).to(loss.dtype)
        return Terms((self.coefficient * loss,), {"loss/value_avg": loss.detach(), "val/clipfrac_avg": clipped})


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOWithValue:
    """Policy and critic on one trunk: both losses in one step.

    Attributes: policy, value: the two objectives; the second's coefficient weighs it against the first.
    """

    needs: ClassVar[frozenset[str]] = PPO.needs | ClippedValue.needs
    wants: ClassVar[frozenset[str]] = PPO.wants | ClippedValue.wants
    reductions: ClassVar[tuple[Reduction, ...]] = (*PPO.reductions, *ClippedValue.reductions)

    policy: PPO = PPO()
    value: ClippedValue = ClippedValue()

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        """Both losses, [N] each, and both objectives' metrics."""
        policy, value = self.policy(outputs, batch), self.value(outputs, batch)
        return Terms((*policy.losses, *value.losses), {**policy.metrics, **value.metrics})
