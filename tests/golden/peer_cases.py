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
        desirable: how many of the rows are labelled 1, as a share.
        drift: how far the reference lies below the policy on mismatched completions (nats a token).
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: int = 1
    spread: float = 0.4
    columns: tuple[str, ...] = ()
    desirable: float = 0.5
    drift: float = 0.0

    @property
    def method(self) -> str:
        return self.name.split("_")[0]

    def draw(self, generator: torch.Generator, num_sequences: int = 12) -> dict[str, Any]:
        """Fresh inputs: ragged per-token rows of 1 to 8 tokens, whole groups after one another."""
        assert num_sequences % self.group == 0
        if "scores" in self.columns:  # a reward model: one number a sequence, no tokens
            scores = (2 * torch.randn(num_sequences, generator=generator)).tolist()
            margin = torch.rand(num_sequences // self.group, generator=generator).tolist()
            bare = {"group_size": self.group, "scores": scores}
            return {**bare, "margin": margin} if "margin" in self.columns else bare
        lengths = torch.randint(1, 9, (num_sequences,), generator=generator).tolist()
        policy = [-2.5 * torch.rand(n, generator=generator) - 0.01 for n in lengths]
        inputs: dict[str, Any] = {"group_size": self.group, "logprobs": [row.tolist() for row in policy]}
        for name in self.columns:
            if name == "advantages":
                inputs[name] = torch.randn(len(lengths), generator=generator).tolist()
            elif name == "policy_weight":
                inputs[name] = [(2 * torch.rand(n, generator=generator)).tolist() for n in lengths]
            elif name == "labels":
                inputs[name] = (torch.rand(len(lengths), generator=generator) < self.desirable).float().tolist()
            elif name == "mismatched":  # other completions under these prompts, of which only sums are read
                theirs = [-2.5 * torch.rand(n, generator=generator) - 0.01 for n in lengths]
                inputs["kl_logprobs"] = [float(row.sum()) for row in theirs]
                inputs["kl_ref_logprobs"] = [float((row - self.drift).sum()) for row in theirs]
            else:
                moved = [row + self.spread * torch.randn(row.shape, generator=generator) for row in policy]
                inputs[name] = [row.clamp(max=-1e-3).tolist() for row in moved]
        return inputs


def _dpo(name: str, *loss_types: str, beta: float = 0.1, spread: float = 0.4, **settings: Any) -> Case:
    settings = {"loss_types": loss_types, "beta": beta, **settings}
    return Case(f"dpo_{name}", settings, group=2, spread=spread, columns=("ref_logprobs",))


def _kto(name: str, *, drift: float, desirable: float = 0.5, **settings: Any) -> Case:
    settings = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.3, **settings}
    columns = ("ref_logprobs", "labels", "mismatched")
    return Case(f"kto_{name}", settings, columns=columns, desirable=desirable, drift=drift)


def _cpo(name: str, beta: float, **settings: Any) -> Case:
    unset = {"cpo_alpha": 0.0, "label_smoothing": 0.0, "simpo_gamma": 0.0}
    return Case(f"cpo_{name}", {"beta": beta, **unset, **settings}, group=2)


def _grpo(name: str, spread: float = 0.4, columns: tuple[str, ...] = (), **settings: Any) -> Case:
    columns = ("old_logprobs", "advantages", *(("ref_logprobs",) if "beta" in settings else ()), *columns)
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
    _dpo("apo_down", "apo_down"),
    _dpo("sigmoid_and_sft", "sigmoid", "sft", loss_weights=[1.0, 0.2]),
    Case("orpo_odds", {"beta": 0.1}, group=2),
    _cpo("sigmoid", 0.1, loss_type="sigmoid", cpo_alpha=1.0),
    _cpo("smoothed", 0.5, loss_type="sigmoid", label_smoothing=0.1),
    _cpo("simpo", 2.0, loss_type="simpo", simpo_gamma=1.0),
    _cpo("hinge", 1.0, loss_type="hinge"),
    _kto("above", drift=0.3),
    _kto("below", drift=-0.3),
    _kto("desirable", drift=0.2, desirable=1.0),
    _kto("undesirable", drift=0.2, desirable=0.0),
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
    _grpo(
        "gspo_kl",
        spread=0.1,
        loss_type="grpo",
        importance_sampling_level="sequence",
        epsilon_low=0.03,
        epsilon_high=0.04,
        beta=0.04,
    ),
    _grpo("weighted", columns=("policy_weight",), loss_type="dapo", beta=0.04, **_CLIP_HIGHER),
    _grpo("off_policy", loss_type="dapo", off_policy_mask_threshold=0.05, **_CLIP_HIGHER),
    _grpo(
        "off_policy_weighted",
        columns=("policy_weight", "sampler_logprobs"),
        loss_type="grpo",
        off_policy_mask_threshold=0.05,
        **_CLIP_HIGHER,
    ),
    Case("reward_plain", group=2, columns=("scores",)),
    Case("reward_centered", {"center_rewards_coefficient": 0.01}, group=2, columns=("scores",)),
    Case("reward_margin", {"center_rewards_coefficient": 0.1}, group=2, columns=("scores", "margin")),
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
