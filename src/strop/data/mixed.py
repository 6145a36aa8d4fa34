"""Prompts of several sources, each read as what it is: problems with an answer beside requests with a completion.

Rows that are trained on must share one kind, and `formats.load_dataset` sees to that. Where only prompts
are wanted they need not: a file of prompts and one of prompts with answers are two files of prompts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from strop.data.formats import Dataset, load_dataset
from strop.data.read import sha256


def load_prompts(
    paths: Sequence[str],
    *,
    kind: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    limit: int | None = None,
    system: str | None = None,
) -> Dataset:
    """As `load_dataset`, with a kind of its own for each path; the first one's stands for all.

    Raises: ValueError as `load_dataset` does, for each path.
    """
    found: list[Dataset] = []
    for path in paths:
        left = None if limit is None else limit - sum(len(one.groups) for one in found)
        if left == 0:
            break
        found.append(load_dataset(path, kind=kind, columns=columns, split=split, limit=left, system=system))
    return found[0] if len(found) == 1 else _together(found)


def _together(found: Sequence[Dataset]) -> Dataset:
    dropped: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for one in found:
        dropped.update(one.dropped)
        examples = {**one.examples, **examples}
    files = tuple(chain.from_iterable(one.files for one in found))
    in_files = all(one.files for one in found)
    hashes = "".join(one.sha256 for one in found)
    return Dataset(
        groups=tuple(chain.from_iterable(one.groups for one in found)),
        kind=found[0].kind,
        shape=" and ".join(dict.fromkeys(one.shape for one in found)),
        columns=tuple(dict.fromkeys(chain.from_iterable(one.columns for one in found))),
        dropped=dict(dropped.most_common()),
        examples=examples,
        sha256=sha256(map(Path, files)) if in_files else hashlib.sha256(hashes.encode()).hexdigest(),
        files=files,
        num_rows=sum(one.num_rows for one in found),
    )
