"""The grader's end of one starter process (`zygote`): give it a program, get back how it ended and what it wrote.

All that passes is in files in memory that the program's process holds and nobody waits for, so
nothing can block: not a program that reads nothing, writes without end, or leaves a pipe open.
The one wait is for the starter's answer, and it has a limit.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from strop.rewards.code import values

Tier = Literal["A", "B", "C", "D"]

GRACE_S = 10.0
"""How much longer than a program's limit its starter may take to answer."""

_START_S = 30.0
PACKAGES = ("numpy",)
"""What programs may import beside the standard library, where it is installed."""

FILE_MB = 16
"""The largest file a program may write, its output among them."""

_BOOT = """
import sys, types
for name, path in (("strop", ""), ("strop.rewards", "/rewards"), ("strop.rewards.code", "/rewards/code")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [{package!r} + path]
from strop.rewards.code import zygote
zygote.main({tier!r}, {scratch!r}, {packages!r})
"""
"""Finds the sandbox's own modules without importing the packages they are in."""


class Fault(RuntimeError):
    """The grader's own machinery failed; nothing is known of the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use: seconds of the processor, MB of address space."""

    timeout_s: float
    memory_mb: int

    @property
    def wall_s(self) -> float:
        """Seconds on the clock: more, so that a busy machine fails no honest program."""
        return 1.5 * self.timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended.

    Attributes:
        status: its exit status; minus the signal if one ended it.
        why: why it was ended from outside ("timeout"); `None` if it ended by itself.
        output: what it wrote to standard output, one byte more than allowed at most.
        answer: what it left as its answer, the same.
        cpu_s: seconds of processor time.
    """

    status: int
    why: str | None
    output: bytes
    answer: bytes
    cpu_s: float


Relay = Callable[[bytes], bytes | None]
"""Answers a message of test code; `None` ends the test."""


class Worker:
    """One starter process. Not for two threads at a time; `pool` lends each to one.

    Attributes: spent: whether a program left something behind, so that no other may follow it.
    """

    def __init__(self, tier: Tier) -> None:
        """Start it. Raises: Fault with the step that the machine refuses."""
        self.tier: Tier = tier
        self.spent = False
        self.scratch = tempfile.mkdtemp(prefix="strop-code-")
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-S",
                    "-s",
                    "-P",
                    "-B",
                    "-X",
                    "utf8",
                    "-c",
                    _boot(tier, self.scratch),
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment(tier, self.scratch),
                cwd="/",
                start_new_session=True,
            )
        try:
            told = self._reply(time.monotonic() + _START_S)
        except Fault:
            self.close()
            raise
        if "fault" in told:
            self.close()
            raise Fault(str(told["fault"]))

    @property
    def pid(self) -> int:
        """The process that was started first."""
        return self._process.pid

    def run(self, request: dict[str, Any], limits: Limits, stdin: str | None = None) -> Ended:
        """Run one program to its end. Raises: Fault; close the worker then."""
        with contextlib.ExitStack() as opened:
            answer = opened.enter_context(memory_file(b""))
            files = {3: answer}
            output = None
            if stdin is not None:
                output = files[1] = opened.enter_context(memory_file(b""))
                files[0] = opened.enter_context(memory_file(stdin.encode("utf-8", "surrogatepass")))
            asked = opened.enter_context(memory_file(json.dumps(request).encode()))
            self._order(asked, files, limits)
            told = self._reply(time.monotonic() + limits.wall_s + GRACE_S)
            return self._ended(told, output, answer)

    def run_test(self, request: dict[str, Any], limits: Limits, wall_s: float, relay: Relay) -> Ended:
        """Run test code, its calls answered by `relay` one at a time. Raises: Fault, or what `relay` raises."""
        with contextlib.ExitStack() as opened:
            answer = opened.enter_context(memory_file(b""))
            asked = opened.enter_context(memory_file(json.dumps(request).encode()))
            ours, theirs = socket.socketpair()
            opened.enter_context(ours)
            with theirs:
                self._order(asked, {3: answer, 4: theirs}, limits, wall_s)
            deadline = time.monotonic() + wall_s + GRACE_S
            _relayed(ours, self._control, relay, deadline)
            ours.close()
            return self._ended(self._reply(deadline), None, answer)

    def _order(self, asked: Any, files: dict[int, Any], limits: Limits, wall_s: float | None = None) -> None:
        order = {
            "files": list(files),
            "wall_s": limits.wall_s if wall_s is None else wall_s,
            "cpu_s": limits.timeout_s,
            "limits": {"memory_mb": limits.memory_mb, "cpu_s": int(limits.timeout_s) + 1, "file_mb": FILE_MB},
        }
        fds = [asked.fileno(), *(file.fileno() for file in files.values())]
        try:
            socket.send_fds(self._control, [json.dumps(order).encode() + b"\n"], fds)
        except OSError as error:
            raise Fault(f"the sandbox's starter is gone: {error}") from None

    def _reply(self, deadline: float) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\n"):
            if not _ready([self._control], select.POLLIN, deadline):
                raise Fault("the sandbox's starter does not answer")
            try:
                part = self._control.recv(65536)
            except OSError:
                part = b""
            if not part:
                raise Fault("the sandbox's starter ended")
            data += part
        reply: dict[str, Any] = json.loads(data)
        return reply

    def _ended(self, told: dict[str, Any], output: Any, answer: Any) -> Ended:
        self.spent = bool(told.get("dirty"))
        if "fault" in told:
            raise Fault(told["fault"])
        return Ended(
            status=told["status"],
            why=told["why"],
            output=b"" if output is None else _read(output),
            answer=_read(answer),
            cpu_s=told["cpu_s"],
        )

    def close(self) -> None:
        """End the starter, what it started, and its folder."""
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        shutil.rmtree(self.scratch, ignore_errors=True)  # emptied by the starter where it could

    def forget(self) -> None:
        """In a forked copy of the grader: let go of the starter without ending it."""
        self._control.close()
        self._process.returncode = 0  # it is no child of the copy


def _boot(tier: Tier, scratch: str) -> str:
    return _BOOT.format(package=str(Path(__file__).parents[2]), tier=tier, scratch=scratch, packages=_packages())


def _packages() -> dict[str, str]:
    """Where the installed packages are that programs may import beside the standard library."""
    specs = {name: importlib.util.find_spec(name) for name in PACKAGES}
    return {name: str(Path(spec.origin).parent) for name, spec in specs.items() if spec is not None and spec.origin}


def environment(tier: Tier, scratch: str) -> dict[str, str]:
    """All that a program's environment holds. Nothing of the grader's own."""
    home = "/tmp" if tier == "A" else scratch
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def memory_file(data: bytes) -> Any:
    """A file in memory that holds `data`, read from its start."""
    file: Any
    if sys.platform == "linux":
        file = os.fdopen(os.memfd_create("strop"), "w+b", buffering=0)
    else:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    file.seek(0)
    return file


def _read(file: Any) -> bytes:
    return os.pread(file.fileno(), values.MAX_BYTES + 1, 0)


def _ready(ends: Sequence[socket.socket], event: int, deadline: float) -> set[int]:
    """The descriptors among `ends` that an event has come to. A poll: a select takes none above 1023."""
    waiting = select.poll()
    for end in ends:
        waiting.register(end, event)
    return {fd for fd, _ in waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)}


def _relayed(channel: socket.socket, control: socket.socket, relay: Relay, deadline: float) -> None:
    """Answer the test code's messages until it ends, says too much, or `relay` has enough."""
    channel.setblocking(False)
    data = b""
    while True:
        if channel.fileno() not in _ready([channel, control], select.POLLIN, deadline):
            return  # it ended, or takes too long: the starter's answer tells
        try:
            part = channel.recv(1 << 16)
        except OSError:
            return
        data += part
        if not part or len(data) > 4 + values.MAX_BYTES:
            return
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 + size:
            continue
        message, data = data[4 : 4 + size], b""
        reply = relay(message)
        if reply is None or not _sent(channel, len(reply).to_bytes(4, "little") + reply, deadline):
            return


def _sent(channel: socket.socket, data: bytes, deadline: float) -> bool:
    view = memoryview(data)
    while view:
        if not _ready([channel], select.POLLOUT, deadline):
            return False
        try:
            view = view[channel.send(view) :]
        except BlockingIOError:
            continue
        except OSError:
            return False
    return True
