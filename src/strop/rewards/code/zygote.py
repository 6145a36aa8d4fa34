"""The process that starts programs: it has Python loaded and the sandbox prepared, and forks one a run.

It is a fresh interpreter with nothing of the grader's memory, environment or files. Orders come
as lines of JSON on its control socket, with file descriptors; each is answered by one line when
the program has ended. It reads no request and no result: those pass in files between the
grader and the program. Programs cannot reach it: they have neither its socket nor its pid's
namespace (A) nor a way to signal or trace others.

It ends, and what it started with it, when the grader's end of the socket closes or its parent ends.
Runs inside the sandbox's own processes, so it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from strop.rewards.code import cage as cages
from strop.rewards.code import child, kernel

WATCH_S = 0.05
"""How often a program that runs longer than this is looked at."""

MAX_THREADS = 128
_TICKS = os.sysconf("SC_CLK_TCK")
_MAX_ENTRIES = 4096
_MAX_DEPTH = 50
_TELLING = 9
"""Where a program's process tells that it is confined; closed before the program is read."""


def main(tier: str, scratch: str, packages: dict[str, str]) -> NoReturn:
    """Prepare the tier, say so, and serve orders until the grader goes."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=os.dup(int(sys.argv[1])))
    os.close(int(sys.argv[1]))
    try:
        processes = _processes()
        cage = cages.prepare(tier, scratch, list(packages.values()))
    except Exception as error:
        _say(control, {"fault": f"{type(error).__name__}: {error}"})
        os._exit(1)
    child.warm(packages)
    for name in [n for n in sys.modules if n.split(".")[0] == "strop"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()
    _say(control, {"ready": True})
    parent = os.getppid()
    while (received := _order(control, parent)) is not None:
        _say(control, _run(cage, *received, control=control, processes=processes))
    _leave(cage)


def _processes() -> int:
    """The machine's /proc, kept open so that a program's threads can be counted; -1 without one."""
    try:
        return os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the grader went away; the next read tells
        control.sendall(json.dumps(message).encode() + b"\n")


def _order(control: socket.socket, parent: int) -> tuple[dict[str, Any], list[int]] | None:
    """The next order and its files; `None` when there is nobody to give one."""
    while not select.select([control], [], [], 1.0)[0]:
        if os.getppid() != parent:
            return None
    data, fds, _, _ = socket.recv_fds(control, 65536, 8)
    while data and not data.endswith(b"\n"):
        more = control.recv(65536)
        data = data + more if more else b""
    return (json.loads(data), fds) if data else None


def _run(
    cage: cages.Cage, order: dict[str, Any], fds: list[int], *, control: socket.socket, processes: int
) -> dict[str, Any]:
    """Start one program, see it end, and say how."""
    told, telling = os.pipe()
    try:
        cages.before_start(cage)
        pid = os.fork()
    except OSError as error:
        return {"fault": f"no process could be started: {error}"}
    if pid == 0:
        _become(cage, order, fds, telling)
    for fd in (telling, *fds):
        os.close(fd)
    try:
        cages.after_start(cage)
        why = _watch(pid, order, cage, control, processes)
        _, status, usage = os.wait4(pid, 0)
        said = os.read(told, 4096)
    finally:
        os.close(told)
    dirty = not _emptied(cage)
    if said != b"ready":
        return {
            "dirty": dirty,
            "fault": said.decode("utf-8", "replace") or "the program's process ended before it was confined",
        }
    seconds = usage.ru_utime + usage.ru_stime
    return {"status": os.waitstatus_to_exitcode(status), "why": why, "cpu_s": seconds, "dirty": dirty}


def _become(cage: cages.Cage, order: dict[str, Any], fds: list[int], telling: int) -> NoReturn:
    """In the program's process: take its files, close all others, be confined, tell so, and go."""
    try:
        if sys.platform == "linux":
            kernel.die_with_parent()
        if cage.tier == "D":
            os.setsid()
        request, *files = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]
        cage.rules = fcntl.fcntl(cage.rules, fcntl.F_DUPFD, 64) if cage.rules >= 0 else -1
        with open(request, "rb") as file:
            asked = json.loads(file.read())
        for at, fd in zip(order["files"], files, strict=True):
            os.dup2(fd, at)
        telling = os.dup2(telling, _TELLING)
        os.closerange(max([2, *order["files"]]) + 1, _TELLING)
        cages.confine(cage, order["limits"])
        os.closerange(_TELLING + 1, 4096)
    except BaseException as error:
        os.write(telling, f"{type(error).__name__}: {error}".encode()[:4096])
        os._exit(70)
    os.write(telling, b"ready")
    os.close(telling)
    child.serve(asked)


def _watch(pid: int, order: dict[str, Any], cage: cages.Cage, control: socket.socket, processes: int) -> str | None:
    """Wait until the program ends, or end it; why, if so. Ends everything if the grader goes away."""
    ended = _ending(pid)
    watched = select.poll()
    for fd in (ended, control.fileno()):
        watched.register(fd, select.POLLIN)
    deadline = time.monotonic() + order["wall_s"]
    why = None
    while why is None:
        left = deadline - time.monotonic()
        found = {fd for fd, _ in watched.poll(max(0.0, min(left, WATCH_S)) * 1000)}
        if ended in found:
            break
        if found:
            _kill(pid, cage)
            _leave(cage)
        why = "timeout" if left <= 0 else _excess(ended, order["cpu_s"], cage, processes)
    _kill(pid, cage)
    os.close(ended)
    return why


def _ending(pid: int) -> int:
    """A file descriptor that is readable once the process has ended."""
    if sys.platform == "linux":
        return os.pidfd_open(pid)
    ended, ending = os.pipe()
    if os.fork() == 0:  # waits in the place of a pidfd; systems without them run tier D alone
        queue = select.kqueue()
        event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        with contextlib.suppress(OSError):
            queue.control([event], 1)
        os._exit(0)
    os.close(ending)
    return ended


def _kill(pid: int, cage: cages.Cage) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
        if cage.tier == "D":
            os.killpg(pid, signal.SIGKILL)


def _excess(ended: int, cpu_s: float, cage: cages.Cage, processes: int) -> str | None:
    """What a running program has too much of: processor time, threads, or files in its scratch folder."""
    used, threads = _usage(ended, processes)
    if used > cpu_s:
        return "timeout"
    if threads > MAX_THREADS:
        return f"more than {MAX_THREADS} threads"
    if cage.tier in ("B", "D") and _used(cage.scratch) > cages.SCRATCH_MB * 2**20:
        return "too many, too deep or too large files"
    return None


def _usage(ended: int, processes: int) -> tuple[float, int]:
    """Processor seconds and threads of the process behind a pidfd, by the machine's own /proc; 0 if it cannot tell."""
    try:
        text = _read(f"self/fdinfo/{ended}", processes)
        pid = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:"))
        fields = _read(f"{pid}/stat", processes).rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[17])
    except (OSError, StopIteration, ValueError, IndexError):
        return 0.0, 0


def _read(path: str, folder: int) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(fd, 65536).decode("ascii", "replace")
    finally:
        os.close(fd)


def _used(folder: str) -> int:
    """Bytes on disk under a folder; infinite, so to say, for very many files or very deep folders."""
    total, entries, folders = 0, 0, [(folder, 0)]
    with contextlib.suppress(OSError):  # the program goes on changing it meanwhile
        while folders:
            path, depth = folders.pop()
            for entry in os.scandir(path):
                entries += 1
                if entries > _MAX_ENTRIES or depth > _MAX_DEPTH:
                    return 1 << 60
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, depth + 1))
    return total


def _emptied(cage: cages.Cage) -> bool:
    """Empty the scratch folder; false where something stays, so that no other program is started in it."""
    try:
        _empty(cage)
    except OSError:
        return False
    return True


def _leave(cage: cages.Cage) -> NoReturn:
    """End, and take the scratch folder along."""
    if _emptied(cage) and cage.tier != "A":
        os.chdir("/")
        with contextlib.suppress(OSError):
            os.rmdir(cage.scratch)
    os._exit(0)


def _empty(cage: cages.Cage) -> None:
    """Remove all that a program left in the scratch folder of tiers B and D, however deep or locked it is.

    Folders are moved to the top before they are emptied, so that no path gets long.
    """
    if cage.tier == "A":
        return
    number = 0
    found = list(os.scandir(cage.scratch))
    while found:
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            for inner in list(os.scandir(entry.path)):
                number += 1
                if inner.is_dir(follow_symlinks=False):
                    os.chmod(inner.path, 0o700)
                    os.rename(inner.path, os.path.join(cage.scratch, f".{os.getpid()}-{number}"))
                else:
                    os.unlink(inner.path)
            os.rmdir(entry.path)
        found = list(os.scandir(cage.scratch))
