"""The average of models' weights: of checkpoints of one run, or of models fine-tuned from one start (WARM).

Tensors are read, averaged and written one at a time, so no model is held in memory. Models must
have the same tensors and the same tokenizer; that they stem from one start nobody can tell from
the files, and models that do not average to nonsense.

Left out: spherical interpolation, pruning before merging (TIES, DARE), `.bin` files.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

SHARD_BYTES = 4 << 30
"""Larger models are written as several files, none of which is held in memory beside another."""
INDEX = "model.safetensors.index.json"
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "vocab.txt")
"""Files that say which id is which text."""
BESIDE = (*TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
          "generation_config.json")  # fmt: skip
"""What is taken over from the first model beside its config; figures fitted to one member (reward.json) are not."""


def average(folders: Sequence[Path], out: Path, weights: Sequence[float] | None = None) -> None:
    """Write the model sum_i w_i theta_i, with sum_i w_i = 1: sums in float64, weights in fp32.

    Args: weights: of each model, normalised here; equal where None.
    Raises: ValueError naming the model, and the tensor or file, that does not fit the first one.
    Izmailov et al. 2018, arXiv:1803.05407; reward models: Rame et al. 2024 (WARM), arXiv:2401.12187.
    """
    shares = _shares(len(folders), weights)
    members = [_Member.of(folder) for folder in folders]
    for other in members[1:]:
        _check_same(members[0], other)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        readers = [member.open(stack) for member in members]
        _write(out, members[0], lambda name: _mean(name, [r[name] for r in readers], shares, members))
    config = json.loads((folders[0] / "config.json").read_text("utf-8"))
    config.pop("torch_dtype", None)
    (out / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", "utf-8")
    for name in BESIDE:
        if (folders[0] / name).is_file():
            shutil.copyfile(folders[0] / name, out / name)


@dataclass(frozen=True, slots=True)
class _Member:
    """A model folder: which file holds each tensor, and its shape and dtype."""

    folder: Path
    files: dict[str, Path]
    shapes: dict[str, tuple[int, ...]]
    config: dict[str, Any]

    @staticmethod
    def of(folder: Path) -> _Member:
        """Read the headers."""
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            files: dict[str, Path] = {}
            shapes: dict[str, tuple[int, ...]] = {}
            for file in sorted(folder.glob("*.safetensors")):
                with safe_open(file, "pt") as reader:
                    for name in reader.keys():  # noqa: SIM118 (a reader is no mapping)
                        files[name], shapes[name] = file, tuple(reader.get_slice(name).get_shape())
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(f"cannot read the model in {str(folder)!r}: {error}") from error
        if not files:
            raise ValueError(f"no *.safetensors in {str(folder)!r}: only those can be averaged")
        return _Member(folder, files, shapes, config)

    def open(self, stack: ExitStack) -> dict[str, Any]:
        """The open reader of each tensor's file."""
        opened = {file: stack.enter_context(safe_open(file, "pt")) for file in sorted(set(self.files.values()))}
        return {name: opened[file] for name, file in self.files.items()}


def _shares(num: int, weights: Sequence[float] | None) -> list[float]:
    if not num:
        raise ValueError("no models to average; name at least one")
    if weights is None:
        return [1 / num] * num
    if len(weights) != num:
        raise ValueError(f"{len(weights)} weights for {num} models; give one each, or none")
    total = math.fsum(weights)
    if any(w < 0 or not math.isfinite(w) for w in weights) or total <= 0:
        raise ValueError(f"weights must be finite, not negative and not all 0, got {list(weights)}")
    return [w / total for w in weights]


def _check_same(first: _Member, other: _Member) -> None:
    names = f"{str(other.folder)!r} cannot be averaged with {str(first.folder)!r}"
    for key in ("architectures", "model_type"):
        if first.config.get(key) != other.config.get(key):
            raise ValueError(f"{names}: {key} is {other.config.get(key)}, not {first.config.get(key)}")
    for name in sorted({*first.shapes, *other.shapes}):
        ours, theirs = first.shapes.get(name), other.shapes.get(name)
        if ours != theirs:
            said = ["missing" if shape is None else str(list(shape)) for shape in (theirs, ours)]
            raise ValueError(f"{names}: {name} is {said[0]}, not {said[1]}")
    for name in TOKENIZER:
        sides = [(m.folder / name).read_bytes() if (m.folder / name).is_file() else None for m in (first, other)]
        if None not in sides and sides[0] != sides[1]:
            raise ValueError(f"{names}: their {name} differ, so their token ids mean different texts")


def _mean(name: str, readers: Sequence[Any], shares: Sequence[float], members: Sequence[_Member]) -> torch.Tensor:
    """One tensor's weighted mean; numbers that are no weights (an index) must be the same everywhere."""
    tensors: Iterator[torch.Tensor] = (reader.get_tensor(name) for reader in readers)
    first = next(tensors)
    if not first.is_floating_point():
        for tensor, member in zip(tensors, members[1:], strict=True):
            if not torch.equal(first, tensor):
                raise ValueError(f"{str(member.folder)!r}: {name} holds {first.dtype} that differ; they have no mean")
        return first
    total = first.double() * shares[0]
    for tensor, share in zip(tensors, shares[1:], strict=True):
        total += tensor.double() * share
    return total.float()


def _write(out: Path, layout: _Member, tensor_of: Callable[[str], torch.Tensor]) -> None:
    """The tensors in one file, or in numbered ones with an index."""
    shards = list(_shards(layout.shapes))
    where: dict[str, str] = {}
    size = 0
    for number, names in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: tensor_of(name) for name in names}
        save_file(tensors, out / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(names, file))
        size += sum(t.numel() * t.element_size() for t in tensors.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": where}
        (out / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")


def _shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """The names in order, in parts of at most SHARD_BYTES of fp32."""
    part: list[str] = []
    used = 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        if part and used + size > SHARD_BYTES:
            yield part
            part, used = [], 0
        part.append(name)
        used += size
    yield part
