"""A stage's rows: read, counted, written down as tokens, and split into trained and held-out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup
from strop.data.formats import Dataset, load_dataset
from strop.data.mixed import load_prompts
from strop.data.templates import conversations
from strop.recipes import artifacts
from strop.recipes.arithmetic import num_held_out
from strop.recipes.context import Context
from strop.recipes.preflight import wrong_kind
from strop.recipes.settings import Data, Stage, Training
from strop.rewards.gym import sized
from strop.rewards.only import never_applied, none_applies
from strop.types import Group


@dataclass(frozen=True, slots=True)
class Loaded:
    """Groups, and what became of the rows: `summary` as JSON values, `said` in words."""

    groups: tuple[Group, ...]
    summary: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """What the rows were read as."""
        return str(self.summary["kind"])

    @property
    def said(self) -> str:
        """The account in words."""
        rows, kept = self.summary["rows"], self.summary["kept"]
        count = rows_of(rows) if kept == rows else f"{kept} of {rows_of(rows)} kept"
        if kept > rows:  # some rows hold several
            count = f"{kept} examples in {rows_of(rows)}"
        return f"{self.summary['path']}: {self.summary['shape']}, {count}"

    def without(self, dropped: Dropped) -> Loaded:
        """The same account after more rows were dropped."""
        reasons = Counter(self.summary["dropped"]) + dropped.reasons
        examples = {reason: f"{origin}: {reason}" for reason, origin in dropped.first.items()}
        summary = {
            **self.summary,
            "kept": self.summary["kept"] - sum(dropped.reasons.values()),
            "dropped": dict(reasons),
            "examples": {**examples, **self.summary["examples"]},
        }
        return replace(self, summary=summary)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows that were left out after reading: how many for each reason, and the first of each."""

    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, origin: str) -> None:
        self.reasons[reason] += 1
        self.first.setdefault(reason, origin)

    def told(self) -> list[str]:
        return [f"{count} dropped ({reason})" for reason, count in self.reasons.items()]

    def say(self, context: Context) -> None:
        """One event a reason."""
        for reason, count in self.reasons.items():
            context.event("drop", f"{rows_of(count)} dropped: {reason}; first at {self.first[reason]}")


def load_groups(data: Data, context: Context) -> Loaded:
    """Read a stage's rows; every reason for a dropped one is an event.

    Raises: ValueError if nothing can be used, or the stage can do nothing with rows of their kind.
    """
    return _read(data, context, lambda found: wrong_kind(context.stage, found))


def read_groups(data: Data, context: Context) -> Loaded:
    """The same for rows of which only the prompts are wanted, so that any kind will do."""
    return _read(data, context, lambda found: "")


def _read(data: Data, context: Context, fault: Callable[[Dataset], str]) -> Loaded:
    named = (data.path,) if isinstance(data.path, str) else data.path
    found = (load_prompts if artifacts.wants_prompts(context.stage) else load_dataset)(
        [context.resolve_data(sized(path, data.limit)) for path in named],
        kind=data.kind,
        columns=data.columns,
        split=data.split,
        limit=data.limit,
        system=data.system,
    )
    if trouble := fault(found):
        raise ValueError(f"{', '.join(named)}: {trouble}")
    for reason, count in found.dropped.items():
        first = found.examples[reason].removesuffix(f": {reason}")
        context.event("drop", f"{rows_of(count)} dropped: {reason}; first at {first}")
    summary = {
        "path": ", ".join(named),
        "kind": found.kind,
        "shape": found.shape,
        "rows": found.num_rows,
        "kept": len(found.groups),
        "dropped": dict(found.dropped),
        "examples": dict(found.examples),
        "sha256": found.sha256,
    }
    return Loaded(conversations(found.groups) if context.recipe.template else found.groups, summary)


Encode = Callable[[Sequence[Group], int], list[EncodedGroup | str]]
"""Groups and the tokens a sequence may have, to their tokens or the reason why one is dropped."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Groups as tokens; `groups` are what they were, in the same order."""

    tokens: list[EncodedGroup]
    groups: list[Group]
    dropped: Dropped


def encode_all(
    groups: Sequence[Group], chat: Chat, max_length: int, context: Context, encode: Encode | None = None
) -> Encoded:
    """Groups as tokens; those that cannot be trained on are dropped, counted and said.

    Args: encode: how, where not as the chat writes them.
    Raises: ValueError if none is left.
    """
    found = Encoded([], [], Dropped())
    before = Counter(chat.notes)
    whole = []
    for group in groups:
        if fault := _miscounted(group, context.stage):
            found.dropped.add(fault, group.origin)
        else:
            whole.append(group)
    for group, result in zip(whole, (encode or chat.encode_many)(whole, max_length), strict=True):
        if isinstance(result, EncodedGroup):
            found.tokens.append(result)
            found.groups.append(group)
        else:
            found.dropped.add(result, group.origin)
    found.dropped.say(context)
    if not found.tokens:
        told = "; ".join(f"{count} x {reason}" for reason, count in found.dropped.reasons.most_common())
        raise ValueError(f"no row can be used ({told}); raise training.max_length or look with `strop inspect`")
    for text, count in (chat.notes - before).items():
        context.event("note", f"in {count} of {sum(len(g.sequences) for g in found.tokens)} answers {text}")
    if encode is not None:  # steps are left out whole
        cut = sum(any(s.truncated for s in group.sequences) for group in found.tokens)
    else:
        cut = sum(any(group.cut(max_length)) for group in found.tokens)
    if cut:
        share = f"{cut} of {rows_of(len(found.tokens))} {'is' if cut == 1 else 'are'}"
        context.event("note", f"{share} longer than {max_length} tokens, cut at the end")
    return found


def _miscounted(group: Group, stage: Stage) -> str:
    """Why a group has the wrong number of answers for a stage; empty where it has the right one."""
    count, (fewest, most) = len(group.completions), stage.answers
    if fewest <= count and (most is None or count <= most):
        return ""
    exactly = {1: "trains on one", 2: "compares two"}
    wanted = exactly[fewest] if fewest == most and fewest in exactly else f"needs at least {fewest}"
    return f"{count} answers where this stage {wanted}"


@dataclass(frozen=True, slots=True)
class Split:
    """Trained and held-out rows as tokens, and the account of the trained data."""

    train: list[EncodedGroup]
    held_out: list[EncodedGroup]
    data: Loaded


def hold_out(data: Loaded, context: Context, chat: Chat, eval_data: Data | None, training: Training) -> Split:
    """Trained and held-out rows, as tokens."""
    groups, others = parted(data, context, eval_data, training)
    trained = encode_all(groups, chat, training.max_length, context)
    data = data.without(trained.dropped)
    if not others:
        return Split(trained.tokens, [], data)
    held = encode_all(others, chat, training.max_length, context)
    return Split(trained.tokens, held.tokens, data.without(held.dropped) if eval_data is None else data)


def parted(
    data: Loaded, context: Context, eval_data: Data | None, training: Training
) -> tuple[list[Group], list[Group]]:
    """Trained and held-out groups: other rows where they are named, else a fraction chosen by the seed."""
    groups = list(data.groups)
    others: list[Group] = []
    if eval_data is not None:
        others = list(load_groups(eval_data, context).groups)
    elif training.eval_fraction > 0:
        count = num_held_out(len(groups), training)
        chosen = set(np.random.default_rng([context.seed, 1]).permutation(len(groups))[:count].tolist())
        others = [group for i, group in enumerate(groups) if i in chosen]
        groups = [group for i, group in enumerate(groups) if i not in chosen]
    return groups, others


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts without answers, and their tokens."""

    groups: list[Group]
    ids: list[tuple[int, ...]]
    dropped: Dropped


def prompts_of(groups: Sequence[Group], chat: Chat, max_length: int, context: Context) -> Prompts:
    """Prompts and their tokens; given answers move into `row["completion"]`.

    Prompts that are empty, longer than `max_length`, refused by the template or that no reward of the stage is
    for are dropped, counted and said.
    Raises: ValueError if none can be left or is, or if a reward is for rows with a column that none has.
    """
    if max_length < 1:
        room = "what the model reads, or training.max_length allows"
        text = f"answers take {1 - max_length} tokens too many for any prompt to fit in {room}"
        raise ValueError(f"{text}; set a smaller sampling.max_completion_length")
    rewards = artifacts.rewards_of(context.stage)
    for note in never_applied(groups, rewards):
        context.event("note", note)
    found = Prompts([], [], Dropped())
    for group in groups:
        if none_applies(group, rewards):
            found.dropped.add("a row that no reward is for", group.origin)
            continue
        try:
            tokens = chat.encode_prompt(group.prompt, group.row)
        except ValueError as error:
            found.dropped.add(str(error), group.origin)
            continue
        if not tokens:
            found.dropped.add("the prompt is empty", group.origin)
        elif len(tokens) > max_length:
            found.dropped.add(f"the prompt is longer than {max_length} tokens", group.origin)
        else:
            row = {**group.row, "completion": group.completions[0].text} if group.completions else group.row
            found.groups.append(replace(group, completions=(), row=row, prompt_ids=tokens))
            found.ids.append(tokens)
    found.dropped.say(context)
    if not found.groups:
        told = "; ".join(found.dropped.told())
        raise ValueError(f"no prompt can be used: {told}; a prompt may have what max_completion_length leaves")
    return found


def drawn(prompts: Prompts, num_prompts: int | None, seed: int) -> Prompts:
    """So many of the prompts, drawn by the seed, in their order; all where it is null or there are no more."""
    if num_prompts is None or num_prompts >= len(prompts.groups):
        return prompts
    chosen = sorted(np.random.default_rng([seed, 4]).permutation(len(prompts.groups))[:num_prompts].tolist())
    return replace(prompts, groups=[prompts.groups[i] for i in chosen], ids=[prompts.ids[i] for i in chosen])


def rows_of(count: int) -> str:
    """A number of rows in words."""
    return "1 row" if count == 1 else f"{count} rows"
