"""Scored groups as they are trained on where credit comes from tokens, not from siblings."""

from __future__ import annotations

from collections.abc import Sequence

from strop.data.encoded import EncodedGroup
from strop.rollout.select import Selected, sampled_sequence
from strop.types import Group


def scored(groups: Sequence[Group]) -> Selected:
    """Every completion that has a score, with it in the column `rewards`; those without are not trained on."""
    encoded = map(_encode, groups)
    return Selected(tuple(group for group in encoded if group.sequences), tuple(groups))


def _encode(group: Group) -> EncodedGroup:
    assert group.prompt_ids is not None
    sequences = (sampled_sequence(c, rewards=c.score) for c in group.completions if c.score is not None)
    return EncodedGroup(group.prompt_ids, tuple(sequences), origin=group.origin)
