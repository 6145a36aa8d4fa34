"""Two evaluations' answers side by side: groups of the same prompt, so that differences can be paired."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

from strop.types import Content, Group

Places = list[tuple[int, int]]
"""Places of a group of ours and of theirs that belong together, by ours."""


def matched(ours: Sequence[Group], theirs: Sequence[Group], *, answers: bool = False) -> Places:
    """Which groups have the same prompt; of a prompt that stands several times, the first with the first, and so on.

    A plain prompt is the same as a conversation of one user turn with its words.

    Args: answers: the same answers in the same order as well, as rows have that both models only read.
    """
    waiting: dict[Hashable, list[int]] = defaultdict(list)
    for place, group in enumerate(theirs):
        waiting[_key(group, answers)].append(place)
    for places in waiting.values():
        places.reverse()
    return [(i, waiting[key].pop()) for i, group in enumerate(ours) if waiting.get(key := _key(group, answers))]


def _key(group: Group, answers: bool) -> Hashable:
    prompt = _turns(group.prompt, "user")
    return (prompt, *(_turns(c.content, "assistant") for c in group.completions)) if answers else prompt


def _turns(content: Content, role: str) -> tuple[tuple[str, str], ...]:
    if isinstance(content, str):
        return ((role, content),)
    return tuple((turn.role, turn.content) for turn in content)
