"""What a container runs (tier C): one program under limits, its end told as one line of JSON.

The container is the isolation; this keeps time within it, so that it ends by itself even where
the command that started it was killed. Sent to the container as source, with `values` and `child`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from typing import Any, NoReturn

from strop.rewards.code import child, values

READY = b"strop: ready\n"
"""Told before the program starts: what fails later is the program's doing."""


def main(order: dict[str, Any]) -> NoReturn:
    """Run the order's program and print how it ended."""
    out = os.dup(1)
    os.write(out, READY)
    files = [tempfile.TemporaryFile(buffering=0) for _ in range(3)]  # noqa: SIM115
    files[0].write(order["stdin"].encode("utf-8", "surrogatepass"))
    files[0].seek(0)
    folder = tempfile.mkdtemp()
    pid = os.fork()
    if pid == 0:
        _become(order, files, folder)
    why, status, cpu_s = _wait(pid, order["wall_s"])
    told = {"status": status, "why": why, "cpu_s": cpu_s, "output": _text(files[1]), "answer": _text(files[2])}
    os.write(out, json.dumps(told).encode() + b"\n")
    os._exit(0)


def _become(order: dict[str, Any], files: list[Any], folder: str) -> NoReturn:
    try:
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for at, fd in enumerate((files[0].fileno(), files[1].fileno(), quiet, files[2].fileno())):
            os.dup2(fd, at + 20)
        for at in range(4):
            os.dup2(at + 20, at)
        os.closerange(4, 4096)
        os.chdir(folder)
        _limit(order["limits"])
    except BaseException:
        os._exit(70)
    child.serve(order["request"])


def _limit(limits: dict[str, Any]) -> None:
    memory, size = limits["memory_mb"] * 2**20, limits["file_mb"] * 2**20
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_FSIZE, size),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 128),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def _wait(pid: int, wall_s: float) -> tuple[str | None, int, float]:
    deadline = time.monotonic() + wall_s
    why, pause = None, 0.001
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG if why is None else 0)
        if done:
            _kill(pid)
            return why, os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        if time.monotonic() > deadline:
            why = "timeout"
            _kill(pid)
            continue
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _text(file: Any) -> str:
    return base64.b64encode(os.pread(file.fileno(), values.MAX_BYTES + 1, 0)).decode()


if __name__ == "__main__":
    sys.exit("this is sent to a container by the grader")
