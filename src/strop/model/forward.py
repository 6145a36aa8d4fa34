"""The one forward: a packed batch in, per-token numbers out.

The packed path runs the stock backbone over one row [prompt | c1 | c2 | ...] with shared-prefix
attention. The padded path spells every sequence out in a row of its own; it is slower, works for
any causal language model, and is what the packed path is compared with at load.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.batch import Batch, Outputs
from strop.model import attention
from strop.model.logprobs import token_logprobs
from strop.model.tail import only


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A stock transformers causal language model and how it is run.

    Attributes:
        path: packed (shared prompts) or padded.
        plain_head: logits are hidden states times the output embedding, nothing more; otherwise
            the model's own head is called and its logits of the trained positions exist at once.
        why: why the padded path or the model's own head is used; empty where neither is.
        tail: the last layer's feed-forward block, where it may be run on part of the rows.
        autocast: dtype of the matrix products where the weights are kept in fp32; None: the weights' own.
    """

    module: PreTrainedModel
    path: Literal["packed", "padded"] = "packed"
    plain_head: bool = True
    why: str = ""
    tail: torch.nn.Module | None = None
    autocast: torch.dtype | None = None

    @property
    def device(self) -> str:
        return str(self.module.device)

    @property
    def precision(self) -> torch.dtype:
        """What the matrix products run in."""
        return self.autocast or self.module.dtype

    @property
    def precision_name(self) -> str:
        """fp32, bf16, ..."""
        return {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(self.precision, str(self.precision))

    def autocasting(self) -> AbstractContextManager[None]:
        """The context its forwards run in."""
        if self.autocast is None:
            return nullcontext()
        context: AbstractContextManager[None] = torch.autocast(self.module.device.type, dtype=self.autocast)
        return context


def forward(model: LanguageModel, batch: Batch, *, temperature: float = 1.0, wants: Collection[str] = ()) -> Outputs:
    """Log-probs [N] of the trained tokens, fp32, at the sampling temperature.

    Args: wants: "entropy" and "correct" ask for these numbers, [N].
    """
    stats = bool(wants)
    if not model.plain_head:
        with model.autocasting():
            logits = _padded(model.module, batch, head=True)
        return _from_logits(logits.float() / temperature, batch.target, stats)
    with model.autocasting():
        hidden = _packed(model, batch) if model.path == "packed" else _padded(model.module, batch, head=False)
    if model.autocast is not None:
        hidden = hidden.to(model.autocast)
    weight = model.module.get_output_embeddings().weight
    logprobs, entropy, correct = token_logprobs(
        hidden, weight.to(hidden.dtype), batch.target, temperature=temperature, stats=stats
    )
    return Outputs(logprobs, entropy if "entropy" in wants else None, correct if "correct" in wants else None)


def backbone(module: PreTrainedModel) -> Any:
    """The model without its head."""
    return module.base_model


def _packed(model: LanguageModel, batch: Batch) -> Tensor:
    """Hidden states [N, d] that predict the trained tokens."""
    length = batch.input_ids.shape[0]
    read = torch.zeros(length, dtype=torch.bool, device=batch.input_ids.device)
    read[batch.predictor] = True
    with only(model.tail, read.nonzero().squeeze(-1), length):
        hidden = backbone(model.module)(
            input_ids=batch.input_ids.unsqueeze(0),
            position_ids=batch.position_ids.unsqueeze(0),
            strop_plan=attention.plan(batch.layout, batch.position_ids),
            use_cache=False,
        ).last_hidden_state[0]
    selected: Tensor = hidden.index_select(0, batch.predictor)
    return selected


def _padded(module: PreTrainedModel, batch: Batch, *, head: bool) -> Tensor:
    """Hidden states [N, d], or logits [N, V], by one padded row a sequence."""
    ids, mask, row, column = unroll(batch)
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    if head:
        logits: Tensor = module(**inputs).logits[row, column]
        return logits
    hidden: Tensor = backbone(module)(**inputs).last_hidden_state[row, column]
    return hidden


def unroll(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every sequence in a right-padded row of its own.

    Returns: ids [S, T], attention mask [S, T], and the row and column [N] of each trained
        token's predictor.
    """
    layout = batch.layout
    spans = [[(layout.start[i], layout.length[i]) for i in layout.path(leaf)] for leaf in layout.leaf]
    longest = max(sum(length for _, length in path) for path in spans)
    device = batch.input_ids.device
    ids = torch.zeros(len(spans), longest, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    column_of = torch.zeros(len(spans), batch.input_ids.shape[0], dtype=torch.long, device=device)
    for row, path in enumerate(spans):
        at = 0
        for start, length in path:
            ids[row, at : at + length] = batch.input_ids[start : start + length]
            column_of[row, start : start + length] = torch.arange(at, at + length, device=device)
            at += length
        mask[row, :at] = 1
    return ids, mask, batch.seq, column_of[batch.seq, batch.predictor]


def _from_logits(logits: Tensor, target: Tensor, stats: bool) -> Outputs:
    logprobs = logits.log_softmax(-1)
    at_target = logprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    if not stats:
        return Outputs(at_target)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return Outputs(at_target, entropy, (logprobs.argmax(-1) == target).float())
