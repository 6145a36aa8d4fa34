"""Checkpoints that survive a kill at any moment and are never silently damaged or incomplete.

A checkpoint is a folder `step-000123/` of

    <group>.safetensors   one file a group of tensors: model, optimizer, ...
    state.json            plain values: scheduler, counters, seeds, KL controller, reference hash, ...
    manifest.json         format, step, size and sha256 of every file, which names are tied, own sha256

It is written beside its place under a temporary name: files, fsync, manifest, fsync, read back and
compared, renamed, parent fsync'd; only then are older ones removed. So what is visible is whole, and
what fails to verify later was damaged on the disk.

One process saves to a folder (rank 0). No pickle. Left out: sharded tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

FORMAT = 1
MANIFEST, STATE = "manifest.json", "state.json"
CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was saved at a step: tensors by group and name (on the CPU), and the plain state."""

    path: Path
    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


class Carried(Protocol):
    """What a run carries from step to step besides its learners (a KL coefficient, a snapshot of weights)."""

    def tensors(self) -> Mapping[str, Tensor]: ...
    def plain(self) -> Mapping[str, Any]: ...
    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None: ...


class DamagedError(Exception):
    """A checkpoint that does not match its manifest; the text says what and where."""


def save(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int
) -> Path:
    """Write `folder/step-<step>/` atomically and remove all but the newest `keep`; returns its path.

    A save of a step that exists replaces it. Tensors that are one memory (tied weights) are stored
    once and tied again at loading. No copy is made of contiguous CPU tensors; others are copied one
    at a time.

    Args:
        tensors: by group (a file name: letters, digits, _ and -) and name.
        state: what JSON can say exactly: text keys, numbers, texts, booleans, null, lists.
        keep: checkpoints left in the folder, at least 1; the newest is read back and verified first.
    Raises:
        ValueError if state is no plain JSON (tuples come back as lists), or a dtype is not known.
        OSError if writing fails or what was written reads back differently; earlier ones stay.
    """
    _check(keep >= 1, f"keep is {keep}; a run must keep at least 1 checkpoint")
    _check(all(re.fullmatch(r"[\w-]+", group) for group in tensors), f"bad tensor group name among {sorted(tensors)}")
    _check_plain(state, "state")
    folder.mkdir(parents=True, exist_ok=True)
    _recover(folder)
    temporary = folder / f".new-{_name(step)}"
    temporary.mkdir()
    try:
        _write_all(temporary, step, tensors, state)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    final = _publish(temporary, folder / _name(step))
    for _, path in _found(folder)[keep:]:
        if path != final:
            shutil.rmtree(path.rename(path.with_name(f".gone-{path.name}")))  # never seen half removed
    return final


def load(folder: Path, say: Callable[[str], None], parts: Collection[str] = ()) -> Checkpoint | None:
    """The newest checkpoint in the folder that verifies; None if there is none at all.

    Args:
        say: told of every damaged checkpoint that was passed over, and why.
        parts: tensor groups the caller needs.
    Raises:
        ValueError if the checkpoint lacks a file that its manifest lists or a part that is needed, if it
            is of a newer format, or if there are checkpoints and all are damaged.
    """
    damage = []
    for step, path in _found(folder):
        try:
            manifest = verify(path)
        except DamagedError as error:
            damage.append(str(error))
            say(f"checkpoint {path} is damaged and is passed over: {error}")
            continue
        missing = sorted(set(parts) - {name.removesuffix(".safetensors") for name in manifest["files"]})
        _check(not missing, f"{path}: the checkpoint has no {', '.join(missing)}, which this run needs to resume")
        if damage:
            say(f"resuming from the earlier checkpoint of step {step}: {path}")
        return _read(path, manifest)
    _check(
        not damage,
        f"{folder}: none of {len(damage)} checkpoints verifies ({'; '.join(damage)}); remove them to restart",
    )
    return None


def verify(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder, after comparing every file's size and sha256 with it.

    Raises:
        DamagedError if anything differs.
        ValueError if a file is missing (renaming is atomic: somebody removed it) or the format is newer.
    """
    manifest = _manifest(path)
    for name, expected in manifest["files"].items():
        file = path / name
        _check(file.is_file(), f"{path}: {name} is missing; restore the file or remove this checkpoint")
        if file.stat().st_size != expected["bytes"]:
            raise DamagedError(f"{name} has {file.stat().st_size} bytes, not {expected['bytes']}")
        if _hash_file(file) != expected["sha256"]:
            raise DamagedError(f"{name} has another sha256 than when it was saved")
    return manifest


def flatten_optimizer(state_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A torch optimizer's state as (tensors named "<parameter index>.<name>", plain JSON for the rest).

    Raises: ValueError if a parameter group holds a tensor (a capturable learning rate) or another non-JSON value.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for index, entries in state_dict["state"].items():
        for name, value in entries.items():
            (tensors if isinstance(value, torch.Tensor) else values)[f"{index}.{name}"] = value
    plain = {"param_groups": [dict(group) for group in state_dict["param_groups"]], "values": values}
    _check_plain(plain, "optimizer")
    return tensors, plain


def unflatten_optimizer(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten_optimizer`, after its JSON was written and read."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in (*tensors.items(), *plain["values"].items()):
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = [
        {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
        for group in plain["param_groups"]
    ]
    return {"state": state, "param_groups": groups}


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's elements as little-endian bytes in row-major order; no copy if it is contiguous on the CPU."""
    assert sys.byteorder == "little", "safetensors files are little-endian"
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    array: Any = flat.view(torch.uint8).numpy()  # numpy's stubs for Python 3.11 do not know it is a buffer
    return memoryview(array)


def _write_all(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Every file of a checkpoint into the folder, synced, and read back."""
    files: dict[str, dict[str, Any]] = {}
    aliases: dict[str, dict[str, str]] = {}
    for group, named in tensors.items():
        aliases[group] = _aliases(named)
        stored = {name: tensor for name, tensor in named.items() if name not in aliases[group]}
        files[f"{group}.safetensors"] = _write(folder / f"{group}.safetensors", _safetensors(stored))
    text = json.dumps(state, indent=1, ensure_ascii=False)
    files[STATE] = _write(folder / STATE, iter([memoryview(text.encode())]))
    manifest: dict[str, Any] = {"format": FORMAT, "step": step, "files": files, "aliases": aliases}
    manifest["sha256"] = _hash_json(manifest)
    _write(folder / MANIFEST, iter([memoryview(json.dumps(manifest, indent=1).encode())]))
    _sync(folder)
    try:
        verify(folder)
    except DamagedError as error:
        raise OSError(f"{folder} reads back other than it was written ({error}); is the disk failing?") from error


def _publish(temporary: Path, final: Path) -> Path:
    """Rename to the final name; an older save of the step steps aside first and is found again by `_recover`."""
    old = final.with_name(f".old-{final.name}")
    if final.exists():
        final.rename(old)
    temporary.rename(final)
    _sync(final.parent)
    if old.exists():
        shutil.rmtree(old)
    return final


def _recover(folder: Path) -> None:
    """Clear what a killed save left: half-written and half-removed folders, and replaced ones (put back if need be)."""
    for path in (*folder.glob(".new-step-*"), *folder.glob(".gone-*")):
        shutil.rmtree(path)
    for path in folder.glob(".old-step-*"):
        final = path.with_name(path.name.removeprefix(".old-"))
        if final.exists():
            shutil.rmtree(path)
        else:
            path.rename(final)


def _found(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of the checkpoints, newest first; a replaced one counts while its place is empty."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob(".old-step-*")) + sorted(folder.glob("step-*")):
        match = re.fullmatch(r"(?:\.old-)?step-(\d+)", path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    return sorted(found.items(), reverse=True)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        claimed = manifest.pop("sha256")
    except FileNotFoundError as error:
        raise DamagedError(f"{MANIFEST} is missing") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedError(f"{MANIFEST} cannot be read ({error})") from error
    if claimed != _hash_json(manifest):
        raise DamagedError(f"{MANIFEST} does not match its own sha256")
    _check(
        manifest["format"] <= FORMAT,
        f"{path} has format {manifest['format']}, this version reads {FORMAT}: upgrade strop",
    )
    return dict(manifest)


def _read(path: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    from safetensors.torch import load_file

    tensors: dict[str, dict[str, Tensor]] = {}
    for group, aliases in manifest["aliases"].items():
        named = load_file(path / f"{group}.safetensors")
        tensors[group] = named | {name: named[first] for name, first in aliases.items()}
    return Checkpoint(path, manifest["step"], tensors, json.loads((path / STATE).read_bytes()))


def _aliases(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Names whose tensor is the very memory of an earlier name's: later name -> first name."""
    first: dict[tuple[Any, ...], str] = {}
    aliases = {}
    for name, tensor in tensors.items():
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and first.setdefault(memory, name) != name:
            aliases[name] = first[memory]
    return aliases


def _safetensors(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """A safetensors file in pieces: header length, JSON header padded to 8 bytes, then each tensor.

    Wider elements come first, so that every tensor is aligned to its element size.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, end = {}, 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _dtype_name(tensor, name), "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for name in order:
        yield tensor_bytes(tensors[name])


def _dtype_name(tensor: Tensor, name: str) -> str:
    names = {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.float8_e5m2: "F8_E5M2",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
    _check(
        tensor.dtype in names, f"{name}: a checkpoint cannot hold {tensor.dtype}; known: {', '.join(names.values())}"
    )
    return names[tensor.dtype]


def _write(path: Path, pieces: Iterator[memoryview]) -> dict[str, Any]:
    """Write and sync a file; returns its manifest entry, hashed from memory and not from the disk."""
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for piece in pieces:
            for start in range(0, piece.nbytes, CHUNK_BYTES):
                chunk = piece[start : start + CHUNK_BYTES]
                digest.update(chunk)
                file.write(chunk)
            size += piece.nbytes
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "bytes": size}


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _check_plain(value: Any, where: str) -> None:
    """Refuse what JSON would drop or change in silence, naming where it stands."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check(isinstance(key, str), f"{where}: the key {key!r} is no text; JSON would turn it into one")
            _check_plain(entry, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, entry in enumerate(value):
            _check_plain(entry, f"{where}[{i}]")
    else:
        plain = value is None or type(value) in (bool, int, float, str)
        _check(plain, f"{where}: a {type(value).__name__} is no plain value; save it as a number, text, list or tensor")


def _check(good: bool, text: str) -> None:
    if not good:
        raise ValueError(text)
