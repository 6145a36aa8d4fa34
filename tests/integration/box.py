"""A stand-in for a container: runs the Python script on its standard input with a root, network and pids of its own.

As a container's, its programs may start processes. Called as `python box.py FOLDER`; see test_code_runner.py.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import types
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"


def main() -> None:
    """Read a script, leave the machine behind, run it."""
    for name, path in (("strop", ""), ("strop.rewards", "/rewards"), ("strop.rewards.code", "/rewards/code")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [f"{SRC}/strop{path}"]
    from strop.rewards.code import cage, filter, kernel

    script = sys.stdin.buffer.read()
    held = cage.prepare("A", tempfile.mkdtemp(dir=sys.argv[1]))
    cage.before_start(held)
    pid = os.fork()
    if pid:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    cage._fresh_mounts()
    kernel.no_new_privileges()
    kernel.drop_capabilities()
    kernel.install_filter(refusing(filter.numbers(kernel.machine())))
    os.environ.clear()
    os.environ.update(PATH="/usr/bin", HOME="/tmp", TMPDIR="/tmp")
    for name in [n for n in sys.modules if n.startswith("strop")]:
        del sys.modules[name]
    exec(compile(script, "<stdin>", "exec"), {"__name__": "__main__"})


def refusing(numbers: dict[str, int]) -> bytes:
    """A filter like a container's default one: what reaches into the kernel is refused, all else allowed."""
    names = "io_uring_setup unshare setns mount bpf perf_event_open add_key request_key keyctl userfaultfd shmget"
    steps = [(0x20, 0, 0, 0)]
    for name in [*names.split(), "msgget", "semget", "mq_open"]:
        steps += [(0x15, 0, 1, numbers[name]), (0x06, 0, 0, 0x00050001)]
    return b"".join(struct.pack("HBBI", *step) for step in [*steps, (0x06, 0, 0, 0x7FFF0000)])


main()
