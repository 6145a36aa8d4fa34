"""The cases held against a peer: what is computed, with which settings, on which random inputs.

A case's inputs are drawn from a generator, so that `make.py` can freeze one draw and the live
tests can make another. Numbers are drawn in float32 and stored as they are; float64 reads them
without loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Case:
    """One computation of a peer.

    Attributes:
        name: method, then variant; the first word picks the peer's function.
        settings: in the peer's words.
        group: completions a prompt (2 for pairs).
        spread: how far the old and the reference policies' log-probs lie from the policy's (nats).
        columns: recorded columns the case reads.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: int = 1
    spread: float = 0.4
    columns: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        return self.name.split("_")[0]

    def draw(self, generator: torch.Generator, num_sequences: int = 12) -> dict[str, Any]:
        """Fresh inputs: ragged per-token rows of 1 to 8 tokens, whole groups after one another."""
        assert num_sequences % self.group == 0
        lengths = torch.randint(1, 9, (num_sequences,), generator=generator).tolist()
        policy = [-2.5 * torch.rand(n, generator=generator) - 0.01 for n in lengths]
        inputs: dict[str, Any] = {"group_size": self.group, "logprobs": [row.tolist() for row in policy]}
        for name in self.columns:
            if name == "advantages":
                inputs[name] = torch.randn(len(lengths), generator=generator).tolist()
            else:
                moved = [row + self.spread * torch.randn(row.shape, generator=generator) for row in policy]
                inputs[name] = [row.clamp(max=-1e-3).tolist() for row in moved]
        return inputs


def _dpo(name: str, *loss_types: str, beta: float = 0.1, spread: float = 0.4, **settings: Any) -> Case:
    settings = {"loss_types": loss_types, "beta": beta, **settings}
    return Case(f"dpo_{name}", settings, group=2, spread=spread, columns=("ref_logprobs",))


def _grpo(name: str, spread: float = 0.4, **settings: Any) -> Case:
    columns = ("old_logprobs", "advantages", *(("ref_logprobs",) if "beta" in settings else ()))
    return Case(f"grpo_{name}", settings, group=4, spread=spread, columns=columns)


_CLIP_HIGHER = {"epsilon_low": 0.2, "epsilon_high": 0.28}

CASES = (
    Case("sft_nll", {"loss_type": "nll"}),
    Case("sft_dft", {"loss_type": "dft"}),
    _dpo("sigmoid", "sigmoid"),
    _dpo("ipo", "ipo"),
    _dpo("hinge", "hinge", beta=1.0, spread=1.0),
    _dpo("robust", "robust", label_smoothing=0.1),
    _dpo("sigmoid_norm", "sigmoid_norm", beta=5.0),
    _dpo("apo_zero", "apo_zero"),
    _dpo("sigmoid_and_sft", "sigmoid", "sft", loss_weights=[1.0, 0.2]),
    _grpo("sequence_mean", loss_type="grpo", **_CLIP_HIGHER),
    _grpo("dapo", loss_type="dapo", **_CLIP_HIGHER),
    _grpo("bnpo", loss_type="bnpo", **_CLIP_HIGHER),
    _grpo("dr_grpo", loss_type="dr_grpo", max_completion_length=12, **_CLIP_HIGHER),
    _grpo("two_sided", loss_type="dapo", delta=1.5, **_CLIP_HIGHER),
    _grpo("kl", loss_type="grpo", beta=0.04, use_bias_correction_kl=False),
    _grpo("kl_corrected", loss_type="dapo", beta=0.04, use_bias_correction_kl=True),
    _grpo(
        "gspo",
        spread=1e-3,
        loss_type="grpo",
        importance_sampling_level="sequence",
        epsilon_low=3e-4,
        epsilon_high=4e-4,
    ),
    _grpo("cispo", spread=1.0, loss_type="cispo", epsilon_high=2.0),
    Case(
        "rloo",
        {"epsilon_low": 0.2, "epsilon_high": 0.2},
        group=4,
        spread=0.1,
        columns=("old_logprobs", "advantages"),
    ),
)


def draw_logits(generator: torch.Generator, rows: int = 6, vocabulary: int = 11) -> tuple[Any, list[int]]:
    """Logits [rows, vocabulary] and target ids, for the log-softmax and entropy helpers."""
    logits = 3.0 * torch.randn(rows, vocabulary, generator=generator)
    return logits.tolist(), torch.randint(0, vocabulary, (rows,), generator=generator).tolist()
