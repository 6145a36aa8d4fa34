"""The one forward: a packed batch in, per-token numbers out.

The packed path runs the stock backbone over one row [prompt | c1 | c2 | ...] with shared-prefix
attention. The padded path spells every sequence out in a row of its own; it is slower, works for
any causal language model, and is what the packed path is compared with at load.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.batch import Batch, Outputs
from strop.model import attention
from strop.model.logprobs import token_logprobs
from strop.model.tail import only


class Model(Protocol):
    """A network and how it is run: what a learner trains."""

    @property
    def module(self) -> PreTrainedModel: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> torch.dtype: ...
    @property
    def precision_name(self) -> str: ...
    @property
    def path(self) -> Literal["packed", "padded"]: ...
    @property
    def tail(self) -> torch.nn.Module | None: ...
    def autocasting(self) -> AbstractContextManager[None]: ...
    def __call__(self, batch: Batch, *, temperature: float = 1.0, wants: Collection[str] = ()) -> Outputs: ...


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
        value_head: one number a hidden state, for a critic that shares the policy's trunk.
    """

    module: PreTrainedModel
    path: Literal["packed", "padded"] = "packed"
    plain_head: bool = True
    why: str = ""
    tail: torch.nn.Module | None = None
    autocast: torch.dtype | None = None
    value_head: torch.nn.Linear | None = None

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
        return precision_name(self.precision)

    def autocasting(self) -> AbstractContextManager[None]:
        """The context its forwards run in."""
        return autocasting(self.module, self.autocast)

    def __call__(self, batch: Batch, *, temperature: float = 1.0, wants: Collection[str] = ()) -> Outputs:
        return forward(self, batch, temperature=temperature, wants=wants)


def precision_name(kind: torch.dtype) -> str:
    """fp32, bf16, ..."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(kind, str(kind))


def autocasting(module: PreTrainedModel, kind: torch.dtype | None) -> AbstractContextManager[None]:
    """The context a module's forwards run in; `kind` None is the weights' own precision."""
    if kind is None:
        return nullcontext()
    context: AbstractContextManager[None] = torch.autocast(module.device.type, dtype=kind)
    return context


def forward(model: LanguageModel, batch: Batch, *, temperature: float = 1.0, wants: Collection[str] = ()) -> Outputs:
    """Log-probs [N] of the trained tokens, fp32, at the sampling temperature.

    Args: wants: "entropy" and "correct" ask for these numbers, [N]; "values" for those of the value head, [N].
    """
    stats = "entropy" in wants or "correct" in wants
    if not model.plain_head:
        assert "values" not in wants, "a value head reads hidden states, which this model's own head hides"
        with model.autocasting():
            logits = own_logits(model.module, batch)
        return _from_logits(logits.float() / temperature, batch.target, stats)
    hidden = hidden_states(model, batch, batch.predictor, batch.seq)
    values = None
    if "values" in wants:
        assert model.value_head is not None, "no value head"
        values = model.value_head(hidden.float()).squeeze(-1)
    if model.autocast is not None:
        hidden = hidden.to(model.autocast)
    weight = model.module.get_output_embeddings().weight
    logprobs, entropy, correct = token_logprobs(
        hidden, weight.to(hidden.dtype), batch.target, temperature=temperature, stats=stats
    )
    return Outputs(logprobs, entropy if "entropy" in wants else None, correct if "correct" in wants else None, values)


def backbone(module: PreTrainedModel) -> Any:
    """The model without its head."""
    return module.base_model


def hidden_states(model: Model, batch: Batch, positions: Tensor, sequences: Tensor) -> Tensor:
    """Hidden states [M, d] of the backbone.

    Args: positions: [M] packed positions, each on the path of the sequence that `sequences` [M] names.
    """
    with model.autocasting():
        if model.path == "packed":
            return _packed(model, batch, positions)
        ids, mask, column_of = unroll(batch)
        states = backbone(model.module)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        selected: Tensor = states[sequences, column_of[sequences, positions]]
        return selected


def _packed(model: Model, batch: Batch, positions: Tensor) -> Tensor:
    """Hidden states [M, d] at packed positions."""
    length = batch.input_ids.shape[0]
    read = torch.zeros(length, dtype=torch.bool, device=batch.input_ids.device)
    read[positions] = True
    with only(model.tail, read.nonzero().squeeze(-1), length):
        hidden = backbone(model.module)(
            input_ids=batch.input_ids.unsqueeze(0),
            position_ids=batch.position_ids.unsqueeze(0),
            strop_plan=attention.plan(batch.layout, batch.position_ids),
            use_cache=False,
        ).last_hidden_state[0]
    selected: Tensor = hidden.index_select(0, positions)
    return selected


def own_logits(module: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits [N, V] of the trained tokens by the model's own head, one padded row a sequence."""
    ids, mask, column_of = unroll(batch)
    logits: Tensor = module(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[batch.seq, column_of[batch.seq, batch.predictor]]


def unroll(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Every sequence in a right-padded row of its own.

    Returns: ids [S, T], attention mask [S, T], and the column [S, P] of each packed position in a
        sequence's row (0 for positions that are not on its path).
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
    return ids, mask, column_of


def _from_logits(logits: Tensor, target: Tensor, stats: bool) -> Outputs:
    logprobs = logits.log_softmax(-1)
    at_target = logprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    if not stats:
        return Outputs(at_target)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return Outputs(at_target, entropy, (logprobs.argmax(-1) == target).float())
