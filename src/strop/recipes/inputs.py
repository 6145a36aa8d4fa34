"""A stage's rows: read, counted, written down as tokens, and split into trained and held-out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup
from strop.data.formats import load_dataset
from strop.recipes.context import Context
from strop.recipes.settings import Data, Training
from strop.types import Group

MAX_HELD_OUT = 512
"""Rows a fraction holds out at most: enough for narrow intervals, and cheap to evaluate."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Groups, and what became of the rows: `said` in words, `summary` as JSON values."""

    groups: tuple[Group, ...]
    said: str
    summary: Mapping[str, Any]


def load_groups(data: Data, context: Context, kinds: Sequence[str] = ()) -> Loaded:
    """Read a stage's rows; every reason for a dropped one is an event.

    Raises: ValueError if nothing can be used, or the rows are of none of the `kinds`.
    """
    named = (data.path,) if isinstance(data.path, str) else data.path
    found = load_dataset(
        [context.resolve_data(path) for path in named],
        kind=data.kind,
        columns=data.columns,
        split=data.split,
        limit=data.limit,
        system=data.system,
    )
    if kinds and found.kind not in kinds:
        raise ValueError(
            f"{', '.join(named)}: read as {found.kind} ({found.shape}), but this stage trains on {' or '.join(kinds)}; "
            f"its columns are {', '.join(found.columns)}. Map them with data.columns, or choose another recipe"
        )
    for reason, count in found.dropped.items():
        context.event("drop", f"{count} rows dropped: {reason}; first at {found.examples[reason]}")
    kept = f"{len(found.groups)} of {found.num_rows} rows kept" if found.dropped else f"{found.num_rows} rows"
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
    return Loaded(found.groups, f"{', '.join(named)}: {found.shape}, {kept}", summary)


def encode_all(groups: Sequence[Group], chat: Chat, max_length: int, context: Context) -> list[EncodedGroup]:
    """Groups as tokens; those that cannot be trained on are dropped, counted and said.

    Raises: ValueError if none is left.
    """
    encoded: list[EncodedGroup] = []
    reasons: Counter[str] = Counter()
    first: dict[str, str] = {}
    for group, result in zip(groups, chat.encode_many(groups, max_length), strict=True):
        if isinstance(result, EncodedGroup):
            encoded.append(result)
        else:
            reasons[result] += 1
            first.setdefault(result, group.origin)
    for reason, count in reasons.items():
        context.event("drop", f"{count} rows dropped: {reason}; first at {first[reason]}")
    if not encoded:
        told = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        raise ValueError(f"no row can be trained on ({told}); raise training.max_length or look with `strop inspect`")
    cut = sum(any(s.truncated for s in group.sequences) for group in encoded)
    if cut:
        context.event(
            "note", f"{cut} of {len(encoded)} rows are longer than {max_length} tokens and were cut at the end"
        )
    return encoded


def hold_out(
    data: Loaded, context: Context, chat: Chat, eval_data: Data | None, training: Training
) -> tuple[list[EncodedGroup], list[EncodedGroup]]:
    """(trained, held-out) rows as tokens: other rows where they are named, else a fraction chosen by the seed."""
    groups = list(data.groups)
    others: list[Group] = []
    if eval_data is not None:
        others = list(load_groups(eval_data, context).groups)
    elif training.eval_fraction > 0:
        count = min(MAX_HELD_OUT, max(1, round(len(groups) * training.eval_fraction)))
        if count >= len(groups):
            raise ValueError(f"{len(groups)} rows are too few to hold some out; set training.eval_fraction=0")
        chosen = set(np.random.default_rng([context.seed, 1]).permutation(len(groups))[:count].tolist())
        others = [group for i, group in enumerate(groups) if i in chosen]
        groups = [group for i, group in enumerate(groups) if i not in chosen]
    trained = encode_all(groups, chat, training.max_length, context)
    return trained, encode_all(others, chat, training.max_length, context) if others else []


def prompts_of(groups: Sequence[Group], chat: Chat, max_length: int) -> tuple[list[Group], list[tuple[int, ...]]]:
    """Prompts and their tokens; given answers move into `row["completion"]`, too long prompts are left out.

    Raises: ValueError if no prompt is short enough.
    """
    prompts: list[Group] = []
    ids: list[tuple[int, ...]] = []
    for group in groups:
        tokens = chat.encode_prompt(group.prompt, group.row)
        if not 0 < len(tokens) <= max_length:
            continue
        row = {**group.row, "completion": group.completions[0].text} if group.completions else group.row
        prompts.append(replace(group, completions=(), row=row, prompt_ids=tokens))
        ids.append(tokens)
    if not prompts:
        raise ValueError(f"no prompt has between 1 and {max_length} tokens; raise training.max_length")
    return prompts, ids
