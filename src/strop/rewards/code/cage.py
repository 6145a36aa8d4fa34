"""How a sandbox's process is confined: tier A (namespaces and what B has) and B (no namespaces needed).

B, laid on a process before it reads a program: Landlock (files, network), a seccomp filter, no
capabilities, limits of memory, processor time, file size and open files.
A, in addition: the process that starts programs lives in user, mount, network, IPC and host-name
namespaces of its own, with a root that holds Python and its libraries alone, read-only; and each
program is the only process of a fresh pid namespace, with a fresh /tmp and /dev/shm in memory.

Runs inside the sandbox's own processes, so it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from strop.rewards.code import filter as seccomp
from strop.rewards.code import kernel

_LIBRARIES = ("/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
_FILES = ("/etc/ld.so.cache", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_STACK = 120 * 2**20
"""The kernel leaves 128 MiB below the stack's top, however small its limit was at the start."""
OPEN_FILES = 128
SCRATCH_MB = 64
"""What a program may write to its scratch folder, in all."""


_ASIDE = "/aside"
"""Where folders stand that a fresh /tmp hides: a Python environment below /tmp."""


@dataclass(slots=True)
class Cage:
    """What one tier's processes share.

    Attributes:
        tier: "A", "B" or "D" (no confinement but limits).
        scratch: the folder a program may write to; in A the private root is built under it.
        pid_namespace: the starter's own, to come back to after each start; A only.
        covered: visible folders below /tmp, which a program's own /tmp would hide; A only.
        rules: what Landlock leaves open; -1 where the kernel has none and namespaces must do (A).
        filter: the system call filter of a process, by its pid.
    """

    tier: str
    scratch: str
    pid_namespace: int = -1
    covered: tuple[str, ...] = ()
    rules: int = -1
    filter: Callable[[int], bytes] = field(default=lambda pid: b"")


def prepare(tier: str, scratch: str, packages: Sequence[str] = ()) -> Cage:
    """Everything that is done once, in the process that will start programs.

    Args: packages: folders that programs may import from beside the standard library's.

    In tier A the caller is a child of the one that was called, in its own namespaces; that one
    only waits and never returns. Raises: OSError naming the step that the machine refuses.
    """
    cage = Cage(tier, scratch)
    visible = [*_visible(), *(p + end for p in packages for end in ("", ".libs"))]
    if tier == "A":
        _leave_namespaces(scratch)
        cage.pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        cage.covered = tuple(p for p in visible if p.startswith("/tmp/") and os.path.isdir(p))
        _build_root(scratch, visible, cage.covered)
        cage.scratch = "/tmp"
    _raise_stack()
    if tier in ("A", "B"):
        kernel.hide_memory()
        cage.filter = seccomp.prepared(kernel.machine())
    if tier == "A":
        # The mounts say what may be read and written; Landlock closes ports, sockets and signals.
        with contextlib.suppress(OSError):
            cage.rules = kernel.ruleset((), ["/"], ())
    if tier == "B":
        cage.rules = kernel.ruleset(visible, [scratch], _DEVICES)
    return cage


def _leave_namespaces(scratch: str) -> None:
    user, group = os.getuid(), os.getgid()
    kernel.unshare(kernel.NEWUSER | kernel.NEWPID | kernel.NEWNS | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    # Only a child is in the new pid namespace.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    above = os.open(os.path.dirname(scratch), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    child = os.fork()
    if child:
        _wait_for(child, scratch, above)
    os.close(above)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    kernel.die_with_parent()


def _wait_for(child: int, scratch: str, above: int) -> NoReturn:
    """Wait until the child ends, or this process's parent does; then end, and take the scratch folder along.

    Args: above: the folder it is in, held open: the child makes another root for both.
    """
    parent = os.getppid()
    os.closerange(0, above)
    os.closerange(above + 1, 1024)
    while os.getppid() == parent:
        signal.sigtimedwait({signal.SIGCHLD}, 1.0)
        if os.waitpid(child, os.WNOHANG)[0]:
            break
    with contextlib.suppress(OSError):
        os.rmdir(os.path.basename(scratch), dir_fd=above)
    os._exit(0)


def _build_root(root: str, visible: Sequence[str], covered: Sequence[str]) -> None:
    """A root folder with Python and its libraries, read-only, and empty /tmp, /dev/shm and /proc.

    Args: covered: folders that a program's own /tmp would hide; they stand in `_ASIDE` as well.
    """
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for path in visible:
        _show(root, path)
    for number, path in enumerate(covered):
        _bind(path, f"{root}{_ASIDE}/{number}")
    for path in ("/tmp", "/proc", "/dev/shm"):
        os.makedirs(root + path, exist_ok=True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{root}/dev/{name}")
    # The kernel lets a namespace mount a /proc only where one is in sight.
    with contextlib.suppress(OSError):
        kernel.mount("proc", f"{root}/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.pivot(root)
    kernel.mount("none", "/", None, kernel.MS_REMOUNT | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV)


def _show(root: str, path: str) -> None:
    """A path in the new root: a link as a link, all else bound read-only."""
    target = root + path
    if os.path.lexists(target) or not os.path.exists(path):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path) and os.path.isdir(path):
        os.symlink(os.readlink(path), target)
        return
    _bind(path, target)


def _bind(path: str, target: str) -> None:
    """A path bound read-only at another."""
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        open(target, "x").close()
    kernel.mount(path, target, None, kernel.MS_BIND | kernel.MS_REC)
    if path not in _DEVICES:
        kept = os.statvfs(target).f_flag & (kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | 1024 | 2048)
        kept |= 1 << 21 if os.statvfs(target).f_flag & 4096 else 0
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID
        kernel.mount("none", target, None, flags | kept)


def _visible() -> list[str]:
    return [*_python(), *_LIBRARIES, *_FILES, *_DEVICES]


def _python() -> list[str]:
    """The folders that the standard library and the interpreter's own libraries are in."""
    own = {
        os.path.dirname(os.__file__),
        os.path.join(sys.base_prefix, "lib"),
        os.path.join(sys.base_exec_prefix, "lib"),
    }
    own |= {path for path in sys.path if path and os.path.exists(path)}
    covered = {path for path in own if any(path.startswith(other + "/") for other in own)}
    return sorted(own - covered)


def before_start(cage: Cage) -> None:
    """In the starter, right before it forks a program's process."""
    if cage.tier == "A":
        kernel.unshare(kernel.NEWPID)


def after_start(cage: Cage) -> None:
    """In the starter, right after it forked."""
    if cage.tier == "A":
        kernel.enter(cage.pid_namespace, kernel.NEWPID)


def confine(cage: Cage, limits: dict[str, Any]) -> None:
    """In a program's process, before it reads the program: everything that holds it, for good.

    Raises: OSError where the machine refuses a part; the program must not run then.
    """
    if cage.tier == "A":
        _fresh_mounts(cage.covered)
    _limit(limits)
    os.chdir(cage.scratch)
    if cage.tier == "D":
        return
    kernel.no_new_privileges()
    if cage.rules >= 0:
        kernel.restrict(cage.rules)
    kernel.drop_capabilities()
    kernel.install_filter(cage.filter(os.getpid()))


def _fresh_mounts(covered: Sequence[str]) -> None:
    kernel.unshare(kernel.NEWNS)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("tmpfs", "/tmp", "tmpfs", flags, f"size={SCRATCH_MB}m,nr_inodes=4096,mode=700")
    for number, path in enumerate(covered):
        os.makedirs(path)
        kernel.mount(f"{_ASIDE}/{number}", path, None, kernel.MS_BIND | kernel.MS_REC)  # read-only, as its source is
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", flags, "size=1m,nr_inodes=64,mode=700")
    try:
        kernel.mount("proc", "/proc", "proc", flags, "subset=pid")
    except OSError:  # masked, as in most containers: programs can do without
        kernel.mount("tmpfs", "/proc", "tmpfs", flags, "size=4k,mode=500")


def _limit(limits: dict[str, Any]) -> None:
    memory, seconds, size = limits["memory_mb"] * 2**20, limits["cpu_s"], limits["file_mb"] * 2**20
    _lower(resource.RLIMIT_CPU, seconds, seconds + 1)
    _lower(resource.RLIMIT_FSIZE, size, size)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0, 0)
    if sys.platform == "linux":  # elsewhere it is not enforced, or refused
        _lower(resource.RLIMIT_AS, memory, memory)


def _lower(what: int, soft: int, hard: int) -> None:
    _, most = resource.getrlimit(what)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(what, (soft, hard))


def _raise_stack() -> None:
    """Room for deep recursion in the main thread, whose stack grows as far as the limit is then."""
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    want = _STACK if most == resource.RLIM_INFINITY else min(_STACK, most)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_STACK, (want, most))
