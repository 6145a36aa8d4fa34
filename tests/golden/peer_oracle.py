"""What TRL says the loss and its gradient are: calls TRL's own methods, holds none of its code.

Each function takes one case's inputs (ragged per-token lists, one list a sequence) and settings,
hands TRL what its trainer would hold, and returns an `Answer`: the loss, the gradient with
respect to every log-probability, and TRL's metrics. TRL computes losses in methods of its
trainers, so they are called unbound on a plain namespace, with a model that returns the
log-probabilities as they stand. Everything runs in float64, so that both precisions of ours can
be held against one number.

Used by `make.py`, which freezes the answers as JSON, and by the live tests; needs `trl`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

Ragged = Sequence[Sequence[float]]
PROMPT_LENGTH = 2
"""Tokens of the pretended prompt: TRL wants some, no loss reads them."""


@dataclass(frozen=True)
class Answer:
    """A peer's loss, its gradient (a list a sequence) and its metrics by the peer's names."""

    loss: float
    grad: list[list[float]]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Padded:
    """Ragged log-probs as a leaf and as the padded matrix [S, C] made from it; mask [S, C]."""

    leaf: Tensor
    matrix: Tensor
    mask: Tensor
    lengths: list[int]

    def answer(self, loss: Tensor, metrics: Mapping[str, Sequence[float]]) -> Answer:
        """The gradient of this loss, unpadded, with the metrics' last values."""
        (grad,) = torch.autograd.grad(loss, self.leaf)
        return Answer(
            loss=float(loss.detach()),
            grad=[part.tolist() for part in torch.split(grad, self.lengths)],
            metrics={name: float(values[-1]) for name, values in sorted(metrics.items())},
        )


def padded(rows: Ragged) -> Padded:
    """One padded matrix of the rows, in float64, differentiable with respect to the flat leaf."""
    lengths = [len(row) for row in rows]
    leaf = torch.tensor([x for row in rows for x in row], dtype=torch.float64, requires_grad=True)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    matrix = leaf.new_zeros(mask.shape).masked_scatter(mask, leaf)
    return Padded(leaf, matrix, mask.long(), lengths)


def sft(inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Answer:
    """SFTTrainer's loss: token mean of -log p, plain or weighted by p (`loss_type`: nll, dft)."""
    from trl import SFTTrainer

    rows = padded(inputs["logprobs"])
    outputs = _model_outputs(rows.matrix, rows.mask)
    trainer = _trainer(
        compute_loss_func=None,
        label_smoother=None,
        current_gradient_accumulation_steps=1,
        args=SimpleNamespace(loss_type=settings["loss_type"], average_tokens_across_devices=False),
    )
    batch = {"input_ids": rows.mask, "attention_mask": rows.mask, "labels": rows.mask}
    loss = SFTTrainer.compute_loss(trainer, lambda **_: outputs, batch)
    return rows.answer(loss, trainer._metrics["train"])


def dpo(inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Answer:
    """DPOTrainer's loss of pairs; sequences stand chosen, rejected, chosen, rejected."""
    from trl import DPOTrainer

    order = _chosen_first(len(inputs["logprobs"]))
    rows = padded(inputs["logprobs"])
    matrix, mask = rows.matrix[order], rows.mask[order]
    reference = _sums(inputs["ref_logprobs"])[order]
    half = len(order) // 2
    trainer = _trainer(
        precompute_ref_logps=True,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        f_alpha_divergence_coef=0.5,
        loss_types=list(settings["loss_types"]),
        loss_weights=list(settings.get("loss_weights", [1.0] * len(settings["loss_types"]))),
        beta=settings["beta"],
        label_smoothing=settings.get("label_smoothing", 0.0),
        use_weighting=False,
        args=SimpleNamespace(discopop_tau=0.05),
    )
    # Column t of TRL's log-probs belongs to token t + 1, so a prompt of two puts one column before.
    before = matrix.new_zeros(len(order), PROMPT_LENGTH - 1)
    outputs = _model_outputs(torch.cat([before, matrix], 1), torch.cat([before.long(), mask], 1))
    completion = torch.cat([torch.zeros(len(order), PROMPT_LENGTH, dtype=torch.long), mask], 1)
    batch = {
        "input_ids": torch.zeros_like(completion),
        "attention_mask": torch.ones_like(completion),
        "completion_mask": completion,
        "ref_chosen_logps": reference[:half],
        "ref_rejected_logps": reference[half:],
    }
    loss = DPOTrainer._compute_loss(trainer, lambda **_: outputs, batch, False)
    return rows.answer(loss, trainer._metrics["train"])


def orpo(inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Answer:
    """ORPOTrainer's loss of pairs, its likelihood term over the chosen completions (TRL gives it prompts too)."""
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    rows = padded(inputs["logprobs"])
    trainer = _trainer(beta=settings["beta"])
    trainer.concatenated_forward = _two_sides(rows, average=True, nll=True)
    trainer.odds_ratio_loss = partial(ORPOTrainer.odds_ratio_loss, trainer)
    loss, metrics = ORPOTrainer.get_batch_loss_metrics(trainer, None, {})
    return rows.answer(loss, {name: [value] for name, value in metrics.items()})


def cpo(inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Answer:
    """CPOTrainer's loss of pairs (`loss_type`: sigmoid, simpo, hinge), which reads averages for SimPO."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    rows = padded(inputs["logprobs"])
    trainer = _trainer(alpha=0.0, **settings)
    average, nll = settings["loss_type"] == "simpo", settings["cpo_alpha"] > 0
    trainer.concatenated_forward = _two_sides(rows, average=average, nll=nll)
    trainer.cpo_loss = partial(CPOTrainer.cpo_loss, trainer)
    loss, metrics = CPOTrainer.get_batch_loss_metrics(trainer, None, {})
    return rows.answer(loss, {name: [value] for name, value in metrics.items()})


def kto(inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Answer:
    """KTOTrainer's loss of labelled rows; the mismatched completions' log-probs are given as sums."""
    from trl import KTOTrainer

    rows = padded(inputs["logprobs"])
    mismatched = torch.tensor(inputs["kl_logprobs"], dtype=torch.float64)
    trainer = _trainer(
        precompute_ref_logps=True,
        calculate_KL=True,
        loss_type="kto",
        _compute_kl_logps=lambda model, batch: mismatched,
        **settings,
    )
    before = rows.matrix.new_zeros(len(rows.lengths), PROMPT_LENGTH - 1)
    outputs = _model_outputs(torch.cat([before, rows.matrix], 1), torch.cat([before.long(), rows.mask], 1))
    completion = torch.cat([torch.zeros(len(rows.lengths), PROMPT_LENGTH, dtype=torch.long), rows.mask], 1)
    batch = {
        "input_ids": torch.zeros_like(completion),
        "attention_mask": torch.ones_like(completion),
        "completion_mask": completion,
        "label": torch.tensor(inputs["labels"]) > 0,
        "ref_logps": _sums(inputs["ref_logprobs"]),
        "ref_KL_logps": torch.tensor(inputs["kl_ref_logprobs"], dtype=torch.float64),
    }
    loss = KTOTrainer._compute_loss(trainer, lambda **_: outputs, batch, False)
    return rows.answer(loss, trainer._metrics["train"])


def reward(inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Answer:
    """RewardTrainer's loss of pairs of scores, with its margin and centring."""
    from trl.trainer.reward_trainer import RewardTrainer

    rows = padded([[score] for score in inputs["scores"]])
    logits = rows.matrix[_chosen_first(len(rows.lengths))]
    trainer = _trainer(args=SimpleNamespace(center_rewards_coefficient=settings.get("center_rewards_coefficient")))
    batch = {"attention_mask": rows.mask}
    if "margin" in inputs:
        batch["margin"] = torch.tensor(inputs["margin"], dtype=torch.float64)
    loss = RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=logits), batch)
    del trainer._metrics["train"]["num_tokens"]
    return rows.answer(loss, trainer._metrics["train"])


def grpo(inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Answer:
    """GRPOTrainer's loss: clipping, KL term, importance level and aggregation by the settings."""
    from trl import GRPOTrainer

    rows = padded(inputs["logprobs"])
    trainer = _trainer(
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=settings.get("off_policy_mask_threshold"),
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
        importance_sampling_level=settings.get("importance_sampling_level", "token"),
        beta=settings.get("beta", 0.0),
        loss_type=settings["loss_type"],
        epsilon_low=settings.get("epsilon_low", 0.2),
        epsilon_high=settings.get("epsilon_high", 0.2),
        use_vllm="policy_weight" in inputs,
        vllm_importance_sampling_correction="policy_weight" in inputs,
        current_gradient_accumulation_steps=1,
        max_completion_length=settings.get("max_completion_length", 0),
        _entropy_bonus_enabled=False,
        _get_per_token_logps_and_entropies=_scorer(rows.matrix),
        args=SimpleNamespace(
            use_bias_correction_kl=settings.get("use_bias_correction_kl", True),
            delta=settings.get("delta"),
            steps_per_generation=1,
        ),
    )
    batch = _rollout(rows, inputs)
    batch["num_items_in_batch"] = rows.mask.sum()
    batch["old_per_token_logps"] = padded(inputs["old_logprobs"]).matrix.detach()
    if "ref_logprobs" in inputs:
        batch["ref_per_token_logps"] = padded(inputs["ref_logprobs"]).matrix.detach()
    if "policy_weight" in inputs:
        batch["importance_sampling_ratio"] = padded(inputs["policy_weight"]).matrix.detach()
    if "sampler_logprobs" in inputs:
        batch["sampling_per_token_logps"] = padded(inputs["sampler_logprobs"]).matrix.detach()
    loss = GRPOTrainer._compute_loss(trainer, None, batch)
    return rows.answer(loss, trainer._metrics["train"])


def rloo(inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Answer:
    """RLOOTrainer's loss: one clipped ratio a sequence, of summed log-probs; mean over sequences."""
    from trl import RLOOTrainer

    rows = padded(inputs["logprobs"])
    trainer = _trainer(
        epsilon_low=settings["epsilon_low"],
        epsilon_high=settings["epsilon_high"],
        _get_per_token_logps_and_entropies=_scorer(rows.matrix),
    )
    batch = _rollout(rows, inputs)
    batch["old_logps"] = _sums(inputs["old_logprobs"])
    loss = RLOOTrainer._compute_loss(trainer, None, batch)
    return rows.answer(loss, trainer._metrics["train"])


ORACLES = {"sft": sft, "dpo": dpo, "orpo": orpo, "cpo": cpo, "kto": kto, "grpo": grpo, "rloo": rloo, "reward": reward}
"""By the first word of a case's name."""


def selected_logprobs(logits: Ragged, targets: Sequence[int], temperature: float) -> dict[str, list[Any]]:
    """TRL's log-softmax at the targets and its entropy, of logits [N, V] at a temperature.

    Returns: logprobs, entropy [N], and grad [N, V], the gradient of the log-probs' sum.
    """
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

    leaf = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    logprobs = selective_log_softmax(leaf, torch.tensor(targets), temperature=temperature)
    (grad,) = torch.autograd.grad(logprobs.sum(), leaf)
    entropy = entropy_from_logits(leaf.detach() / temperature)
    return {"logprobs": logprobs.tolist(), "entropy": entropy.tolist(), "grad": grad.tolist()}


class _Accelerator:
    """One process: gathering and reducing change nothing."""

    device = torch.device("cpu")
    num_processes = 1
    sync_gradients = True
    parallelism_config = None

    def gather(self, x: Tensor) -> Tensor:
        return x if x.ndim else x.reshape(1)

    gather_for_metrics = gather

    def reduce(self, x: Tensor, reduction: str = "sum") -> Tensor:
        return x

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def _trainer(**attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=_Accelerator(),
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **attributes,
    )


def _model_outputs(logprobs: Tensor, mask: Tensor) -> SimpleNamespace:
    zeros = torch.zeros_like(logprobs.detach())
    return SimpleNamespace(
        log_probs=logprobs,
        entropy=zeros,
        mean_logits=zeros,
        is_top1=zeros.bool(),
        label_mask=mask.bool(),
        log_sum_sq_probs=zeros,
        aux_loss=None,
    )


class _Double(Tensor):
    """Log-probs that `.float()` leaves in float64: ORPOTrainer asks for float32, too coarse to hold ours against."""

    def float(self, *_args: Any, **_kwargs: Any) -> Tensor:  # type: ignore[override]
        return self.double()


def _two_sides(rows: Padded, *, average: bool, nll: bool) -> Any:
    """A `concatenated_forward`: each side's log-probs (summed, or averaged), logits, and the chosen side's NLL."""
    order = _chosen_first(len(rows.lengths))
    half = len(order) // 2
    matrix, mask = rows.matrix[order], rows.mask[order]
    logps = (matrix.sum(1) / mask.sum(1) if average else matrix.sum(1)).as_subclass(_Double)
    zero = torch.zeros(half, dtype=torch.float64)
    chosen_nll = -matrix[:half].sum() / mask[:half].sum() if nll else zero.sum()
    return lambda *_: (logps[:half], logps[half:], zero, zero, chosen_nll)


def _scorer(logprobs: Tensor) -> Any:
    def score(*_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor, None]:
        return logprobs, torch.zeros_like(logprobs.detach()), None

    return score


def _rollout(rows: Padded, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    prompt = torch.ones(len(rows.lengths), PROMPT_LENGTH, dtype=torch.long)
    return {
        "prompt_ids": prompt,
        "prompt_mask": prompt,
        "completion_ids": torch.zeros_like(rows.mask),
        "completion_mask": rows.mask,
        "advantages": torch.tensor(inputs["advantages"], dtype=torch.float64),
    }


def _sums(rows: Ragged) -> Tensor:
    return torch.tensor([torch.tensor(row, dtype=torch.float64).sum() for row in rows], dtype=torch.float64)


def _chosen_first(num_sequences: int) -> list[int]:
    """TRL's order of pairs: every chosen sequence, then every rejected one."""
    return [*range(0, num_sequences, 2), *range(1, num_sequences, 2)]


warnings.filterwarnings("ignore", category=FutureWarning, module="trl")
