"""`gym:NAME` as a file of rows: made once by the generator, its scorer checked before it is used."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from strop.rewards.gym.check import self_check
from strop.rewards.gym.client import WorkerError, ask, require_gym
from strop.rewards.gym.entries import DEFAULT_SIZE, GYM, parse_source

CHECKED = 12
"""Entries by which a generator is checked."""
_CHUNK = 16
_MAKE_S = 300.0
"""Seconds that so many entries may take; the slowest generators need half a second each."""


def sized(path: str, limit: int | None) -> str:
    """The path with as many rows as are read, where it is of a generator and does not say itself."""
    if limit is None or not path.startswith(GYM) or parse_source(path).size is not None:
        return path
    return f"{path}{'&' if '?' in path else '?'}size={limit}"


def check_gym(paths: Sequence[str]) -> None:
    """What can be seen without the library's import: the paths' form, and that it is installed.

    Raises: ValueError naming what is wrong.
    """
    for path in paths:
        parse_source(path)
    require_gym()


def fingerprint(path: str, seed: int) -> str:
    """What the rows depend on, as a text: the path, the recipe's seed and the library's version."""
    require_gym()
    return f"{path}:{seed}:{importlib.metadata.version('reasoning-gym')}"


def resolve_gym(path: str, folder: Path, seed: int) -> str:
    """The file that holds a generator's rows, made first if need be.

    Args: seed: of rows whose path names none.
    Raises: ValueError for a wrong path or setting, where the library is missing, and where the
        generator fails its check.
    """
    digest = hashlib.sha256(fingerprint(path, seed).encode()).hexdigest()[:12]
    file = folder / f"{parse_source(path).name}-{digest}.jsonl"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text("".join(json.dumps(row) + "\n" for row in gym_rows(path, seed)), encoding="utf-8")
        part.replace(file)
    return str(file)


def gym_rows(path: str, seed: int) -> Iterator[dict[str, Any]]:
    """Rows `{"prompt", "answer", "task", "gym"}`; `gym` is what the reward needs, the entry and its settings.

    Raises: ValueError as `resolve_gym` does.
    """
    source = parse_source(path)
    size = source.size or DEFAULT_SIZE
    config = {**source.config, "seed": seed if source.seed is None else source.seed, "size": max(size, CHECKED)}
    first = _made(path, source.name, config, 0, CHECKED)
    if trouble := self_check(source.name, config, first, timeout_s=60.0):
        raise ValueError(f"{path}: the generator fails its check, so its scores cannot be trusted: {trouble}")
    for start in range(0, size, _CHUNK):
        for entry in _made(path, source.name, config, start, min(start + _CHUNK, size)):
            answer = {} if entry["answer"] is None else {"answer": str(entry["answer"])}
            about = {"name": source.name, "config": config, "entry": entry}
            yield {"prompt": entry["question"], **answer, "task": source.name, "gym": about}


def _made(path: str, name: str, config: dict[str, Any], start: int, stop: int) -> list[dict[str, Any]]:
    request = {"op": "make", "name": name, "config": config, "start": start, "stop": stop}
    try:
        reply = ask(request, timeout_s=_MAKE_S)
    except WorkerError as error:
        raise ValueError(f"{path}: entries {start} to {stop}: the generator {error}") from None
    if "refused" in reply:
        raise ValueError(f"{path}: {reply['refused']}")
    entries: list[dict[str, Any]] = reply["entries"]
    return entries
