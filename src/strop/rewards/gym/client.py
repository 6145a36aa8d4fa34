"""The parent's end of the worker: started at first use, asked under a lock, killed when it does not answer."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

START_S = 120.0
"""The library itself takes seconds to import."""
_COMMAND = "from strop.rewards.gym.worker import main; main()"


class WorkerError(Exception):
    """The worker gave no answer: it ran out of time, or died."""


def require_gym() -> None:
    """Raises ValueError if the library is not installed."""
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ValueError("gym: needs reasoning-gym, which is not installed: pip install 'strop[tasks]'")


def ask(request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """The worker's reply. Usable from many threads, one request at a time.

    Raises: WorkerError where none came in time (the worker is killed; the next request starts another);
        ValueError if the library is not installed.
    """
    require_gym()
    with _STATE.lock:
        process = _STATE.running()
        deadline = time.monotonic() + timeout_s + (0.0 if _STATE.answered else START_S)
        try:
            assert process.stdin is not None
            process.stdin.write((json.dumps(request) + "\n").encode())
            process.stdin.flush()
            reply: dict[str, Any] = json.loads(_line(process, deadline))
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            _STATE.stop()
            slow = isinstance(error, TimeoutError)
            raise WorkerError(f"took more than {timeout_s:g} s" if slow else "killed its process") from None
        except BaseException:  # an interrupt between request and reply
            _STATE.stop()
            raise
        _STATE.answered = True
        return reply


@dataclass(slots=True)
class _State:
    lock: threading.Lock = field(default_factory=threading.Lock)
    process: subprocess.Popen[bytes] | None = None
    owner: int = 0
    answered: bool = False

    def running(self) -> subprocess.Popen[bytes]:
        if self.owner != os.getpid():  # a fork must not share its parent's pipes
            self.process = None
        if self.process is None or self.process.poll() is not None:
            self.process, self.owner, self.answered = _start(), os.getpid(), False
        return self.process

    def stop(self) -> None:
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):  # a broken pipe cannot be flushed
                    if pipe is not None:
                        pipe.close()
        self.process = None


def _start() -> subprocess.Popen[bytes]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
    environment = {
        **kept,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHASHSEED": "0",  # generators that walk over sets make the same entries each time
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=tempfile.gettempdir(),
        start_new_session=True,
    )


def _line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    assert process.stdout is not None
    chunks: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not chunks or not chunks[-1].endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(process.stdout.fileno(), 2**20)
            if not chunk:
                raise EOFError
            chunks.append(chunk)
    return b"".join(chunks)


_STATE = _State()
atexit.register(_STATE.stop)
