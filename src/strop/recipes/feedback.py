"""What preference stages do with rows as tokens: repeats left out, pairs as labelled answers, classes counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.objectives import KTO
from strop.recipes.context import Context
from strop.recipes.inputs import Dropped, Split

REPEATED = "repeats an earlier row"
UNLABELLED = "no label, and no pair, whose better side would be the desirable one"
BALANCED = (1.0, 4 / 3)
"""What lambda_D n_D / (lambda_U n_U) should be, by KTO's authors."""


def without_repeats(split: Split, context: Context) -> Split:
    """The rows that are trained on, each once: the same tokens and labels again teach nothing new."""
    seen, kept, dropped = set(), [], Dropped()
    for group in split.train:
        key = group.prompt_ids, tuple((s.ids, s.columns.get("labels")) for s in group.sequences)
        if key in seen:
            dropped.add(REPEATED, group.origin)
        else:
            seen.add(key)
            kept.append(group)
    dropped.say(context)
    return replace(split, train=kept, data=split.data.without(dropped))


def labelled(split: Split, context: Context) -> Split:
    """Every answer with its label: a row's own, or 1 and 0 for the sides of a pair.

    Rows that have neither are dropped, counted and said. Raises: ValueError if none is left.
    """
    dropped = Dropped()
    train = _labelled(split.train, dropped)
    held_out = _labelled(split.held_out, Dropped())
    dropped.say(context)
    if not train:
        raise ValueError(f"no row can be used: {UNLABELLED}; give rows a column label, or chosen and rejected")
    return replace(split, train=train, held_out=held_out, data=split.data.without(dropped))


def _labelled(groups: Sequence[EncodedGroup], dropped: Dropped) -> list[EncodedGroup]:
    out = []
    for group in groups:
        known = ["labels" in s.columns for s in group.sequences]
        if all(known):
            out.append(group)
        elif not any(known) and len(known) == 2:
            better, worse = group.sequences
            out.append(replace(group, sequences=(_with_label(better, 1.0), _with_label(worse, 0.0))))
        else:
            dropped.add(UNLABELLED, group.origin)
    return out


def _with_label(sequence: EncodedSequence, label: float) -> EncodedSequence:
    return replace(sequence, columns={**sequence.columns, "labels": label})


def say_classes(groups: Sequence[EncodedGroup], objective: KTO, context: Context) -> None:
    """Tell how many answers are desirable, and which weight would balance the classes if they are not balanced."""
    labels = [s.columns["labels"] for group in groups for s in group.sequences]
    desirable = sum(label == 1.0 for label in labels)
    context.event("note", classes(desirable, len(labels) - desirable, objective))


def classes(desirable: int, undesirable: int, objective: KTO) -> str:
    """The classes in words; one weight is named that puts their ratio into the middle of BALANCED."""
    text = f"{desirable} desirable and {undesirable} undesirable answers"
    if not desirable or not undesirable:
        missing = "a desirable" if not desirable else "an undesirable"
        return f"{text}: without {missing} one the baseline alone holds the policy; give both kinds"
    ratio = objective.desirable_weight * desirable / (objective.undesirable_weight * undesirable)
    if BALANCED[0] <= ratio <= BALANCED[1]:
        return text
    middle = math.sqrt(BALANCED[0] * BALANCED[1])
    if ratio < BALANCED[0]:
        setting = f"objective.desirable_weight={objective.desirable_weight * middle / ratio:.3g}"
    else:
        setting = f"objective.undesirable_weight={objective.undesirable_weight * ratio / middle:.3g}"
    return (
        f"{text}: by their weights the desirable count {ratio:.2g} times as much, and should 1 to 1.33; set {setting}"
    )
