"""Small groups of random tokens, a toy model in float64, and tiny stock models; all functions of their seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strop.batch import Batch, Outputs, step_totals, weighted_loss
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pack import pack
from strop.objectives import Objective

VOCAB = 13


def tokens(random: np.random.Generator, length: int, vocab: int = VOCAB) -> tuple[int, ...]:
    """So many random token ids."""
    return tuple(int(i) for i in random.integers(vocab, size=length))


def group(prompt: Sequence[int], *completions: Sequence[int], **columns: float) -> EncodedGroup:
    """A group whose completions are trained in full."""
    sequences = tuple(EncodedSequence(tuple(c), (True,) * len(c)) for c in completions)
    return EncodedGroup(tuple(prompt), sequences, columns)


def ragged(
    seed: int, *, num_groups: int = 5, sizes: Sequence[int] = (2,), vocab: int = VOCAB, longest: int = 9
) -> list[EncodedGroup]:
    """Groups of unlike lengths, some tokens untrained, one group without a prompt, some completions sharing a stem."""
    random = np.random.default_rng(seed)
    out = []
    for number in range(num_groups):
        stem = tokens(random, 4, vocab) if number % 2 else ()
        sequences = []
        for _ in range(sizes[number % len(sizes)]):
            ids = stem + tokens(random, int(random.integers(2, longest)), vocab)
            trained = random.random(len(ids)) < 0.7
            trained[-1] = True
            sequences.append(EncodedSequence(ids, tuple(bool(t) for t in trained)))
        prompt = () if number == 2 else tokens(random, int(random.integers(1, 6)), vocab)
        out.append(EncodedGroup(prompt, tuple(sequences)))
    return out


TOKEN_COLUMNS = {"ref_logprobs", "old_logprobs", "sampler_logprobs"}
CREDIT_COLUMNS = {"advantages"}
VALUE_COLUMNS = {"old_values", "returns"}
WEIGHT_COLUMNS = {"policy_weight"}
MARK_COLUMNS = {"content"}
LABEL_COLUMNS = {"labels"}
STEP_LABEL_COLUMNS = {"step_labels"}
GROUP_COLUMNS = {"margin", "probability"}
RANKED = {"all_pairs", "plackett_luce"}  # objectives that compare more than two
STEP_COLUMNS = {"kl_baseline"}  # one number for the whole step


def with_columns(groups: Sequence[EncodedGroup], needs: frozenset[str], seed: int) -> list[EncodedGroup]:
    """The groups with random numbers under every name that an objective needs."""
    unknown = needs - TOKEN_COLUMNS - CREDIT_COLUMNS - VALUE_COLUMNS - WEIGHT_COLUMNS - MARK_COLUMNS
    unknown = unknown - LABEL_COLUMNS - STEP_LABEL_COLUMNS - STEP_COLUMNS - GROUP_COLUMNS
    assert not unknown, f"tests/toys.py draws no column {sorted(unknown)}: say there what it is made of"
    random = np.random.default_rng(seed)

    def draw(sequence: EncodedSequence) -> EncodedSequence:
        columns: dict[str, float | tuple[float, ...]] = {}
        for name in sorted(needs & TOKEN_COLUMNS):
            numbers = np.where(sequence.trained, random.normal(-2.5, 0.6, len(sequence.ids)), np.nan)
            columns[name] = tuple(numbers.tolist())
        for name in sorted(needs & CREDIT_COLUMNS):
            columns[name] = (float(random.normal()),) * len(sequence.ids)
        for name in sorted(needs & VALUE_COLUMNS):
            columns[name] = tuple(random.normal(0.0, 0.6, len(sequence.ids)).tolist())
        for name in sorted(needs & WEIGHT_COLUMNS):
            columns[name] = tuple(random.uniform(0.1, 1.9, len(sequence.ids)).tolist())
        for name in sorted(needs & MARK_COLUMNS):
            columns[name] = tuple(float(m) for m in random.random(len(sequence.ids)) < 0.8)
        for name in sorted(needs & LABEL_COLUMNS):
            columns[name] = float(random.random() < 0.5)
        for name in sorted(needs & STEP_LABEL_COLUMNS):
            columns[name] = tuple((random.integers(5, size=len(sequence.ids)) / 4).tolist())
        for name in sorted(needs & STEP_COLUMNS):
            columns[name] = 0.7
        return replace(sequence, columns=columns)

    drawn = [replace(g, sequences=tuple(draw(s) for s in g.sequences)) for g in groups]
    return [replace(g, columns={n: float(random.random()) for n in sorted(needs & GROUP_COLUMNS)}) for g in drawn]


@dataclass(frozen=True)
class ToyModel:
    """Logits tanh(sum over the tokens so far of table[token] * place[position]) @ head, float64.

    A token's logits depend on every token before it on its own path, and on nothing else, so a
    wrong predictor, parent or position shows.
    """

    table: Tensor
    place: Tensor
    head: Tensor

    @property
    def parameters(self) -> list[Tensor]:
        return [self.table, self.place, self.head]

    def __call__(self, batch: Batch) -> Outputs:
        from strop.model.forward import unroll

        ids, mask, column_of = unroll(batch)
        row, column = batch.seq, column_of[batch.seq, batch.predictor]
        steps = self.table[ids] * self.place[: ids.shape[1]] * mask.unsqueeze(-1)
        states = torch.tanh(steps.cumsum(1)[row, column])
        logits = states @ self.head
        logprobs = logits.log_softmax(-1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        correct = (logprobs.argmax(-1) == batch.target).double()
        at_target = logprobs.gather(-1, batch.target.unsqueeze(-1)).squeeze(-1)
        ends = torch.bincount(batch.seq).cumsum(0) - 1
        scores = states[ends] @ self.head[:, 1]
        return Outputs(at_target, entropy, correct, values=states @ self.head[:, 0], scores=scores)


def toy_model(seed: int = 0, width: int = 6, longest: int = 200) -> ToyModel:
    """A toy model with random parameters that want gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    return ToyModel(draw(VOCAB, width), draw(longest, width), draw(width, VOCAB))


def gradients(
    model: ToyModel, objective: Objective, batches: Sequence[Batch], totals: Sequence[float] | None = None
) -> tuple[float, list[Tensor]]:
    """A step's loss and its gradient in every parameter, micro-batch by micro-batch as the learner does it."""
    totals = step_totals(objective.reductions, batches) if totals is None else totals
    total, grads = 0.0, [torch.zeros_like(p) for p in model.parameters]
    for batch in batches:
        loss = weighted_loss(objective(model(batch), batch), batch, objective.reductions, totals)
        for grad, part in zip(grads, torch.autograd.grad(loss, model.parameters), strict=True):
            grad += part
        total += float(loss.detach())
    return total, grads


def one_batch(groups: Sequence[EncodedGroup], **settings: Any) -> Batch:
    """All groups in one micro-batch."""
    (batch,) = pack(groups, max_tokens=1 << 30, **settings).batches
    return batch


def step_of(objective: Objective, seed: int = 0, num_groups: int = 5) -> list[EncodedGroup]:
    """Groups with the columns an objective needs: pairs where it compares two, else groups of unlike size."""
    paired = any(reduction.unit == "group" for reduction in objective.reductions)
    sizes = (2, 4, 3) if getattr(objective, "name", "") in RANKED else (2,) if paired else (1, 3, 2, 4)
    groups = ragged(seed, num_groups=num_groups, sizes=sizes)
    return with_columns(groups, objective.needs, seed + 1)


def bare_batch(lengths: Sequence[int], *, group_size: int = 2, **columns: Tensor) -> Batch:
    """A batch for objectives alone: sequences of so many trained tokens, no real inputs."""
    from strop.batch import Layout

    num = len(lengths)
    seq = torch.repeat_interleave(torch.arange(num), torch.tensor(lengths))
    place = torch.arange(len(seq))
    return Batch(
        input_ids=place,
        position_ids=place,
        layout=Layout((0,), (len(seq),), (-1,), (0,) * num),
        predictor=place,
        position=place,
        target=torch.zeros_like(place),
        seq=seq,
        group=torch.arange(num) // group_size,
        place=torch.arange(num) % group_size,
        last=torch.tensor(lengths).cumsum(0) - 1,
        num_groups=num // group_size,
        columns=columns,
        sequence_ids=tuple(range(num)),
    )


SIZES: dict[str, Any] = {
    "vocab_size": 89, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip


def stock(kind: str, seed: int = 0, **settings: Any) -> Any:
    """A tiny random causal language model of a family ("Llama", "Qwen3", ...), fp32, as transformers makes it."""
    import transformers

    known = {**SIZES, **({"head_dim": 8} if kind in ("Qwen3", "Gemma", "Gemma2", "Gemma3Text") else {}), **settings}
    config = getattr(transformers, f"{kind}Config")(**known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        name = kind.replace("Text", "")
        return getattr(transformers, f"{name}ForCausalLM")(config)
