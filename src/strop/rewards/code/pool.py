"""Starters for every thread: each is lent to one thread at a time, kept when it is given back.

The pool starts one where none is free, so a thread that needs two (test code, and what it calls)
never waits for itself. All end with the process; a forked copy of it starts its own.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from strop.rewards.code.worker import Fault, Tier, Worker

MAX_IDLE = 64
"""Free starters kept of a tier."""

TRIES = 3
"""How often a run is begun again after a fault of the machinery."""

_lock = threading.Lock()
_idle: dict[Tier, list[Worker]] = {}
_lent: set[Worker] = set()

T = TypeVar("T")


@contextmanager
def lent(tier: Tier) -> Iterator[Worker]:
    """A starter of a tier, to give back; one that fails is ended. Raises: Fault where none starts."""
    with _lock:
        free = _idle.setdefault(tier, [])
        worker = free.pop() if free else None
    if worker is None:
        worker = Worker(tier)
    with _lock:
        _lent.add(worker)
    try:
        yield worker
    except BaseException:
        _end(worker)
        raise
    with _lock:
        _lent.discard(worker)
        keep = not worker.spent and len(_idle.setdefault(tier, [])) < MAX_IDLE
        if keep:
            _idle[tier].append(worker)
    if not keep:
        worker.close()


def retried(run: Callable[[], T]) -> T:
    """What `run` returns, begun again after a fault. Raises: Fault when every try failed."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return run()
        except Fault:
            if not left:
                raise
    raise AssertionError("unreachable")


def close_all() -> None:
    """End every starter, those in use too (their runs end in faults)."""
    with _lock:
        workers = [worker for free in _idle.values() for worker in free] + list(_lent)
        _idle.clear()
        _lent.clear()
    for worker in workers:
        worker.close()


def _end(worker: Worker) -> None:
    with _lock:
        _lent.discard(worker)
    worker.close()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    for worker in [*(w for free in _idle.values() for w in free), *_lent]:
        worker.forget()
    _idle.clear()
    _lent.clear()


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
