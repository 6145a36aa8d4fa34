"""Answers on disk, by the content of their question: what was answered once is never asked again.

One JSON object a line, appended under a lock, checksummed and synced before the answer is used. A line
that a crash cut short, or that something altered, is skipped. Several processes may share a file: each
reads what the others appended.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no such locks here; lines are short and checked
    fcntl = None  # type: ignore[assignment]

MAX_LINE = 16 * 1024 * 1024


def content_key(value: Mapping[str, Any]) -> str:
    """SHA-256 of a value as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Cache:
    """A file of answers. Only where each one stands is kept in memory."""

    path: Path
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)
    _read: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self) -> None:
        """Looks for what was appended since."""
        with self._lock:
            self._scan()

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer to a question, if it is there and whole."""
        with self._lock:
            place = self._places.get(key)
            if place is None:
                return None
            try:
                with self.path.open("rb") as stream:
                    stream.seek(place[0])
                    found = _entry(stream.read(place[1]))
            except OSError:
                return None
        return found[1] if found is not None and found[0] == key else None

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Appends an answer, and returns once it is on disk.

        Raises: OSError if it cannot be written.
        """
        text = json.dumps(answer, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        line = f'{{"key":"{key}","sum":"{_sum(key, text)}","answer":{text}}}\n'.encode()
        with self._lock, _appending(self.path) as descriptor:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line, start = b"\n" + line, 1  # behind a line that was cut short
            else:
                start = 0
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
            self._places[key] = (size + start, len(line) - start)

    def _scan(self) -> None:
        try:
            with self.path.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                if size < self._read:  # another file, or an emptied one
                    self._places.clear()
                    self._read = 0
                stream.seek(self._read)
                while (line := stream.readline(MAX_LINE)).endswith(b"\n"):
                    found = _entry(line)
                    if found is not None:
                        self._places[found[0]] = (self._read, len(line))
                    self._read += len(line)
        except FileNotFoundError:
            self._places.clear()
            self._read = 0


def _sum(key: str, text: str) -> str:
    return hashlib.sha256(f"{key}{text}".encode()).hexdigest()[:16]


def _entry(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """A line's key and answer; None for one that is torn or altered."""
    try:
        value = json.loads(line)
        key, answer = value["key"], value["answer"]
        text = json.dumps(answer, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        good = isinstance(answer, dict) and value["sum"] == _sum(key, text)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (key, answer) if good else None


@contextmanager
def _appending(path: Path) -> Iterator[int]:
    """The file open for appending and for us alone; readable by its owner only, as judged texts may be private."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
    if new:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """The folder's entry of a new file on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_path(setting: str | None, url: str, model: str) -> Path | None:
    """Where answers of one server's model are kept.

    Args: setting: "auto" for the user's cache folder, a folder, a file that ends with .jsonl, or None for nowhere.
    """
    if setting is None:
        return None
    name = hashlib.sha256(f"{url}\n{model}".encode()).hexdigest()[:16] + ".jsonl"
    if setting == "auto":
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Path(base) / "strop" / "judges" / name
    path = Path(setting).expanduser()
    return path if path.suffix == ".jsonl" else path / name


_caches: dict[Path, Cache] = {}
_lock = threading.Lock()


def cache_of(path: Path) -> Cache:
    """The process's one cache at a path, with what others appended."""
    with _lock:
        cache = _caches.setdefault(path.absolute(), Cache(path.absolute()))
    cache.refresh()
    return cache
