"""Our losses and gradients against a peer's: frozen answers as JSON, and fresh ones where TRL is installed.

Both precisions of ours are held against the peer's float64: 1e-9 in float64, 1e-5 in float32.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # the two files beside this one, which make.py shares
from peer_cases import CASES, Case

from strop.batch import Batch, Layout, Outputs, step_totals, weighted_loss
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pack import pack
from strop.model.forward import forward
from strop.model.load import prepare
from strop.model.logprobs import token_logprobs
from strop.objectives import (
    CISPO,
    CPO,
    DPO,
    GRPO,
    GSPO,
    IPO,
    KTO,
    ORPO,
    RLOO,
    SFT,
    APODown,
    APOZero,
    BradleyTerry,
    DPONorm,
    Hinge,
    Objective,
    RefFreeDPO,
    RobustDPO,
    SimPO,
    SLiC,
)
from strop.train.metrics import MetricSums

FILES = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.json"))}
CASES_BY_NAME = {case.name: case for case in CASES}

OURS: Mapping[str, Objective] = {
    "sft_nll": SFT(),
    "dpo_sigmoid": DPO(beta=0.1),
    "dpo_ipo": IPO(tau=0.1),
    "dpo_hinge": Hinge(beta=1.0),
    "dpo_sigmoid_and_sft": DPO(beta=0.1, nll_weight=0.2),
    "dpo_robust": RobustDPO(beta=0.1, label_smoothing=0.1),
    "dpo_sigmoid_norm": DPONorm(beta=5.0),
    "dpo_apo_zero": APOZero(beta=0.1),
    "dpo_apo_down": APODown(beta=0.1),
    "orpo_odds": ORPO(weight=0.1),
    "cpo_sigmoid": CPO(beta=0.1),
    "cpo_smoothed": RefFreeDPO(beta=0.5, label_smoothing=0.1),
    "cpo_simpo": SimPO(beta=2.0, gamma=1.0),
    "cpo_hinge": SLiC(delta=1.0, regularization=0.0),
    **{f"kto_{name}": KTO(undesirable_weight=1.3) for name in ("above", "below", "desirable", "undesirable")},
    "grpo_sequence_mean": GRPO(aggregate="sequence"),
    "grpo_dapo": GRPO(),
    "grpo_bnpo": GRPO(),  # one micro-batch: the local token mean is the step's
    "grpo_dr_grpo": GRPO(aggregate="constant", constant_length=12),
    "grpo_kl": GRPO(aggregate="sequence", clip_high=0.2, beta=0.04, kl="k3"),
    "grpo_kl_corrected": GRPO(clip_high=0.2, beta=0.04, kl="ratio_k3"),
    "grpo_two_sided": GRPO(delta=1.5),
    "grpo_gspo": GSPO(),
    "grpo_gspo_kl": GSPO(clip_low=0.03, clip_high=0.04, beta=0.04),
    "grpo_cispo": CISPO(cap=2.0),
    "grpo_weighted": GRPO(beta=0.04, weighted=True),
    "grpo_off_policy": GRPO(off_policy_delta=0.05),
    "grpo_off_policy_weighted": GRPO(aggregate="sequence", off_policy_delta=0.05, weighted=True),
    "rloo": RLOO(),
    "reward_plain": BradleyTerry(label_smoothing=0.0, center_rewards_coefficient=0.0),
    "reward_centered": BradleyTerry(label_smoothing=0.0),
    "reward_margin": BradleyTerry(label_smoothing=0.0, center_rewards_coefficient=0.1, margin=True),
}
"""Our settings for the peer's; what each means is in the case."""

NOT_OURS_YET = {
    "sft_dft": "no DFT",
}
"""Answers frozen ahead of the method; take the line away with the commit that brings it."""

PAIRED = (
    "logps/chosen",
    "logps/rejected",
    "rewards/accuracies",
    "rewards/chosen",
    "rewards/margins",
    "rewards/rejected",
)

METRICS = {
    "dpo": PAIRED,
    "cpo": PAIRED,
    "cpo_sigmoid": (*PAIRED, "nll_loss"),
    "orpo": (*PAIRED, "nll_loss", "log_odds_ratio", "log_odds_chosen"),
    "kto": ("kl", "logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected"),
    "reward": ("accuracy", "margin", "max_reward", "mean_reward", "min_reward"),
    "kto_desirable": ("kl", "logps/chosen", "rewards/chosen"),
    "kto_undesirable": ("kl", "logps/rejected", "rewards/rejected"),
    "grpo": ("clip_ratio/high_mean", "clip_ratio/low_mean", "clip_ratio/region_mean"),
    "grpo_kl": ("kl", "clip_ratio/high_mean", "clip_ratio/low_mean", "clip_ratio/region_mean"),
    "grpo_cispo": ("cispo_clip_ratio",),
    "rloo": ("clip_ratio/high_mean", "clip_ratio/low_mean", "clip_ratio/region_mean"),
}
"""Metrics that must agree, by case, else by method. TRL logs `kl` with its ratio where it is corrected; we never do."""

needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed")


def test_every_frozen_answer_is_a_case_and_every_case_is_ours_or_named_as_missing() -> None:
    frozen = {name for name in FILES if not name.startswith("logsoftmax")}
    assert frozen == set(CASES_BY_NAME)
    assert not set(OURS) & set(NOT_OURS_YET)
    assert set(OURS) | set(NOT_OURS_YET) == frozen


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", sorted(CASES_BY_NAME))
def test_frozen(name: str, dtype: torch.dtype) -> None:
    if name in NOT_OURS_YET:
        pytest.skip(NOT_OURS_YET[name])
    peer = json.loads(FILES[name].read_text())
    assert peer["settings"] == json.loads(json.dumps(CASES_BY_NAME[name].settings)), "run make.py again"
    compare(CASES_BY_NAME[name], peer["inputs"], peer["loss"], peer["grad"], peer["metrics"], dtype)


@needs_trl
@pytest.mark.parametrize("name", sorted(OURS))
def test_live(name: str) -> None:
    from peer_oracle import ORACLES

    seed = secrets.randbits(32)
    case = CASES_BY_NAME[name]
    inputs = case.draw(torch.Generator().manual_seed(seed), num_sequences=20)
    answer = ORACLES[case.method](inputs, case.settings)
    print(f"seed {seed}")  # shown when the comparison fails
    compare(case, inputs, answer.loss, answer.grad, answer.metrics, torch.float64)


@pytest.mark.parametrize("path", [p for n, p in FILES.items() if n.startswith("logsoftmax")], ids=lambda p: p.stem)
def test_head_frozen(path: Path) -> None:
    """Logits pass through our head unchanged when they are the hidden states and the weight is the identity."""
    peer = json.loads(path.read_text())
    logits = torch.tensor(peer["inputs"]["logits"], requires_grad=True)
    targets = torch.tensor(peer["inputs"]["targets"])
    temperature = peer["settings"]["temperature"]
    logprobs, entropy, correct = token_logprobs(
        logits, torch.eye(logits.shape[1]), targets, temperature=temperature, stats=True
    )
    (gradient,) = torch.autograd.grad(logprobs.sum(), logits)
    for ours, theirs in ((logprobs, peer["logprobs"]), (entropy, peer["entropy"]), (gradient, peer["grad"])):
        torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-5, atol=1e-5)
    assert correct.tolist() == (logits.argmax(-1) == targets).float().tolist()


@needs_trl
def test_live_model() -> None:
    """A whole model's log-probs and parameter gradients: our packed rows, TRL's padded rows and fused head."""
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
    )  # fmt: skip
    theirs = Qwen3ForCausalLM(config)
    module = copy.deepcopy(theirs)
    prompts = [torch.randint(97, (n,)).tolist() for n in (5, 9)]
    answers = [[torch.randint(97, (n,)).tolist() for n in row] for row in ((4, 7), (1, 3))]
    groups = [
        EncodedGroup(tuple(p), tuple(EncodedSequence(tuple(c), (True,) * len(c)) for c in row))
        for p, row in zip(prompts, answers, strict=True)
    ]
    model = prepare(module)
    assert model.path == "packed"
    (batch,) = pack(groups, max_tokens=1_000).batches
    outputs = forward(model, batch)
    torch.autograd.backward(-outputs.logprobs.mean())

    rows = [(p, c) for p, row in zip(prompts, answers, strict=True) for c in row]
    ids, mask, labels = padded_rows(rows)
    add_fused_lm_head(theirs)
    result = theirs(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    torch.autograd.backward(result.loss)

    # Our sequences stand in the packer's order; their targets tell which is which.
    expected = {tuple(c): result.log_probs[i][labels[i, 1:] != -100] for i, (_, c) in enumerate(rows)}
    for s in range(batch.num_sequences):
        own = batch.seq == s
        theirs_of_it = expected[tuple(batch.target[own].tolist())]
        torch.testing.assert_close(outputs.logprobs[own], theirs_of_it, rtol=0, atol=1e-5)
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in module.named_parameters():
        scale = float(gradients[name].abs().max())
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


def padded_rows(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(prompt, answer) pairs right-padded: ids, attention mask, and labels that are -100 off the answers."""
    ids = torch.zeros(len(rows), max(len(p) + len(c) for p, c in rows), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (p, c) in enumerate(rows):
        ids[i, : len(p) + len(c)] = torch.tensor(p + c)
        mask[i, : len(p) + len(c)] = 1
        labels[i, len(p) : len(p) + len(c)] = torch.tensor(c)
    return ids, mask, labels


def compare(
    case: Case,
    inputs: Mapping[str, Any],
    loss: float,
    grad: list[list[float]],
    metrics: Mapping[str, float],
    dtype: torch.dtype,
) -> None:
    """Our loss, gradient and shared metrics against the peer's."""
    objective = OURS[case.name]
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    batch, logprobs = batch_of(inputs, dtype)
    terms = objective(Outputs(logprobs, scores=logprobs if "scores" in inputs else None), batch)
    ours = weighted_loss(terms, batch, objective.reductions, step_totals(objective.reductions, [batch]))
    (gradient,) = torch.autograd.grad(ours, logprobs)
    assert ours.item() == pytest.approx(loss, rel=tolerance, abs=tolerance)
    expected = torch.tensor([x for row in grad for x in row], dtype=dtype)
    torch.testing.assert_close(gradient, expected, rtol=tolerance, atol=tolerance)
    for name in METRICS.get(case.name, METRICS.get(case.method, ())):
        sums = MetricSums()
        sums.add(name, terms.metrics[name])
        assert sums.result()[name] == pytest.approx(metrics[name], rel=1e-5, abs=1e-6)


def batch_of(inputs: Mapping[str, Any], dtype: torch.dtype) -> tuple[Batch, torch.Tensor]:
    """The micro-batch of a case's ragged rows, and its log-probs as a leaf [N], or its scores [S]."""
    rows = inputs["logprobs"] if "logprobs" in inputs else [[score] for score in inputs["scores"]]
    lengths = torch.tensor([len(row) for row in rows])
    seq = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    num_tokens, size = len(seq), inputs["group_size"]
    columns = {}
    for name in ("ref_logprobs", "old_logprobs", "sampler_logprobs", "policy_weight"):
        if name in inputs:
            columns[name] = torch.tensor([x for row in inputs[name] for x in row], dtype=dtype)
    for name in ("labels", "margin"):
        if name in inputs:
            columns[name] = torch.tensor(inputs[name], dtype=dtype)
    if "kl_logprobs" in inputs:
        policy, reference = (torch.tensor(inputs[name], dtype=dtype) for name in ("kl_logprobs", "kl_ref_logprobs"))
        columns["kl_baseline"] = (policy - reference).mean().clamp(min=0).expand(len(rows))
    if "advantages" in inputs:
        columns["advantages"] = torch.tensor(inputs["advantages"], dtype=dtype)[seq]
    tokens = torch.arange(num_tokens)
    batch = Batch(
        input_ids=tokens,
        position_ids=tokens,
        layout=Layout((0,), (num_tokens,), (-1,), (0,) * len(rows)),
        predictor=tokens,
        position=tokens,
        target=tokens,
        seq=seq,
        group=torch.arange(len(rows)) // size,
        place=torch.arange(len(rows)) % size,
        last=lengths.cumsum(0) - 1,
        num_groups=len(rows) // size,
        columns=columns,
    )
    return batch, torch.tensor([x for row in rows for x in row], dtype=dtype, requires_grad=True)
