"""Reference log-probs on disk, so that a frozen model reads every sequence once.

The key of a sequence is a sha256 over all that its log-probs depend on: the model's hash, the
precision, the temperature, the prompt, the completion and which of its tokens are trained. What a
cache cannot know (a template, a truncation) has already happened to the token ids.

File, little-endian:

    header   8 bytes "stropref", uint32 version, uint32 length of the identity, its UTF-8, crc32 of all before
    record   32-byte key, uint32 count, count float32 (nats), crc32 of the record's bytes before it

Records are only appended. A record cut off by a kill is dropped when the file is next opened; one
whose checksum fails is passed over; both are said. The first process to open a file may write it,
a second one reads what was there and keeps its own additions in memory.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from strop.model.adapter import base_tensors
from strop.train.checkpoint import tensor_bytes

if TYPE_CHECKING:
    from torch import nn

Logprobs = npt.NDArray[np.float32]

MAGIC, VERSION = b"stropref", 1
KEY_BYTES, COUNT, CRC = 32, struct.Struct("<I"), struct.Struct("<I")
FIXED_BYTES = KEY_BYTES + COUNT.size + CRC.size
FLUSH_BYTES = 1 << 20


class ReferenceCache:
    """Log-probs [n trained tokens] by sequence key, in one append-only file.

    Args:
        path: the file; made if absent.
        identity: what all its records share (model hash, precision, temperature); a file of another one is refused.
        say: told of dropped records, and if the file may only be read because another process writes it.
    Raises: ValueError if the file is no cache, of another version or of another identity.
    """

    def __init__(self, path: Path, identity: str, say: Callable[[str], None]) -> None:
        self.path = path
        self._say = say
        self._index: dict[bytes, tuple[int, int]] = {}
        self._fresh: dict[bytes, Logprobs] = {}
        self._fresh_bytes = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self.writable = self._lock()
            self._end = self._open(identity)
        except BaseException:
            os.close(self._file)
            raise

    def __len__(self) -> int:
        return len(self._index) + len(self._fresh)

    def get(self, key: bytes) -> Logprobs | None:
        """The log-probs stored under the key, or None."""
        if key in self._fresh:
            return self._fresh[key]
        if key not in self._index:
            return None
        offset, count = self._index[key]
        return np.frombuffer(os.pread(self._file, 4 * count, offset), "<f4").astype(np.float32)

    def put(self, key: bytes, logprobs: npt.ArrayLike) -> None:
        """Remember log-probs; a key that is there keeps its first value. Written each megabyte and by `flush`."""
        assert len(key) == KEY_BYTES, len(key)
        if key in self._fresh or key in self._index:
            return
        values = np.array(logprobs, np.float32)
        assert values.ndim == 1, values.shape
        self._fresh[key] = values
        self._fresh_bytes += values.nbytes + FIXED_BYTES
        if self._fresh_bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Append what is new to the file; without the lock it stays in memory."""
        if not self.writable or not self._fresh:
            return
        block = bytearray()
        for key, values in self._fresh.items():
            self._index[key] = (self._end + len(block) + KEY_BYTES + COUNT.size, len(values))
            block += _record(key, values)
        _write_at(self._file, block, self._end)
        self._end += len(block)
        self._fresh.clear()
        self._fresh_bytes = 0

    def close(self) -> None:
        """Write what is new, and release the file and its lock."""
        self.flush()
        os.close(self._file)

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._say(f"{self.path} is being written by another process: reading it, and keeping new entries in memory")
            return False
        return True

    def _open(self, identity: str) -> int:
        """Check the header (or write it), index the records, cut a torn tail; returns where to append."""
        header = _header(identity)
        size = os.fstat(self._file).st_size
        if size < len(header) and header.startswith(os.pread(self._file, size, 0)):  # new, or cut while being made
            if self.writable:
                _write_at(self._file, header, 0)
            return len(header)
        with mmap.mmap(self._file, 0, access=mmap.ACCESS_READ) as data:
            _check_header(self.path, data, header)
            self._index, end, corrupt = _scan(data, len(header))
        if corrupt:
            self._say(f"{self.path}: {len(corrupt)} corrupted records dropped, the first at byte {corrupt[0]}")
        if end < size and self.writable:
            self._say(f"{self.path}: the last {size - end} bytes are no whole record, dropped")
            os.ftruncate(self._file, end)
        return end


def sequence_key(
    *,
    model: str,
    precision: str,
    temperature: float,
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    trained: Sequence[bool],
) -> bytes:
    """The 32-byte key of a sequence's log-probs: sha256 over everything they depend on.

    Args: model: `model_hash` or `module_hash`; trained: [completion tokens].
    """
    assert len(trained) == len(completion_ids)
    head = json.dumps([model, precision, float(temperature), len(prompt_ids), len(completion_ids)])
    digest = hashlib.sha256(head.encode() + b"\n")
    digest.update(np.asarray([*prompt_ids, *completion_ids], "<i8").tobytes())
    digest.update(bytes(map(bool, trained)))
    return digest.digest()


def model_hash(folder: Path) -> str:
    """sha256 over a model folder's config.json and every .safetensors file, by name and content.

    Files unchanged in path, size and modification time are not read again by this process.

    Raises: ValueError if the folder has no config.json or no .safetensors file.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not weights:
        raise ValueError(f"{folder} is no model folder: it needs config.json and at least one .safetensors file")
    digest = hashlib.sha256()
    for path in (folder / "config.json", *weights):
        stat = path.stat()
        digest.update(f"{path.name} {_file_hash(str(path.resolve()), stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


def module_hash(module: nn.Module, config: Mapping[str, Any]) -> str:
    """sha256 over a module's parameters and buffers (name order; dtype, shape, bytes) and its plain config.

    An adapter is no part of it: the hash is that of the base model.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode() + b"\n")
    for name, tensor in sorted(base_tensors(module).items()):
        digest.update(f"{json.dumps(name)} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


@functools.lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _header(identity: str) -> bytes:
    name = identity.encode()
    head = MAGIC + struct.pack("<II", VERSION, len(name)) + name
    return head + CRC.pack(zlib.crc32(head))


def _check_header(path: Path, data: mmap.mmap, expected: bytes) -> None:
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path} is no cache of reference log-probs; give another path")
    if data[: len(expected)] != expected:
        raise ValueError(f"{path} was made for another model, precision, temperature or version; remove it to rebuild")


def _scan(data: mmap.mmap, start: int) -> tuple[dict[bytes, tuple[int, int]], int, list[int]]:
    """Index the records: (key -> (offset of the numbers, count), end of the last whole record, corrupted offsets).

    A record whose checksum fails is passed over if a good one or the end follows where it says it ends.
    If not, its length is not to be trusted, and all from there on is dropped.
    """
    index: dict[bytes, tuple[int, int]] = {}
    corrupt: list[int] = []
    at, size = start, len(data)
    with memoryview(data) as view:
        while (end := _record_end(view, at)) <= size:
            if _intact(view, at, end):
                first = at + KEY_BYTES + COUNT.size
                index[bytes(view[at : at + KEY_BYTES])] = (first, (end - CRC.size - first) // 4)
            else:
                corrupt.append(at)
                after = _record_end(view, end)
                if end < size and not (after <= size and _intact(view, end, after)):
                    break
            at = end
    return index, at, corrupt


def _record_end(view: memoryview, at: int) -> int:
    """Where the record that begins here says it ends; past the file's end if it is cut."""
    if at + FIXED_BYTES > len(view):
        return len(view) + 1
    return int(at + FIXED_BYTES + 4 * COUNT.unpack_from(view, at + KEY_BYTES)[0])


def _intact(view: memoryview, at: int, end: int) -> bool:
    return bool(zlib.crc32(view[at : end - CRC.size]) == CRC.unpack_from(view, end - CRC.size)[0])


def _record(key: bytes, values: Logprobs) -> bytes:
    body = key + COUNT.pack(len(values)) + values.astype("<f4").tobytes()
    return body + CRC.pack(zlib.crc32(body))


def _write_at(file: int, data: bytes | bytearray, offset: int) -> None:
    """All of the data at the offset; the system may take it in parts."""
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(file, view[done:], offset + done)
