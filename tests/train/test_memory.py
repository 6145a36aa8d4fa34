"""The peak counts from where it was forgotten, and is this process's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from strop.train.memory import CLEAR, STATUS, forget_peak, memory_mb, peak_memory_mb

linux = pytest.mark.skipif(not (STATUS.exists() and CLEAR.exists()), reason="needs Linux's /proc")


@linux
def test_a_freed_block_is_no_part_of_the_peak_once_it_is_forgotten() -> None:
    block = bytearray(b"x" * (300 << 20))
    assert peak_memory_mb() >= memory_mb() > 300
    before = peak_memory_mb()
    del block
    if not forget_peak():
        pytest.skip("this system does not let a process forget its peak")
    assert peak_memory_mb() < before - 250
    assert peak_memory_mb() == pytest.approx(memory_mb(), abs=20)


@linux
def test_what_the_parent_held_is_no_part_of_a_childs_peak() -> None:
    """getrusage gives a child the high-water mark of the process that started it."""
    block = bytearray(b"x" * (300 << 20))
    code = "from strop.train.memory import peak_memory_mb; print(peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert len(block) and float(done.stdout) < 150
