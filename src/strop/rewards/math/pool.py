"""Worker processes: started when first needed, as many as cores, shared by all threads.

Each request has a deadline that its worker does not know of: past it the worker's whole process
group is killed, and the next request starts another. Workers end with this process, however it
ends: their input closes, and the kernel kills them when the thread that started them is gone,
which is why one thread, living as long as the process, starts them all.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from strop.rewards.math.worker import MAX_BYTES

START_S = 120.0
"""Seconds a worker may take to start: its imports, on a machine that is busy."""

WALL_FACTOR = 4
"""Wall seconds a request may take for each second of processor time it may use, and MIN_WALL_S at least."""

MIN_WALL_S = 10.0
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from strop.rewards.math.worker import main; main()"
)


class Fault(Exception):
    """The verifier's own fault: a worker cannot be started or dies on its own."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's answer; or, with none, how its life ended.

    ended: "time" past its deadline, "died" of itself, "starved" of processor time by other processes.
    """

    value: dict[str, Any] = field(default_factory=dict)
    ended: str = ""


class Worker:
    """One process and its pipes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.rest = b""
        self.used_s: float | None = None

    def ask(self, request: dict[str, Any], deadline_s: float) -> Reply:
        """Send a request and wait for its reply, killing the worker at the deadline."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            return Reply(ended="died")
        before = cpu_s(self.process.pid)
        reply = self.reply(deadline_s)
        starved = reply.ended == "time" and self.used_s is not None and self.used_s - before < request["seconds"] / 2
        return Reply(ended="starved") if starved else reply

    def reply(self, deadline_s: float) -> Reply:
        """The next line, or how the worker ended; `used_s` is then its processor time, if the clock ended it."""
        assert self.process.stdout is not None
        file, end = self.process.stdout.fileno(), time.monotonic() + deadline_s
        waiting = select.poll()
        waiting.register(file, select.POLLIN | select.POLLHUP)
        while b"\n" not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1000):
                self.used_s = cpu_s(self.process.pid)
                self.kill()
                return Reply(ended="time")
            piece = os.read(file, 65536)
            if not piece:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(5)  # it has closed its end, so it is ending: how, decides what is said
                self.kill()
                return Reply(ended="time" if self.process.returncode == -signal.SIGXCPU else "died")
            self.rest += piece
        line, _, self.rest = self.rest.partition(b"\n")
        return Reply(json.loads(line))

    def kill(self) -> None:
        """Kill the process with all it may have started, and close its pipes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used; infinite where the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Pool:
    """At most `size` workers, each lent to one thread at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self.free.put(None)
        self.wanted: queue.SimpleQueue[Future[Worker]] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.starter: threading.Thread | None = None
        self.alive: set[Worker] = set()

    def ask(self, request: dict[str, Any], seconds: int) -> Reply:
        """One request on a free worker, waiting for one. Raises: Fault if none can be started."""
        worker = self.free.get()
        try:
            worker = worker if worker is not None and worker.process.poll() is None else self._new(worker)
            deadline_s = max(MIN_WALL_S, WALL_FACTOR * seconds)
            reply = worker.ask({**request, "seconds": seconds}, deadline_s)
            if reply.ended:
                self._gone(worker)
                worker = None
            return reply
        except BaseException:
            self._gone(worker)
            worker = None
            raise
        finally:
            self.free.put(worker)

    def _gone(self, worker: Worker | None) -> None:
        if worker is not None:
            worker.kill()
            self.alive.discard(worker)

    def _new(self, old: Worker | None) -> Worker:
        self._gone(old)
        with self.lock:
            if self.starter is None or not self.starter.is_alive():
                self.starter = threading.Thread(target=_start_all, args=(self.wanted,), daemon=True)
                self.starter.start()
        started: Future[Worker] = Future()
        self.wanted.put(started)
        worker = started.result(START_S)
        self.alive.add(worker)
        reply = worker.reply(START_S)
        if not reply.value.get("ready"):
            self._gone(worker)
            raise Fault(reply.value.get("fault") or "a worker process ended while it started")
        return worker

    def close(self) -> None:
        """Kill all workers; a later request starts new ones."""
        for worker in list(self.alive):
            self._gone(worker)


def _start_all(wanted: queue.SimpleQueue[Future[Worker]]) -> None:
    while True:
        started = wanted.get()
        try:
            started.set_result(Worker(_spawned()))
        except BaseException as error:
            started.set_exception(Fault(f"a worker process cannot be started: {error}"))


def _spawned() -> subprocess.Popen[bytes]:
    """A worker in a session of its own. It gets no environment that is not needed, and no file but its pipes."""
    command = [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(os.getpid()), str(MAX_BYTES)]
    known = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG") if key in os.environ}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        close_fds=True,
        env=known | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
    )


_pool: Pool | None = None
_lock = threading.Lock()


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def pool() -> Pool:
    """The one pool of this process."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = Pool(max(1, min(num_cores(), 8)))
        return _pool


def _forget() -> None:
    """In a forked child: the workers, their pipes and the locks are the parent's."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


def _close() -> None:
    if _pool is not None:
        _pool.close()


atexit.register(_close)
os.register_at_fork(after_in_child=_forget)
