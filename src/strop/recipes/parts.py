"""Settings that stages share, and what can be wrong with them.

Where rows come from, how a stage steps, how completions are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.rewards import Custom, ImplicitProcessReward, ProcessReward, RewardSettings
from strop.train.optim import AdamW, Constant, Cosine, Linear, Muon

Optimizer = AdamW | Muon
Schedule = Linear | Cosine | Constant

Found = Iterator[tuple[tuple[str | int, ...], str]]
"""Paths of settings and what is wrong there."""

TEXTS = ("language_modeling", "prompt_completion")
PAIRS = ("preference", "ranking")
ROW_NUMBERS = frozenset({"margin", "probability"})
"""Columns of a comparison that an objective may read: how far apart the answers are, P(the first is better)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where rows come from.

    Attributes:
        path: a file (.jsonl, .json, .csv, .parquet, each also .gz), a folder, several, a
            `datasets` path, `@stage`, `world:NAME` for the embedded world, or `gym:NAME` for a
            generator of reasoning-gym (`gym:leg_counting?max_animals=5&seed=1`).
        kind: the row shape; detected and said when null.
        columns: our column name -> the file's.
        split: of a `datasets` path.
        limit: read at most this many good rows.
        system: a system turn put before every conversation that has none.
        shuffle: take rows in a new order each pass; false takes them as they stand in the file.
    """

    path: str | tuple[str, ...]
    kind: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    split: str = "train"
    limit: int | None = None
    system: str | None = None
    shuffle: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a stage steps, packs and saves.

    Attributes:
        steps: optimizer steps; null takes `epochs` passes over the data.
        batch_size: groups (rows, pairs, prompts) an optimizer step.
        micro_batch_tokens: packed tokens a forward holds at most; null chooses by device.
        max_length: prompt and completion tokens a sequence may have.
        max_grad_norm: gradients are clipped to this norm; 0 turns clipping off.
        save_every, keep: checkpoint each so many steps (0: only when interrupted), keeping the
            last few; the finished model is always saved.
        eval_every: evaluate on held-out rows each so many steps, besides at the start and the end
            (0: only then).
        eval_fraction: share of rows held out when no `eval_data` is given.
        log_every: steps between metric lines on the terminal; the file has every step.
        nonfinite_limit: stop after so many skipped steps in a row.
        gradient_checkpointing: recompute activations in the backward pass.
    """

    steps: int | None = None
    epochs: float = 1.0
    batch_size: int = 32
    micro_batch_tokens: int | None = None
    max_length: int = 2048
    max_grad_norm: float = 1.0
    save_every: int = 100
    keep: int = 2
    eval_every: int = 0
    eval_fraction: float = 0.0
    log_every: int = 10
    nonfinite_limit: int = 5
    gradient_checkpointing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn. top_k and top_p are for evaluation and `strop sample` only.

    Attributes: temperature 0 is greedy; stop: strings that end a completion (kept in it);
        rows: how many completions are decoded side by side, null for the device's choice.
    """

    temperature: float = 1.0
    max_completion_length: int = 256
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    top_p: float | None = None
    rows: int | None = None


def at_least(settings: Any, keys: Sequence[str], least: int) -> Found:
    """Numbers that are smaller than they may be; null is no number."""
    for key in keys:
        value = getattr(settings, key)
        if value is not None and value < least:
            wanted = "must not be negative" if least == 0 else f"must be at least {least}"
            yield (key,), f"{wanted}, got {value}"


def rewards_problems(rewards: Sequence[RewardSettings], needed: str = "") -> Found:
    """Rewards that are missing where `needed` says who needs one, that weigh nothing, or share a name."""
    if needed and not rewards:
        yield ("rewards",), f"is empty; {needed} needs at least one, as rewards=number"
    elif rewards and all(r.weight == 0 for r in rewards):
        yield ("rewards",), "all weights are 0, so nothing is scored; give one a weight"
    labels: dict[str, int] = {}
    for index, reward in enumerate(rewards):
        label = reward.label or reward.name
        if label in labels:
            text = f"rewards[{labels[label]}] is logged as {label!r} too; give one a label of its own"
            yield ("rewards", index), text
        labels.setdefault(label, index)


def steps_problems(rewards: Sequence[RewardSettings], key: str) -> Found:
    """Credit for steps, set by `key`, where no reward scores steps; a user's own does by the verdicts it returns."""
    if rewards and not any(isinstance(reward, ProcessReward | ImplicitProcessReward | Custom) for reward in rewards):
        yield (key,), "needs a reward that scores steps, as rewards=[{name: process, path: PRM}]"


def separator_problems(separator: str) -> Found:
    """A text that ends no step, or that a shell made of another."""
    if not separator:
        yield ("separator",), 'is empty, so nothing ends a step; name the text behind each step, as "\\n"'
    if "\\n" in separator:
        yield ("separator",), "holds a backslash and an n, not a line break; put it in double quotes inside single ones"


def reference_problems(reference: str | None, *, read: bool, why: str) -> Found:
    """A reference that is named and not read."""
    if reference is not None and not read:
        yield ("reference",), f"nothing reads it: {why}"


def on_policy_problems(sampling: Sampling) -> Found:
    """Sampling whose log-probs are not those of the policy that is trained."""
    if sampling.top_k is not None or sampling.top_p is not None:
        key = "top_k" if sampling.top_k is not None else "top_p"
        yield ("sampling", key), "is for evaluate stages: training needs log-probs of what was really sampled"
    if sampling.temperature == 0:
        yield ("sampling", "temperature"), "0 is greedy: every completion of a group would be the same; use 1.0"


def training_problems(training: Training) -> Found:
    """Numbers of a training block that are too small."""
    yield from at_least(training, ("steps", "batch_size", "micro_batch_tokens", "keep", "log_every"), 1)
    yield from at_least(training, ("nonfinite_limit",), 1)
    yield from at_least(training, ("max_length",), 2)
    yield from at_least(training, ("save_every", "eval_every", "max_grad_norm"), 0)
    if training.epochs <= 0:
        yield ("epochs",), f"must be more than 0, got {training.epochs}"
    if not 0 <= training.eval_fraction < 1:
        yield ("eval_fraction",), f"must be at least 0 and less than 1, got {training.eval_fraction}"


def sampling_problems(sampling: Sampling) -> Found:
    """Numbers of a sampling block that are out of range."""
    yield from at_least(sampling, ("max_completion_length", "top_k", "rows"), 1)
    yield from at_least(sampling, ("temperature",), 0)
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        yield ("top_p",), f"must be more than 0 and at most 1, got {sampling.top_p}"
    if "" in sampling.stop:
        yield ("stop",), "an empty text stops every completion at once"
