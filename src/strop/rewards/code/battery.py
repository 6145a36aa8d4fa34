"""Which sandbox holds on this machine: found by attacking each, never by what is installed.

Outside the sandbox baits are set up (a port, sockets, files, variables, an open file), then the
`attacks` are run inside as programs are. A tier holds if none of them could do anything, none left
anything behind, floods and hangs were stopped, and an honest program passed. Takes about a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.rewards.code import attacks, pool, values
from strop.rewards.code.filter import numbers
from strop.rewards.code.grade import Local, Sandbox
from strop.rewards.code.kernel import machine
from strop.rewards.code.worker import Ended, Fault, Limits, Tier, environment

LIMITS = Limits(timeout_s=5.0, memory_mb=512)
_SHORT = Limits(timeout_s=0.25, memory_mb=512)
_MARK = "strop-left-over"
_SAFE = {*environment("B", ""), "TERM", "SHELL", "TZ", "PWD", "LC_ALL", "LC_CTYPE"}
"""Variables that a sandbox sets itself, or a container may, to the same value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the battery found of one tier.

    Attributes: broken: what could be done that must not be; empty where the tier holds.
    """

    tier: Tier
    broken: tuple[str, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        return not self.broken


def examine(sandbox: Sandbox) -> Report:
    """Attack a sandbox. Changes nothing on the machine, but for baits that it removes again."""
    began = time.monotonic()
    try:
        broken = tuple(_broken(sandbox))
    except Fault as fault:
        broken = (f"it does not start: {fault}",)
    return Report(tier=sandbox.tier, broken=broken, seconds=time.monotonic() - began)


def _broken(sandbox: Sandbox) -> Iterator[str]:
    """What is wrong, the costly attacks only on what has held so far."""
    with _baits(sandbox) as target:
        honest = _said(sandbox, attacks.HONEST, target)
        if honest != ["honest"]:
            yield f"an honest program fails: {honest}"
            return
        found = [*_quick(sandbox, target), *_left(target)]
        yield from found
        if not found:
            yield from _endless(sandbox, target)


def _quick(sandbox: Sandbox, target: dict[str, Any]) -> Iterator[str]:
    for name, source in attacks.QUICK.items():
        found = _said(sandbox, source, target)
        if not isinstance(found, list):
            found = [] if name in ("memory", "disk") else [f"the attack {name!r} did not end: {found}"]
        yield from (f"a program can {what}" for what in found)


def _said(sandbox: Sandbox, source: str, target: dict[str, Any]) -> Any:
    """What an attack returned: a list of texts, or why there is none."""
    code = attacks.program(source)
    request = {"mode": "call", "code": code, "entry": "attack", "args": [values.encode(target)], "kwargs": {}}
    ended = sandbox.run(request, LIMITS)
    try:
        message = values.load(ended.answer)
        return values.decode(message[1]) if message[0] == "value" else ": ".join(map(str, message[1:3]))
    except (values.Unplain, LookupError, TypeError):
        return ended.why or f"exit status {ended.status}"


def _endless(sandbox: Sandbox, target: dict[str, Any]) -> Iterator[str]:
    """Programs that never end, never stop writing, or start threads without end are stopped in time."""
    # A container counts its processes, threads among them, by a setting of its own.
    if sandbox.tier != "C" and _said(sandbox, attacks.THREADS, target) == ["start 4000 threads"]:
        yield "a program can start 4000 threads"
    for what, source in (("run for ever", attacks.HANG), ("write for ever", attacks.FLOOD)):
        ended = _run_program(sandbox, source)
        stopped = ended.why is not None or ended.status != 0
        if not stopped or len(ended.output) > values.MAX_BYTES + 1:
            yield f"a program can {what}"


def _run_program(sandbox: Sandbox, source: str) -> Ended:
    return sandbox.run({"mode": "stdin", "code": source}, _SHORT, "")


def _left(target: dict[str, Any]) -> Iterator[str]:
    """What the attacks left on the machine."""
    for folder in {*target["folders"], "/tmp", "/var/tmp", "/run"}:
        place = os.path.join(folder, target["new"])
        if os.path.exists(place):
            yield f"a program can write in {folder}"
            with contextlib.suppress(OSError):
                os.unlink(place)
    if _marked():
        yield "a program can leave processes behind"


def _marked() -> bool:
    """Whether a process of the attacks still runs; it is given a moment to be killed."""
    for _ in range(5):
        names = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                names.append(path.read_text("utf-8", "replace").strip())
        if _MARK[:15] not in names:
            return False
        time.sleep(0.1)
    return True


@contextlib.contextmanager
def _baits(sandbox: Sandbox) -> Iterator[dict[str, Any]]:
    """What the attacks aim at, outside; removed afterwards."""
    secret = secrets.token_hex(16)
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="strop-bait-"))
        file, spare = Path(folder, "bait"), Path(folder, "spare")
        for path in (file, spare):
            path.write_text(secret)
        held = opened.enter_context(file.open("rb"))
        os.set_inheritable(held.fileno(), True)
        memory = ctypes.create_string_buffer(secret.encode())
        yield {
            "secret": secret,
            "file": str(file),
            "spare": str(spare),
            "folder": folder,
            "folders": [folder, tempfile.gettempdir(), str(Path.home()), os.getcwd(), "/dev/shm"],
            "code": str(Path(__file__)),
            "new": f"strop-{secret[:12]}",
            "key": int(secret[:7], 16),
            "mark": _MARK,
            "pid": os.getpid(),
            "group": os.getpgrp(),
            **_pids(sandbox),
            "address": ctypes.addressof(memory),
            "environment": {k: v for k, v in os.environ.items() if k not in _SAFE and v},
            "calls": numbers(machine()) if sys.platform == "linux" else {},
            "memory_mb": LIMITS.memory_mb,
            **_sockets(opened, folder, secret),
        }


def _sockets(opened: contextlib.ExitStack, folder: str, secret: str) -> dict[str, Any]:
    port = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    named = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    named.bind(f"{folder}/socket")
    named.listen()
    datagrams = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    datagrams.bind(f"{folder}/socket.d")
    abstract = f"strop-{secret[:12]}"
    if sys.platform == "linux":
        listening = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listening.bind(f"\0{abstract}")
        listening.listen()
    return {"port": port.getsockname()[1], "socket": f"{folder}/socket", "abstract": abstract}


def _pids(sandbox: Sandbox) -> dict[str, Any]:
    """The processes to aim at: the grader, the starter and its child; a container's own keeper is nobody's business."""
    if not isinstance(sandbox, Local):
        return {"pids": [os.getpid()], "parent": False}
    with pool.lent(sandbox.tier) as worker:
        return {"pids": [os.getpid(), worker.pid, worker.pid + 1], "parent": True}
