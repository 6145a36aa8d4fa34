"""Process rewards: a solution is cut in steps and each is scored, by a process reward model or an implicit one.

The score of the whole is an aggregate of its steps' scores, which stand in the verdict beside it
for those that reward steps: step-level search, and credit where a step ends.

A process reward model is asked once for all solutions of a prompt: the prompt is computed once, and so
is what solutions begin with in common.

Left out: models that write + and - as tokens, and judges.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pack import pack
from strop.data.steps import cut, encode_to_score, prompt_of, step_ends
from strop.lazy import lazy_module
from strop.objectives.process import implicit_step_rewards
from strop.rewards.model import stamp
from strop.types import Completion, Group, Verdict

if TYPE_CHECKING:
    import torch

    from strop.model import head as model_head
    from strop.model import load as model_load
    from strop.model.forward import Model
else:
    torch = lazy_module("torch")
    model_head = lazy_module("strop.model.head")
    model_load = lazy_module("strop.model.load")

Aggregate = Literal["min", "product", "last", "mean"]
Steps = tuple[float | None, ...]

PROCESS_FILE = "process.json"
"""Beside a process reward model: how its solutions are cut, {"separator": ...}."""


def aggregate(scores: Sequence[float | None], how: Aggregate) -> float | None:
    """One score of a whole solution from the chances p_j in [0, 1] that its steps are right.

    min (Math-Shepherd, arXiv:2312.08935), product, the chance that all are right if they were independent
    (Lightman et al. 2023, arXiv:2305.20050, section 2.6; it falls with the number of steps), last, mean.

    Returns: None without a step, or where one is unscorable.
    """
    known = [score for score in scores if score is not None]
    if not known or len(known) < len(scores):
        return None
    if how == "product":
        return math.exp(math.fsum(math.log(p) for p in known)) if min(known) > 0 else 0.0
    return {"min": min(known), "last": known[-1], "mean": math.fsum(known) / len(known)}[how]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReward:
    """A process reward model's judgement of every step, in [0, 1], and their aggregate as the score.

    Attributes:
        path: a folder that a stage of kind process left, `@stage`, or a token classifier of one or two labels.
        aggregate: how the steps' scores become one.
        separator: ends a step; null takes the model's own.
        max_length: tokens of prompt and solution; a solution whose steps do not all fit is unscorable.
        micro_batch_tokens: packed tokens a forward holds at most.
        device: where the model runs.
    """

    models: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    name: Literal["process"] = "process"
    aggregate: Aggregate = "min"
    separator: str | None = None
    max_length: int = 4096
    micro_batch_tokens: int = 4096
    device: str = "auto"
    weight: float = 1.0
    label: str | None = None

    def __post_init__(self) -> None:
        _check("process", self.separator, self.max_length)

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        model, chat, separator = _step_model(self.path, self.separator, self.device, stamp(self.path))
        pieces = [[cut(c.text, separator) for c in group.completions] for group in groups]
        logits = step_logits(
            model, chat, groups, pieces,
            separator=separator, max_length=self.max_length, max_tokens=self.micro_batch_tokens,
        )  # fmt: skip
        return [
            [self._verdict(steps, _chances(numbers, steps)) for steps, numbers in zip(row, found, strict=True)]
            for row, found in zip(pieces, logits, strict=True)
        ]

    def _verdict(self, steps: tuple[str, ...], scores: Steps) -> Verdict:
        score = aggregate(scores, self.aggregate)
        return Verdict(score, _told(scores, self.max_length), steps=steps, step_scores=scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitProcessReward:
    """An implicit process reward model: beta times the log-ratio of two language models, step by step.

    A step's score is what its tokens add to beta log(pi / pi_ref); the steps add up to the outcome's logit.

    Attributes:
        path: the trained model and its reference, in this order; each a folder, a hub name or `@stage`.
        aggregate: "sum" (the outcome's logit), or the steps' "min" or "mean".
        beta: as the model was trained with. The others as in `ProcessReward`.
    """

    models: ClassVar[tuple[str, ...]] = ("path",)

    path: tuple[str, ...]
    name: Literal["implicit_process"] = "implicit_process"
    aggregate: Literal["sum", "min", "mean"] = "sum"
    beta: float = 0.05
    separator: str = "\n"
    max_length: int = 4096
    micro_batch_tokens: int = 4096
    device: str = "auto"
    weight: float = 1.0
    label: str | None = None

    def __post_init__(self) -> None:
        _check("implicit_process", self.separator, self.max_length)
        if len(self.path) != 2:
            raise ValueError(f"implicit_process.path: {len(self.path)} models; name two, the model and its reference")
        if self.beta <= 0:
            raise ValueError(f"implicit_process.beta must be positive, got {self.beta}")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        trained, reference = (_language_model(path, self.device, stamp(path)) for path in self.path)
        chat = _chat(self.path[0], stamp(self.path[0]))
        encoded = [[_answer(group, c, chat, self.max_length) for c in group.completions] for group in groups]
        asked = [_together(row) for row in encoded]
        asked = [group for group in asked if group.sequences]
        ours, theirs = (_read(m, asked, self.micro_batch_tokens, _logprobs) for m in (trained, reference))
        ratios = ([self.beta * (a - b) for a, b in zip(x, y, strict=True)] for x, y in zip(ours, theirs, strict=True))
        return [
            [
                self._verdict(c, sequence, next(ratios), chat)
                if isinstance(sequence, EncodedGroup)
                else Verdict(None, sequence)
                for c, sequence in zip(group.completions, row, strict=True)
            ]
            for group, row in zip(groups, encoded, strict=True)
        ]

    def _verdict(self, completion: Completion, encoded: EncodedGroup, rewards: list[float], chat: Chat) -> Verdict:
        steps = cut(completion.text, self.separator)
        scores = implicit_step_rewards(rewards, step_ends(encoded.sequences[0].ids, steps, chat.decode))
        if not scores:
            return Verdict(None, "an empty solution")
        whole = {"sum": math.fsum(scores), "min": min(scores), "mean": math.fsum(scores) / len(scores)}
        return Verdict(whole[self.aggregate], steps=steps, step_scores=tuple(scores))


# Solutions as tokens.


def step_logits(
    model: Model,
    chat: Chat,
    groups: Sequence[Group],
    solutions: Sequence[Sequence[Sequence[str]]],
    *,
    separator: str,
    max_length: int,
    max_tokens: int,
) -> list[list[list[float]]]:
    """A process reward model's logit at the end of each step that fits, for every solution of every group.

    Args: solutions: for each group its solutions, each the texts of its steps.
    """
    places, asked = [], []
    for group, row in zip(groups, solutions, strict=True):
        prompt_ids = prompt_of(group, chat, max_length)
        found: list[EncodedSequence | None] = [None] * len(row)
        if not isinstance(prompt_ids, str):
            found = encode_to_score(prompt_ids, row, chat, separator=separator, max_length=max_length)
            asked.append(EncodedGroup(prompt_ids, tuple(s for s in found if s is not None)))
        places.append([s is not None for s in found])
    numbers = iter(_read(model, [group for group in asked if group.sequences], max_tokens, _values))
    return [[next(numbers) if read else [] for read in row] for row in places]


def _answer(group: Group, completion: Completion, chat: Chat, max_length: int) -> EncodedGroup | str:
    """One solution as it would be trained on, or why it cannot be read whole."""
    found = chat.encode(replace(group, completions=(completion,)), max_length)
    if isinstance(found, EncodedGroup) and found.sequences[0].truncated and completion.finish != "length":
        return f"it does not fit in max_length={max_length}"
    return found


def _together(row: Sequence[EncodedGroup | str]) -> EncodedGroup:
    """The solutions of one prompt behind it."""
    found = [e for e in row if isinstance(e, EncodedGroup)]
    sequences = tuple(replace(e.sequences[0], columns={}) for e in found)
    return EncodedGroup(found[0].prompt_ids if found else (), sequences)


def _chances(logits: Sequence[float], steps: Sequence[str]) -> Steps:
    """sigmoid(z) of the steps that were read, and None for those that did not fit."""
    chances = [1 / (1 + math.exp(-z)) if z > -700 else 0.0 for z in logits]
    return (*chances, *(None for _ in steps[len(chances) :]))


def _told(scores: Steps, max_length: int) -> str:
    if not scores:
        return "an empty solution"
    known = sum(score is not None for score in scores)
    if known < len(scores):
        return f"{known} of {len(scores)} steps fit in max_length={max_length}"
    worst = min(range(known), key=lambda k: scores[k] or 0.0)
    return f"step {worst + 1} of {known} is the weakest: {scores[worst]:.2f}"


# Models.


def _values(outputs: Any) -> torch.Tensor:
    numbers: torch.Tensor = outputs.values
    return numbers


def _logprobs(outputs: Any) -> torch.Tensor:
    numbers: torch.Tensor = outputs.logprobs
    return numbers


def _read(
    model: Model, groups: Sequence[EncodedGroup], max_tokens: int, what: Callable[[Any], torch.Tensor]
) -> list[list[float]]:
    """The numbers at each sequence's trained tokens, in the groups' order."""
    if not groups:
        return []
    step = pack(groups, max_tokens=max_tokens, device=model.device, read_last=True, splittable=True)
    found: dict[int, list[float]] = {}
    with torch.no_grad():
        for batch in step.batches:
            counts = torch.bincount(batch.seq, minlength=batch.num_sequences).tolist()
            parts = what(model(batch)).float().cpu().split(counts)
            found.update(zip(batch.sequence_ids, (part.tolist() for part in parts), strict=True))
    return [found[number] for number in range(len(found))]


@lru_cache(maxsize=2)
def _step_model(path: str, separator: str | None, device: str, changed: int) -> tuple[Model, Chat, str]:
    """The model, its way of writing prompts, and what ends a step; loaded once while its files stay the same."""
    own = separator if separator is not None else separator_of(path)
    model = model_head.load_scalar(path, reads="token", device=model_load.choose_device(device), say=_quiet)
    return model, _chat(path, changed), own


@lru_cache(maxsize=4)
def _language_model(path: str, device: str, changed: int) -> Model:
    return model_load.load(path, device=model_load.choose_device(device), say=_quiet)


@lru_cache(maxsize=4)
def _chat(path: str, changed: int) -> Chat:
    return Chat(model_load.load_tokenizer(path))


def separator_of(path: str) -> str:
    """What ends a step for the process reward model of a folder.

    Raises: ValueError where the folder does not say.
    """
    file = Path(path) / PROCESS_FILE
    if not file.is_file():
        raise ValueError(f"process.separator: {path} has no {PROCESS_FILE} that says what ends a step; give separator")
    return str(json.loads(file.read_text(encoding="utf-8"))["separator"])


def _quiet(text: str) -> None:
    pass


def _check(name: str, separator: str | None, max_length: int) -> None:
    if separator == "":
        raise ValueError(f"{name}.separator is empty, so nothing ends a step; name the text between two steps")
    if max_length < 2:
        raise ValueError(f"{name}.max_length must be at least 2, got {max_length}")
