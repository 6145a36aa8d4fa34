"""Asking a finished reward model for scores: any folder or name of transformers' sequence classifiers.

A classifier whose head is linear on the last token runs like the models that are trained here,
each prompt computed once for all its completions. Any other one (BERT with its pooler) runs as
transformers made it, one padded row a completion.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from strop.data.encoded import EncodedGroup
from strop.data.pack import pack
from strop.model.adapter import is_adapter
from strop.model.head import OtherHead, ScalarModel, load_scalar
from strop.model.load import Precision, disable_dropout, dtype, first_line, read_weights


@dataclass(frozen=True, slots=True)
class Row:
    """One text as a classifier reads it: ids, and where it tells first and second text apart, which is which."""

    ids: tuple[int, ...]
    types: tuple[int, ...] | None = None


def scores_text(path: str) -> bool:
    """Whether a model gives texts a score, and writes none: a sequence classifier's folder or hub name."""
    if is_adapter(path):
        settings = json.loads((Path(path) / "adapter_config.json").read_text("utf-8"))
        return bool(settings.get("task_type") == "SEQ_CLS")
    try:
        names = AutoConfig.from_pretrained(path).architectures or ()
    except (OSError, ValueError):  # what is wrong with it is told where it is loaded
        return False
    return any(name.endswith("ForSequenceClassification") for name in names)


class Scorer(Protocol):
    """A reward model that only answers."""

    @property
    def module(self) -> PreTrainedModel: ...
    def score_groups(self, groups: Sequence[EncodedGroup], max_tokens: int) -> list[list[float]]: ...


def load_scorer(
    path: str, *, device: str = "cpu", precision: Precision = "auto", say: Callable[[str], None] = print
) -> Scorer:
    """The scorer of a folder or hub name.

    Raises: ValueError naming the path where there is no classifier of one or two labels.
    """
    try:
        return SharedScorer(load_scalar(path, reads="last", device=device, precision=precision, say=lambda text: None))
    except OtherHead:
        pass
    try:
        config = AutoConfig.from_pretrained(path)
        module = read_weights(AutoModelForSequenceClassification, path, dtype(device, precision), False, config=config)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot load a reward model from {path!r}: {first_line(error)}") from error
    if config.num_labels > 2:
        raise ValueError(f"cannot load a reward model from {path!r}: it has {config.num_labels} labels, not one or two")
    disable_dropout(module)
    say(f"{type(module).__name__}: its head is its own, so prompts are padded and repeated")
    return StockScorer(module.to(device).eval())


@dataclass(frozen=True, slots=True)
class SharedScorer:
    """Scores at the last token, prompts shared where the model can."""

    model: ScalarModel

    @property
    def module(self) -> PreTrainedModel:
        return self.model.module

    def score_groups(self, groups: Sequence[EncodedGroup], max_tokens: int) -> list[list[float]]:
        """Each completion's score, in the shape of the groups."""
        if not groups:
            return []
        flat = [0.0] * sum(len(group.sequences) for group in groups)
        with torch.no_grad():
            step = pack(groups, max_tokens=max_tokens, device=self.model.device, read_last=True, splittable=True)
            for batch in step.batches:
                scores = self.model(batch).scores
                assert scores is not None
                for number, score in zip(batch.sequence_ids, scores.tolist(), strict=True):
                    flat[number] = score
        numbers = iter(flat)
        return [[next(numbers) for _ in group.sequences] for group in groups]


@dataclass(frozen=True, slots=True)
class StockScorer:
    """Scores as transformers computes them, one padded row a completion."""

    module: PreTrainedModel

    def score_groups(self, groups: Sequence[EncodedGroup], max_tokens: int) -> list[list[float]]:
        """Each completion's score, in the shape of the groups."""
        rows = [Row(group.prompt_ids + s.ids) for group in groups for s in group.sequences]
        numbers = iter(self.score_rows(rows, max_tokens))
        return [[next(numbers) for _ in group.sequences] for group in groups]

    def score_rows(self, rows: Sequence[Row], max_tokens: int) -> list[float]:
        """The scores of whole texts, those alike in length side by side; with two labels logit[1] - logit[0]."""
        out = [0.0] * len(rows)
        with torch.no_grad():
            for part in _alike([len(row.ids) for row in rows], max_tokens):
                logits = self.module(**_padded([rows[i] for i in part], self.module)).logits.float()
                scores = logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]
                for i, score in zip(part, scores.tolist(), strict=True):
                    out[i] = score
        return out


def _alike(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Row numbers by length, longest first, in parts of at most so many padded tokens."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        count = max(1, max_tokens // max(1, lengths[order[0]]))
        yield order[:count]
        order = order[count:]


def _padded(rows: Sequence[Row], module: PreTrainedModel) -> dict[str, torch.Tensor]:
    pad, longest = int(module.config.get_text_config().pad_token_id or 0), max(len(row.ids) for row in rows)

    def tensor(lines: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        return torch.tensor([[*line, *[fill] * (longest - len(line))] for line in lines], device=module.device)

    inputs = {
        "input_ids": tensor([row.ids for row in rows], pad),
        "attention_mask": tensor([[1] * len(row.ids) for row in rows], 0),
    }
    types = [row.types for row in rows if row.types is not None]
    return {**inputs, "token_type_ids": tensor(types, 0)} if len(types) == len(rows) else inputs
