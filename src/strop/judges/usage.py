"""What asking cost: calls, answers from the cache, tokens, money. One counter a backend and process."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counts since the process began.

    Attributes:
        calls: requests sent, every attempt counted.
        cached: answers that needed none.
        failed: requests that got no answer in the end.
        prompt_tokens, completion_tokens: as the server counts them.
        spend: by the prices in the settings, in their currency.
    """

    calls: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spend: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __sub__(self, other: Usage) -> Usage:
        return Usage(**{f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)})


@dataclass(slots=True)
class Counter:
    """A sum that threads add to."""

    total: Usage = field(default_factory=Usage)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, usage: Usage) -> None:
        with self._lock:
            self.total = self.total + usage


_counters: dict[str, Counter] = {}
_lock = threading.Lock()


def usage_of(backend: Any) -> Counter:
    """The counter of a backend with these settings; equal settings share one."""
    with _lock:
        return _counters.setdefault(repr(backend), Counter())
