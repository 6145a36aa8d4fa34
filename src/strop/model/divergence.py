"""How far two models' next-token distributions lie apart along given sequences, over the whole vocabulary.

Logits of both exist for a few tokens at a time only, in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from strop.batch import Batch
from strop.data.encoded import EncodedGroup
from strop.model.forward import LanguageModel, hidden_states, own_logits
from strop.model.sequences import Numbers, sequence_numbers

TILE = 1 << 23
"""Most logits of one model at a time: 32 MiB."""

SERIES = 0.03
"""Below this e^-d - 1 + d is summed by its series: the error of the first term left out is below one of rounding."""

LogSoftmax = Callable[[slice], Tensor]
"""Some of a batch's trained tokens, to log-probs of the whole vocabulary there, fp32."""


def token_divergences(
    model: LanguageModel,
    reference: LanguageModel,
    groups: Sequence[EncodedGroup],
    *,
    temperature: float,
    max_tokens: int,
    device: str,
) -> list[list[Numbers]]:
    """The KL from the model to the reference at every trained token, two ways: [tokens, 2] a sequence, by group.

    First sum_v p(v) (log p(v) - log q(v)), exact given the tokens before; then log p(y) - log q(y) of the token y that
    stands there (k1, one draw of the same). Nats, both distributions at the temperature.

    Raises: ValueError if the two models have vocabularies of different sizes.
    """

    def run(batch: Batch) -> Tensor:
        p, q = (_log_softmax(one, batch, temperature) for one in (model, reference))
        rows = max(1, TILE // vocabulary(model))
        parts = [_apart(p(part), q(part), batch.target[part]) for part in _parts(batch.num_tokens, rows)]
        return torch.cat(parts) if parts else torch.zeros(0, 2)

    sizes = vocabulary(model), vocabulary(reference)
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the models write {sizes[0]} and {sizes[1]} different tokens, so no KL from one to the other is defined"
        )
    return sequence_numbers(run, groups, max_tokens=max_tokens, device=device)


def vocabulary(model: LanguageModel) -> int:
    """How many tokens a model tells probabilities of."""
    return int(model.module.get_output_embeddings().weight.shape[0])


def _log_softmax(model: LanguageModel, batch: Batch, temperature: float) -> LogSoftmax:
    if not model.plain_head:
        with model.autocasting():
            logits = own_logits(model.module, batch)
        return lambda rows: (logits[rows].float() / temperature).log_softmax(-1)
    hidden = hidden_states(model, batch, batch.predictor, batch.seq)
    hidden = hidden if model.autocast is None else hidden.to(model.autocast)
    weight = model.module.get_output_embeddings().weight.to(hidden.dtype)
    return lambda rows: ((hidden[rows] @ weight.t()).float() / temperature).log_softmax(-1)


def _apart(p: Tensor, q: Tensor, target: Tensor) -> Tensor:
    """Both estimates at some tokens, [n, 2], of log-probs [n, V] each.

    With d = log p - log q the sum of p (e^-d - 1 + d) is that of p d, since p and q both sum to 1; but none of its
    terms is negative, so nothing cancels where the two are nearly the same.
    """
    drawn = p > -torch.inf
    d = torch.where(drawn, p - q, 0.0)
    near = torch.where(d.abs() < SERIES, d * d * (0.5 - d / 6 + d * d / 24), torch.expm1(-d.clamp(min=-1)) + d)
    chance, other = p.exp(), q.exp()
    terms = torch.where(drawn & (d.abs() < 1), chance * near, other - chance + chance * d)
    whole = terms.clamp(min=0).sum(-1)
    return torch.stack([whole, (p - q).gather(-1, target.unsqueeze(-1)).squeeze(-1)], -1)


def _parts(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
