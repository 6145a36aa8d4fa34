"""Memory of the process: keeping freed pages, and how much it held at most."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4


def keep_freed_pages() -> bool:
    """Tell glibc to keep freed memory for the next allocation rather than give it back.

    A training step frees and takes the same large blocks again and again; handing them to the
    kernel each time costs a page fault for every 4 KiB, which on small machines was a fifth to a
    half of a step. Returns whether the C library listened (glibc on Linux; others need nothing).
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(key, value) for key, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, (1 << 31) - 1)))


def peak_memory_mb() -> float:
    """The most memory this process held so far, in MiB (resident set)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform.startswith("linux") else peak / 2**20
