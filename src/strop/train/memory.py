"""Memory of the process: keeping freed pages, and how much a stage held at most.

A stage's peak is the most resident memory of its process while it ran, everything in it: the interpreter,
libraries, weights, what is trained. The stages of a run share a process, so at a stage's beginning freed pages go
back to the kernel and the kernel's own high-water mark is put back to what is still held.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import re
import resource
import sys
from pathlib import Path

MIB = 2**20
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEMINFO = Path("/proc/meminfo")
PEAK_IS_NOW = "5"
"""Written to clear_refs it sets VmHWM to what is resident (proc(5))."""


def keep_freed_pages() -> bool:
    """Tell glibc to keep freed memory for the next allocation rather than give it back.

    A training step frees and takes the same large blocks again and again; handing them to the
    kernel each time costs a page fault for every 4 KiB, which on small machines was a fifth to a
    half of a step. Returns whether the C library listened (glibc on Linux; others need nothing).
    """
    if not _has_glibc():
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(key, value) for key, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, (1 << 31) - 1)))


def forget_peak() -> bool:
    """Let `peak_memory_mb` count from here: give kept pages back, and forget the high-water mark.

    Returns whether both were possible; otherwise peaks remain those of the whole process.
    """
    gc.collect()
    if not _has_glibc():
        return False
    ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR.write_text(PEAK_IS_NOW, "ascii")
    except OSError:  # a kernel built without it
        return False
    return True


def peak_memory_mb() -> float:
    """The most memory this process held since `forget_peak` (or since it began), in MiB (resident set)."""
    found = _status("VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of the process that started this one, if that had more
    return peak / 1024 if sys.platform.startswith("linux") else peak / 2**20


def memory_mb() -> float:
    """What this process holds now, in MiB (resident set); its peak where the system does not tell."""
    found = _status("VmRSS")
    return peak_memory_mb() if found is None else found


def free_memory() -> int | None:
    """Bytes that the machine could still give, None where the system does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", MEMINFO.read_text("ascii", "replace"), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024


def _status(field: str) -> float | None:
    """A field of /proc/self/status in MiB; None where there is no such file or field."""
    try:
        found = re.search(rf"^{field}:\s*(\d+) kB", STATUS.read_text("ascii", "replace"), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) / 1024


def _has_glibc() -> bool:
    return sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"
