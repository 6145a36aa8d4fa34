"""Groups worked through a chunk at a time and written as they come, so that a stopped stage goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from strop.evaluate.sampled import as_line
from strop.recipes.context import Context, Interrupted
from strop.types import Group, group_from_json

FILE = "samples.jsonl"

Work = Callable[[Sequence[Group], int], tuple[Sequence[Group], dict[str, float]]]
"""A chunk of groups, and the place of its first, to the finished groups and what was measured."""


def in_chunks(groups: Sequence[Group], size: int, work: Work, context: Context, name: str = FILE) -> list[Group]:
    """What `work` makes of groups, `size` at a time, written to a file in the stage's folder.

    Chunks that stand in the file already are not done again. What comes back is what the file says,
    so that a resumed stage gives the figures of the unbroken one.

    Raises: Interrupted between two chunks, once a stop was asked for.
    """
    file = context.stage_dir / name
    done = _written(file, size, len(groups))
    context.rewind(-(-len(done) // size))
    steps = -(-len(groups) // size)
    with file.open("ab") as out:
        for first in range(len(done), len(groups), size):
            if context.should_stop():
                raise Interrupted
            made, metrics = work(groups[first : first + size], first)
            made = [bare(group) for group in made]
            out.write("".join(map(as_line, made)).encode())
            out.flush()
            os.fsync(out.fileno())
            done += made
            context.step(first // size, steps, metrics)
    return done


def bare(group: Group) -> Group:
    """A group as it is written: the sampled ids stay, since rewards may count them; log-probs do not."""
    completions = tuple(replace(c, logprobs=None) for c in group.completions)
    return replace(group, completions=completions, prompt_ids=None)


def _written(file: Path, size: int, num_groups: int) -> list[Group]:
    """The groups of whole chunks that an earlier attempt wrote; the rest of the file is cut off."""
    if not file.exists():
        return []
    lines = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    whole = lines if len(lines) == num_groups else lines[: len(lines) // size * size]
    with file.open("r+b") as out:
        out.truncate(sum(map(len, whole)))
    return [group_from_json(json.loads(line)) for line in whole]
