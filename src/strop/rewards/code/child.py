"""What happens in a program's own process, once it is confined: read, run, answer.

Three modes, told by the request: `call` a function with one set of arguments, run a whole program
on standard input (`stdin`), or run test code against a function that lives elsewhere (`check`).
The answer is one message in a file (or, of a `check`, on its channel). A program can write what
it likes there; the grader reads it as plain data and compares it with what it alone knows.

Runs inside the sandbox, so it imports the standard library alone.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import importlib
import importlib.machinery
import importlib.util
import inspect
import io
import linecache
import os
import random
import site
import socket
import struct
import sys
import threading
import traceback
import types
import unittest
from collections.abc import Callable
from typing import Any, NoReturn

from strop.rewards.code import values

STDIN, STDOUT, STDERR, RESULT, CHANNEL = 0, 1, 2, 3, 4
"""The only open files of a program's process."""

FILE = "solution.py"
_MESSAGE = 300


def serve(request: dict[str, Any]) -> NoReturn:
    """Do what a request says, and end the process."""
    _fresh_streams()
    random.seed(request.get("seed", 0))
    sys.argv = [FILE]
    if request["mode"] == "stdin":
        _run_program(request["code"])
    if request["mode"] == "call":
        _answer(_call(request))
    _check(request)


def _answer(message: list[Any]) -> NoReturn:
    """Write the answer and end at once, whatever threads, exit handlers or patches there are."""
    try:
        data = values.dump(message)
    except values.Unplain as error:
        data = values.dump(["unplain", str(error)])
    while data:
        data = data[os.write(RESULT, data) :]
    os._exit(0)


def _raised(error: BaseException) -> list[Any]:
    try:
        text = str(error)[:_MESSAGE]
    except Exception:  # the program's own exceptions may not even have a text
        text = ""
    return ["raised", type(error).__name__, text, _line_of(error)]


def _line_of(error: BaseException) -> int:
    """The last line of the program that an exception came through; 0 if none did."""
    lines = [number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == FILE]
    return lines[-1] if lines else 0


def _fresh_streams() -> None:
    """Standard streams on this process's own files; the ones that were forked have buffers of their own."""
    for name, fd, mode in (("stdin", STDIN, "r"), ("stdout", STDOUT, "w"), ("stderr", STDERR, "w")):
        stream = open(fd, mode, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        vars(sys).update({name: stream, f"__{name}__": stream})


def _module(name: str, code: str) -> dict[str, Any]:
    """The names that a program defines, run as the module `name`."""
    module = types.ModuleType(name)
    module.__file__ = FILE
    sys.modules[name] = module
    linecache.cache[FILE] = (len(code), None, code.splitlines(True), FILE)
    exec(compile(code, FILE, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def _run_program(code: str) -> NoReturn:
    """Run a whole program as the interpreter would, its exit included."""
    status = 0
    try:
        _module("__main__", code)
    except SystemExit as exit:
        status = _status(exit.code)
    except BaseException as error:
        status = 1
        os.write(RESULT, values.dump(_raised(error)))
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        status = status or 1
    os._exit(status)


def _status(code: Any) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _call(request: dict[str, Any]) -> list[Any]:
    args = [values.decode(tree) for tree in request.get("args", ())]
    kwargs = {name: values.decode(tree) for name, tree in request.get("kwargs", {}).items()}
    try:
        names = _module("solution", request["code"])
        if "source" in request:
            result = eval(compile(request["source"], "test.py", "eval", dont_inherit=True), names)
        else:
            result = _find(names, request["entry"])(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        return ["value", values.encode(result)]
    except values.Unplain as error:
        return ["unplain", str(error)]
    except BaseException as error:
        return _raised(error)


def _find(names: dict[str, Any], entry: str) -> Callable[..., Any]:
    """The function that a test names: `f`, `Class.f` (of a new instance), or `f` of a class `Solution`."""
    first, *rest = entry.split(".")
    if first not in names and "Solution" in names:
        first, rest = "Solution", [first, *rest]
    if first not in names:
        raise NameError(f"the program defines no {first!r}")
    found = names[first]
    for name in rest:
        found = getattr(found() if isinstance(found, type) else found, name)
    return found  # type: ignore[no-any-return]


# --- test code, whose functions under test live in another sandbox ---


def _check(request: dict[str, Any]) -> NoReturn:
    """Run test code; the answer says whether all of it held."""
    names: dict[str, Any] = {"__name__": "tests"}
    try:
        for part in request["before"]:
            exec(compile(part, "setup.py", "exec", dont_inherit=True), names)
        ask = _replay(request["replies"]) if "replies" in request else _ask
        names.update({name: _stand_in(name, ask) for name in request["functions"]})
        exec(compile(request["test"], FILE, "exec", dont_inherit=True), names)
        if request["call"]:
            names[request["call"]](names[request["functions"][0]])
        _run_cases(names)
    except BaseException as error:
        _answer(_raised(error))
    _answer(["held"])


def _run_cases(names: dict[str, Any]) -> None:
    """Run the `unittest` cases among the names, if there are any."""
    kinds = [v for v in names.values() if isinstance(v, type) and issubclass(v, unittest.TestCase)]
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(k) for k in kinds)
    if not suite.countTestCases():
        return
    found = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
    if not found.wasSuccessful():
        told = [text for _, text in [*found.failures, *found.errors]]
        raise AssertionError(told[0].strip().splitlines()[-1] if told else "a case passed that should fail")


Ask = Callable[[list[Any]], list[Any]]


def _stand_in(name: str, ask: Ask) -> Callable[..., Any]:
    """A function that has the real one called elsewhere: plain data there and back."""

    def function(*args: Any, **kwargs: Any) -> Any:
        trees = [values.encode(a) for a in args]
        kind, *rest = ask(["call", name, trees, {k: values.encode(v) for k, v in kwargs.items()}])
        if kind == "value":
            return values.decode(rest[0])
        raise _exception(rest[0], rest[1])

    function.__name__ = function.__qualname__ = name
    return function


def _exception(name: str, text: str) -> Exception:
    """An exception as the function raised it, where it is one of Python's own."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError and its like take more
            pass
    return RuntimeError(f"{name}: {text}")


def _replay(replies: list[list[Any]]) -> Ask:
    """Answers from those that are known; the first call that is not known is this run's own answer."""
    known = iter(replies)

    def ask(message: list[Any]) -> list[Any]:
        reply = next(known, None)
        return _answer(message) if reply is None else reply

    return ask


_channel: list[socket.socket] = []


def _ask(message: list[Any]) -> list[Any]:
    """Send a message on the channel and wait for the reply."""
    if not _channel:
        _channel.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=CHANNEL))
    data = values.dump(message)
    _channel[0].sendall(struct.pack("<I", len(data)) + data)
    (size,) = struct.unpack("<I", _exactly(4))
    reply: list[Any] = values.load(_exactly(size))
    return reply


def _exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = _channel[0].recv(size - len(data))
        if not part:  # the grader has seen enough
            os._exit(3)
        data += part
    return data


WARM = """
abc argparse array ast bisect calendar cmath collections.abc contextlib copy csv dataclasses datetime decimal enum
fractions functools heapq io itertools json math operator pickle queue random re statistics string tempfile textwrap
threading time types typing unittest.mock concurrent.futures.thread encodings.idna hashlib
"""
"""What programs import most, loaded once before they start."""


def warm(packages: dict[str, str]) -> None:
    """Load `WARM`, and what the interpreter leaves out when it starts without site packages.

    Args: packages: the folders of packages that programs may import besides.
    """
    sys.meta_path.append(Packages(packages))
    for name in WARM.split():
        importlib.import_module(name)
    site.setquit()
    importlib.import_module("_multiprocessing").SemLock = ThreadLock  # type: ignore[attr-defined]


class Packages:
    """Finds packages by their own folders: the one that they are in is closed to programs."""

    def __init__(self, folders: dict[str, str]) -> None:
        self.folders = folders

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """What the import system asks a finder."""
        folder = self.folders.get(name)
        if folder is None:
            return None
        return importlib.util.spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )


class ThreadLock:
    """In place of the lock that processes share, for `multiprocessing`'s thread pools: here are no other processes.

    The real one needs a file in /dev/shm. Of the C type it has what the standard library uses.
    """

    SEM_VALUE_MAX = 2**31 - 1

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
        self.kind, self.maxvalue, self.handle = kind, maxvalue, 0
        self.name = None if unlink else name
        self._lock: Any = threading.RLock() if kind == 0 else threading.Semaphore(value)

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        if not block:
            return bool(self._lock.acquire(blocking=False))
        return bool(self._lock.acquire() if timeout is None else self._lock.acquire(timeout=max(0.0, timeout)))

    def release(self) -> None:
        self._lock.release()

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        self.release()

    def _is_mine(self) -> bool:
        return self.kind == 0 and bool(self._lock._is_owned())

    def _get_value(self) -> int:
        return int(getattr(self._lock, "_value", 1))

    def _is_zero(self) -> bool:
        return self._get_value() == 0

    def _count(self) -> int:
        return int(self._is_mine())

    def _after_fork(self) -> None:
        pass
