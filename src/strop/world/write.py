"""The world as a folder of ordinary files, and `world:NAME` paths that stand for them.

    base/          random weights, config, tokenizer     world:base
    small/         the same, three fifths of its size    world:small
    sft.jsonl      19,200 rows, in order                 world:sft
    pairs.jsonl     1,024 rows                           world:pairs
    prompts.jsonl   2,048 rows                           world:prompts
    test.jsonl      1,000 rows                           world:test
    cold.jsonl      1,024 rows                           world:cold
    general.jsonl     512 rows                           world:general
    world.json     the seed and these counts, written last

Same seed, same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from strop.world.datasets import rows
from strop.world.model import SHAPES, write_base

SIZES: Mapping[str, int] = MappingProxyType(
    {"sft": 19_200, "pairs": 1_024, "prompts": 2_048, "test": 1_000, "cold": 1_024, "general": 512}
)
PREFIX = "world:"


def write_world(folder: Path, seed: int) -> None:
    """Write every file of the world into the folder, over what an earlier seed may have left."""
    marker = folder / "world.json"
    folder.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    for name, shape in SHAPES.items():
        write_base(folder / name, seed, shape)
    for name, n in SIZES.items():
        lines = (json.dumps(row) + "\n" for row in rows(name, seed, n))
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    marker.write_text(_marker(seed), encoding="utf-8")


def resolve(path: str, folder: Path, seed: int) -> str:
    """The file or folder that `world:NAME` stands for, written first if need be; others unchanged.

    Raises: ValueError if the world has nothing of that name.
    """
    if not path.startswith(PREFIX):
        return path
    name = path.removeprefix(PREFIX)
    if name not in SHAPES and name not in SIZES:
        raise ValueError(f"{path}: not in the embedded world; it has {', '.join((*SHAPES, *SIZES))}")
    marker = folder / "world.json"
    if not marker.is_file() or marker.read_text(encoding="utf-8") != _marker(seed):
        write_world(folder, seed)
    return str(folder / (name if name in SHAPES else f"{name}.jsonl"))


def _marker(seed: int) -> str:
    return json.dumps({"seed": seed, "models": list(SHAPES), "rows": dict(SIZES)}, indent=2) + "\n"
