"""The weight of the KL in the reward: held fixed, or steered so that the KL stays near a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedKL:
    """One weight for the whole stage.

    Attributes: coefficient: beta; 0 needs no reference model.
    """

    name: Literal["fixed"] = "fixed"
    coefficient: float = 0.05

    def __post_init__(self) -> None:
        if self.coefficient < 0:
            raise ValueError(f"coefficient must not be negative, got {self.coefficient}")

    def __call__(self, coefficient: float, *, kl: float, num_sequences: int) -> float:
        """The next step's weight: the same."""
        return coefficient


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveKL:
    """A weight that rises while the KL is above its target and falls while it is below.

    Attributes:
        coefficient: beta of the first step.
        target: KL(policy || reference), nats a sequence.
        horizon: sequences in which the weight changes by the error's share, at most a fifth.
    """

    name: Literal["adaptive"] = "adaptive"
    coefficient: float = 0.2
    target: float = 6.0
    horizon: int = 10_000

    def __post_init__(self) -> None:
        for field_, value in (("coefficient", self.coefficient), ("target", self.target), ("horizon", self.horizon)):
            if value <= 0:
                raise ValueError(f"{field_} must be positive, got {value}")

    def __call__(self, coefficient: float, *, kl: float, num_sequences: int) -> float:
        """The next step's weight: beta (1 + e n / horizon), with e = clip(kl / target - 1, +-0.2).

        Args: kl: the rollout's mean over its sequences, nats; num_sequences: n, on all ranks.
        Ziegler et al. 2019, arXiv:1909.08593, section 2.2; K_beta = n / horizon as in their code.
        """
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        return coefficient * (1 + error * num_sequences / self.horizon)


KLSettings = FixedKL | AdaptiveKL


@dataclass(slots=True)
class KLControl:
    """The weight as of now; part of a checkpoint."""

    settings: KLSettings
    coefficient: float = field(init=False)

    def __post_init__(self) -> None:
        self.coefficient = self.settings.coefficient

    @property
    def wants_reference(self) -> bool:
        """Whether the KL counts, so that somebody must know the reference's log-probs."""
        return self.settings.coefficient > 0

    def update(self, *, kl: float, num_sequences: int) -> None:
        """Take in a rollout's KL (nats a sequence); the weight is the next rollout's."""
        self.coefficient = self.settings(self.coefficient, kl=kl, num_sequences=num_sequences)

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: a float is kept in the plain state, exactly."""
        return {}

    def plain(self) -> dict[str, Any]:
        """The weight."""
        return {"coefficient": self.coefficient}

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Put back what was saved."""
        self.coefficient = float(plain["coefficient"])
