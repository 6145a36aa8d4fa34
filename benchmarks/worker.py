"""A side's process: takes commands on stdin, answers in JSON lines, and computes only when told to.

Commands: `step` (one whole optimizer step), `matmul` (the machine's rate), `stop`. Libraries print
to stdout as they like; answers go through a private copy of it, and stdout becomes stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's mallopt parameters (malloc.h)."""


class Channel:
    """The worker's end of the pipes."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def send(self, **answer: Any) -> None:
        """One answer to the parent."""
        self._answers.write(json.dumps(answer) + "\n")

    def receive(self) -> str:
        """The next command; waits for it. `matmul` is answered here."""
        while True:
            command = sys.stdin.readline().strip() or "stop"
            if command != "matmul":
                return command
            self.send(flops_per_s=matmul_rate())

    def serve(self, step: Callable[[], dict[str, Any]]) -> None:
        """Answers every `step` with its seconds and what `step` returns, until `stop`."""
        self.ready()
        while self.receive() == "step":
            start = time.perf_counter()
            numbers = step()
            self.send(seconds=time.perf_counter() - start, **numbers)
        self.finish()

    def ready(self) -> None:
        """Says that everything is loaded, and how much memory that took."""
        self.send(ready=True, loaded_mb=memory_mb("VmRSS"), versions=versions())

    def finish(self) -> None:
        """Says how much memory the process held at most."""
        self.send(peak_mb=memory_mb("VmHWM"))


def keep_memory() -> None:
    """Tells glibc to keep freed memory, since fresh pages are slow: what strop does to itself, for its peer.

    Large blocks come from the heap, which is never trimmed, so a freed tensor's pages are used again.
    """
    libc = ctypes.CDLL("libc.so.6")
    done = libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    assert done, "mallopt refused: not glibc?"


def memory_mb(field: str) -> float:
    """A field of /proc/self/status in MB (VmRSS: held now; VmHWM: held at most)."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) / 1024


def matmul_rate(size: int = 1_536, seconds: float = 0.5) -> float:
    """FLOP/s of a large fp32 matrix product with this process's threads; best of the repeats."""
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    out, best, end = torch.empty(size, size), float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.matmul(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def versions() -> dict[str, str]:
    """Versions of the libraries this side has imported."""
    names = ("torch", "transformers", "trl", "accelerate", "strop")
    return {name: sys.modules[name].__version__ for name in names if name in sys.modules}
