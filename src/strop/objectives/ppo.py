"""PPO's policy objective: the clipped surrogate under a critic's advantages.

The KL to the reference is in the reward (`token_credit.kl_shaped_rewards`), so none is in the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.batch import TOKEN_MEAN, Batch, Outputs, Reduction, Terms
from strop.objectives.policy import clipped_loss, ratio

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PPO:
    """Proximal policy optimisation, the policy's side: mean over all tokens of the optimizer step.

    Attributes:
        clip: the ratio is clipped to [1 - clip, 1 + clip].
        dual_clip: an upper bound c on the ratio where the advantage is negative too, usually 3, so that
            no one token rules the step (Ye et al. 2020, arXiv:1912.09729, eq. 5); null leaves it unbounded.
        entropy_bonus: this much of the entropy (nats a token) is subtracted from the loss.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"advantages", "old_logprobs"})
    wants: ClassVar[frozenset[str]] = frozenset({"entropy"})
    reductions: ClassVar[tuple[Reduction, ...]] = (TOKEN_MEAN,)

    name: Literal["ppo"] = "ppo"
    clip: float = 0.2
    dual_clip: float | None = None
    entropy_bonus: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.clip < 1:
            raise ValueError(f"clip must be between 0 and 1, got {self.clip}")
        if self.dual_clip is not None and self.dual_clip <= 1 + self.clip:
            raise ValueError(f"dual_clip must be more than 1 + clip (3 is usual), got {self.dual_clip}")
        if self.entropy_bonus < 0:
            raise ValueError(f"entropy_bonus must not be negative, got {self.entropy_bonus}")

    def __call__(self, outputs: Outputs, batch: Batch) -> Terms:
        """Loss [N]; the metrics of TRL's PPOTrainer, means over tokens."""
        advantages, old = batch.columns["advantages"], batch.columns["old_logprobs"]
        rho = ratio(outputs.logprobs, old)
        capped = rho if self.dual_clip is None else rho.clamp(max=self.dual_clip)
        loss = clipped_loss(capped, advantages, clip_low=self.clip, clip_high=self.clip)
        metrics = ppo_metrics(outputs.logprobs.detach(), old, loss.detach(), advantages)
        if outputs.entropy is not None:
            metrics["policy/entropy_avg"] = outputs.entropy.detach()
            if self.entropy_bonus > 0:
                loss = loss - self.entropy_bonus * outputs.entropy
        return Terms((loss,), metrics)


def ppo_metrics(logprobs: Tensor, old_logprobs: Tensor, loss: Tensor, advantages: Tensor) -> dict[str, Tensor]:
    """What the step did to the policy, under TRL's names; each [N].

    approxkl is (log rho)^2 / 2; clipfrac counts tokens where a clip made the loss another; ratio_var
    is the mean of (rho - 1)^2, about the ratio's expectation (TRL: the variance of micro-batch means).
    """
    difference = logprobs - old_logprobs
    rho = ratio(logprobs, old_logprobs)
    return {
        "policy/approxkl_avg": difference.square() / 2,
        "policy/clipfrac_avg": (loss != -rho * advantages).to(loss.dtype),
        "loss/policy_avg": loss,
        "val/ratio": rho,
        "val/ratio_var": (rho - 1).square(),
        "sampling/sampling_logp_difference/mean": difference.abs(),
        "sampling/sampling_logp_difference/max": difference.abs(),
    }
