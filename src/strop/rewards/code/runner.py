"""Tier C: programs run by a command of the user's, such as a container without a network.

The command reads a Python script on standard input and runs it, once a test:

    docker run --rm -i --network none --read-only --tmpfs /tmp --pids-limit 128 --memory 2g python:3.12-slim python -

The script brings the program and one input; what comes back is plain data, as in the other tiers.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from strop.rewards.code import values
from strop.rewards.code.contained import READY
from strop.rewards.code.pool import retried
from strop.rewards.code.worker import FILE_MB, GRACE_S, Ended, Fault, Limits, Relay, memory_file

START_S = 60.0
"""How long the command may take to begin, beside the program's own time."""

_MOST = 4 * values.MAX_BYTES
_MODULES = ("values", "child", "contained")
_SCRIPT = """
import sys, types, json
for name in ("strop", "strop.rewards", "strop.rewards.code"):
    sys.modules[name] = types.ModuleType(name)
for name, source in json.loads({sources!r}).items():
    module = types.ModuleType("strop.rewards.code." + name)
    sys.modules[module.__name__] = module
    setattr(sys.modules["strop.rewards.code"], name, module)
    exec(compile(source, name + ".py", "exec"), module.__dict__)
sys.modules["strop.rewards.code"].contained.main(json.loads({order!r}))
"""


@dataclass(frozen=True, slots=True)
class Remote:
    """A command that runs a Python script from its standard input, isolated."""

    command: str
    tier: Literal["C"] = "C"

    def run(self, request: dict[str, Any], limits: Limits, stdin: str | None = None) -> Ended:
        """Run one program. Raises: Fault after several tries."""
        return retried(lambda: _run(self.command, _script(request, limits, stdin or ""), limits.wall_s))

    def run_test(self, request: dict[str, Any], limits: Limits, wall_s: float, relay: Relay) -> Ended:
        """Run test code, which starts again with one answer more until it needs none.

        There is no way back into the command but its input, so each run replays the calls known.
        Raises: Fault after several tries.
        """
        replies: list[Any] = []
        deadline = time.monotonic() + wall_s
        while True:
            ended = self.run({**request, "replies": replies}, limits)
            message = _call_in(ended)
            reply = None if message is None or time.monotonic() > deadline else relay(message)
            if reply is None:
                return ended
            replies.append(json.loads(reply))


def _call_in(ended: Ended) -> bytes | None:
    """The call that test code waits for, if it ended with one."""
    return ended.answer if not ended.status and ended.answer.startswith(b'["call"') else None


def _script(request: dict[str, Any], limits: Limits, stdin: str) -> bytes:
    sources = {name: Path(__file__).with_name(f"{name}.py").read_text("utf-8") for name in _MODULES}
    most = {"memory_mb": limits.memory_mb, "cpu_s": int(limits.timeout_s) + 1, "file_mb": FILE_MB}
    order = {"request": request, "limits": most, "stdin": stdin, "wall_s": limits.wall_s}
    return _SCRIPT.format(sources=json.dumps(sources), order=json.dumps(order)).encode()


def _run(command: str, script: bytes, wall_s: float) -> Ended:
    with memory_file(script) as stdin, memory_file(b"") as said:
        try:
            process = subprocess.Popen(
                shlex.split(command), stdin=stdin, stdout=subprocess.PIPE, stderr=said, start_new_session=True
            )
        except OSError as error:
            raise Fault(f"the runner cannot be started: {error}") from None
        try:
            told = _told(process, time.monotonic() + wall_s + START_S + GRACE_S)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not told.startswith(READY):
            last = os.pread(said.fileno(), 2000, 0).decode("utf-8", "replace").strip()
            raise Fault(f"the runner did not run Python: exit status {process.returncode}: {last[-300:]}")
    return _ended(told[len(READY) :])


def _told(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What the command writes, until it closes its output, says too much, or takes too long."""
    assert process.stdout is not None
    data = b""
    with process.stdout as pipe:
        waiting = select.poll()
        waiting.register(pipe, select.POLLIN)
        while len(data) < _MOST and waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                break
            data += part
    return data


def _ended(line: bytes) -> Ended:
    """How a program ended. One that keeps its keeper from telling has crashed."""
    try:
        told = json.loads(line)
        output, answer = (base64.b64decode(told[name]) for name in ("output", "answer"))
        return Ended(
            status=int(told["status"]), why=told["why"], output=output, answer=answer, cpu_s=float(told["cpu_s"])
        )
    except (ValueError, KeyError, TypeError):
        return Ended(status=-9, why="its container gave no answer", output=b"", answer=b"", cpu_s=0.0)
