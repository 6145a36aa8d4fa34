"""The attacks of the start-up battery: what a program might try, as programs that try it.

Each defines `attack(target)`, which returns what it could do, as texts; nothing is good. `target`
is a dict of baits that `battery` sets up outside: places, pids, numbers of system calls. They do
no harm where they succeed: they read baits, make small files, signal 0, seize nobody for long.
"""

from __future__ import annotations

_HEAD = """
import ctypes, os, sys
C = ctypes.CDLL(None, use_errno=True)
def call(target, name, *args):
    number = target["calls"].get(name)
    return -1 if number is None else C.syscall(number, *args)
def can(what, function, *args):
    try:
        found = function(*args)
    except BaseException:
        return []
    return [what] if found not in (None, False, -1, b"", "") else []
"""

NETWORK = """
import socket
def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(0.5)
        s.connect(address)
        return True
def datagram(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(address)
        return bool(s.send(b"x"))
def by_pair(address):
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return bool(a.sendto(b"x", address))
def attack(t):
    return (can("connect to a port of this machine", connect, socket.AF_INET, ("127.0.0.1", t["port"]))
        + can("connect to an abstract socket", connect, socket.AF_UNIX, "\\0" + t["abstract"])
        + can("connect to a socket file", connect, socket.AF_UNIX, t["socket"])
        + can("send to a socket file", by_pair, t["socket"] + ".d")
        + can("send a datagram to another machine", datagram, ("192.0.2.1", 9)))
"""

FILES = """
def read(path):
    with open(path, "rb") as f:
        return t_secret in f.read(100000)
def listing(path):
    return t_name in os.listdir(path)
def write(path):
    with open(path, "ab") as f:
        f.write(b"x")
    return True
def links(path, kind):
    kind(path, "link")
    return read("link")
def done(function, *args):
    function(*args)
    return True
def attack(t):
    global t_secret, t_name
    t_secret, t_name = t["secret"].encode(), os.path.basename(t["file"])
    out = []
    for path in (t["file"], *(f"/proc/{p}/root" + t["file"] for p in ("self", "1", os.getppid(), t["pid"]))):
        out += can("read " + path, read, path)
    out += can("read the grader's own code", lambda: open(t["code"], "rb").read(1))
    out += can("list " + t["folder"], listing, t["folder"])
    for folder in t["folders"]:  # a sandbox may have folders of its own there: what counts is seen outside
        can("", write, os.path.join(folder, t["new"]))
    out += can("write to a file outside", write, t["file"])
    out += can("link to a file outside", links, t["file"], os.link)
    out += can("open a file outside through a link", links, t["file"], os.symlink)
    out += can("remove a file outside", done, os.unlink, t["spare"])
    out += can("rename a file outside", done, os.rename, t["spare"], t["spare"] + "2")
    out += can("change the mode of a file outside", done, os.chmod, t["file"], 0o600)
    out += can("change the owner of a file outside", done, os.chown, t["file"], os.getuid(), os.getgid())
    out += can("change the time of a file outside", done, os.utime, t["file"])
    out += can("cut a file outside", done, os.truncate, t["file"], 1)
    out += can("make a folder outside", done, os.mkdir, t["folder"] + "/made")
    return out
"""

PROCESSES = """
class Vector(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t)]
def own(pid):
    return pid in (os.getpid(), 0)
def seize(pid):
    return C.ptrace(0x4206, pid, 0, 0) == 0
def peek(t, pid):
    into, here = ctypes.create_string_buffer(8), t["address"]
    a, b = Vector(ctypes.addressof(into), 8), Vector(here, 8)
    return call(t, "process_vm_readv", pid, ctypes.byref(a), 1, ctypes.byref(b), 1, 0) > 0
def memory(pid, name):
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as f:
        return True if name == "mem" else t_secret in f.read(100000)
def sigio(pid):
    import fcntl
    r, w = os.pipe()
    fcntl.fcntl(r, 8, pid)
    return fcntl.fcntl(r, 9) == pid
def attack(t):
    global t_secret
    t_secret = t["secret"].encode()
    out = []
    for pid in {*t["pids"], *([os.getppid()] if t["parent"] else [])}:
        if own(pid):
            continue
        out += can(f"signal process {pid}", lambda: (os.kill(pid, 0), True)[1])
        out += can(f"trace process {pid}", seize, pid)
        out += can(f"read memory of process {pid}", peek, t, pid)
        out += can(f"have process {pid} signalled", sigio, pid)
        for name in ("mem", "environ", "cmdline"):
            out += can(f"read {name} of process {pid}", memory, pid, name)
    out += can("signal its group", lambda: t["group"] and (os.killpg(t["group"], 0), True)[1])
    return out
"""

INHERITED = """
def attack(t):
    out = [f"see the variable {k}" for k, v in t["environment"].items() if os.environ.get(k) == v]
    for fd in range(3, 300):
        try:
            here = os.lseek(fd, 0, 1)
            found = os.pread(fd, 1000, 0)
        except OSError:
            continue
        if t["secret"].encode() in found:
            out.append(f"read file descriptor {fd}")
    return out
"""

LEAVE = """
def shared(t):
    at = C.shmget(t["key"], 4096, 0o1666)
    return at >= 0
def attack(t):
    for folder in ("/dev/shm", "/tmp", "/var/tmp", "/run", ".", os.path.expanduser("~")):
        try:
            with open(os.path.join(folder, t["new"]), "w") as f:
                f.write("left")
        except OSError:
            pass
    C.shmget(t["key"], 4096, 0o1666)
    C.msgget(t["key"], 0o1666)
    C.semget(t["key"], 1, 0o1666)
    C.mq_open(("/" + t["new"]).encode(), 0o102, 0o600, None)
    call(t, "add_key", b"user", t["new"].encode(), b"left", 4, -4)
    return []
"""

FIND = """
def attack(t):
    out = []
    for folder in ("/dev/shm", "/tmp", "/var/tmp", "/run", ".", os.path.expanduser("~")):
        out += can("find a file in " + folder, lambda: open(os.path.join(folder, t["new"])).read())
    out += can("find shared memory", lambda: C.shmget(t["key"], 0, 0) >= 0)
    out += can("find a message queue", lambda: C.msgget(t["key"], 0) >= 0)
    out += can("find a semaphore", lambda: C.semget(t["key"], 0, 0) >= 0)
    out += can("find a POSIX message queue", lambda: C.mq_open(("/" + t["new"]).encode(), 0) >= 0)
    out += can("find a key", lambda: call(t, "request_key", b"user", t["new"].encode(), None, 0) >= 0)
    return [what + " of the run before" for what in out]
"""

CLEAN = """
def attack(t):
    C.shmctl(C.shmget(t["key"], 0, 0), 0, None)
    C.msgctl(C.msgget(t["key"], 0), 0, None)
    C.semctl(C.semget(t["key"], 0, 0), 0, 0)
    C.mq_unlink(("/" + t["new"]).encode())
    return []
"""
"""Takes away what `LEAVE` may have left where no file shows it."""

KERNEL = """
def attack(t):
    out = []
    out += can("enter a new user namespace", lambda: C.unshare(0x10000000) == 0)
    out += can("set up io_uring", lambda: call(t, "io_uring_setup", 4, ctypes.create_string_buffer(120)) >= 0)
    out += can("load BPF", lambda: call(t, "bpf", 0, ctypes.create_string_buffer(120), 120) >= 0)
    out += can("watch events", lambda: call(t, "perf_event_open", ctypes.create_string_buffer(120), 0, -1, -1, 0) >= 0)
    out += can("mount", lambda: C.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0)
    return out
"""

FORKS = """
def attack(t):
    made = 0
    for _ in range(300):
        try:
            pid = os.fork()
        except OSError:
            break
        if pid == 0:
            try:
                os.setsid()
                C.prctl(15, t["mark"].encode(), 0, 0, 0)
                import time
                time.sleep(3)
            finally:
                os._exit(0)
        made += 1
    return ["start 300 processes"] if made == 300 else []
"""

THREADS = """
import threading, time
def attack(t):
    threading.stack_size(65536)
    for made in range(4000):
        threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
    return ["start 4000 threads"]
"""

MEMORY = """
def attack(t):
    kept = []
    for _ in range(t["memory_mb"] // 64 + 8):
        kept.append(b"x" * (64 << 20))
    return ["take more memory than its limit"]
"""

DISK = """
import time
def attack(t):
    for number in range(40):
        with open(f"big{number}", "wb") as f:
            for _ in range(8):
                f.write(b"x" * (1 << 20))
    time.sleep(0.3)
    return ["write 320 MB of files"]
"""

FLOOD = """
import os
while True:
    os.write(1, b"x" * (1 << 16))
"""

HANG = """
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    time.sleep(1000)
"""

QUICK = {
    "network": NETWORK,
    "files": FILES,
    "processes": PROCESSES,
    "inheritance": INHERITED,
    "leaving": LEAVE,
    "finding": FIND,
    "cleaning": CLEAN,
    "kernel": KERNEL,
    "forks": FORKS,
    "memory": MEMORY,
    "disk": DISK,
}
"""Attacks that return what they could do, in the order they are run."""

HONEST = """
import asyncio, tempfile, threading, sys, functools
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
def down(n):
    return 0 if n == 0 else 1 + down(n - 1)
async def later(x):
    await asyncio.sleep(0.001)
    return x
async def both():
    return await asyncio.gather(later(1), later(2))
def attack(t):
    with tempfile.NamedTemporaryFile("w+") as file:
        file.write("kept")
        file.seek(0)
        assert file.read() == "kept"
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
    sys.setrecursionlimit(10000)
    assert down(5000) == 5000 and asyncio.run(both()) == [1, 2]
    return ["honest"]
"""
"""What honest programs do; a sandbox in which it fails is none."""


def program(attack: str) -> str:
    """An attack as a whole program."""
    return _HEAD + attack
