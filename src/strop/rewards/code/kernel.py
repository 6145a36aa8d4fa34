"""The kernel's ways to confine a process, through ctypes: namespaces, mounts, Landlock, capabilities, limits.

Runs inside the sandbox's own processes, so it imports the standard library alone. Linux only;
what a kernel lacks raises OSError. Numbers are from the kernel's headers.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Sequence

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2

_PDEATHSIG, _DUMPABLE, _NO_NEW_PRIVS, _SECCOMP, _AMBIENT = 1, 4, 38, 22, 47
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}

FS_ALL = 0xFFFF
_FS_KNOWN = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
"""The file rights that each version of Landlock knows; 0xFFFF from version 5 on."""
READ = 1 << 2 | 1 << 3
"""Read files and list folders; of a file, the first alone."""
WRITE = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 14
"""What a scratch folder needs: no devices, sockets or pipes by name, and no running of files."""
_OF_FILES = 1 << 1 | 1 << 2 | 1 << 14


def machine() -> str:
    """The processor's name as the kernel's tables have it. Raises: OSError for one without tables here."""
    name = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine())
    if name not in _CAPSET:
        raise OSError(f"no system call numbers for the processor {name!r}")
    return name


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


_C = _libc()


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, what: str, *args: object) -> int:
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    return _check(_C.syscall(ctypes.c_long(number), *wide), what)


def _prctl(option: int, what: str, *args: int) -> None:
    padded = [ctypes.c_ulong(a) for a in (*args, 0, 0, 0, 0)[:4]]
    _check(_C.prctl(option, *padded), what)


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones."""
    _check(_C.unshare(flags), "unshare")


def enter(fd: int, kind: int) -> None:
    """Go to the namespace of a file descriptor."""
    _check(_C.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """The system call of the same name."""
    texts = [None if t is None else t.encode() for t in (source, target, kind)]
    data = None if options is None else options.encode()
    _check(_C.mount(*texts, ctypes.c_ulong(flags), data), f"mount {target}")


def pivot(root: str) -> None:
    """Make `root`, a mount point, the root of all paths, and let go of the old one."""
    os.chdir(root)
    _syscall(_PIVOT_ROOT[machine()], "pivot_root", ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    _check(_C.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends."""
    _prctl(_PDEATHSIG, "prctl", 9)


def hide_memory() -> None:
    """Refuse core dumps and tracing by processes of the same user."""
    _prctl(_DUMPABLE, "prctl", 0)


def no_new_privileges() -> None:
    """Never gain rights by running files again; for good."""
    _prctl(_NO_NEW_PRIVS, "prctl", 1)


def drop_capabilities() -> None:
    """Give up every capability of this thread, for good once `no_new_privileges` holds."""
    _C.prctl(_AMBIENT, 4, 0, 0, 0)  # old kernels have no ambient ones to clear
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    _syscall(_CAPSET[machine()], "capset", header, ctypes.create_string_buffer(24))


def install_filter(program: bytes) -> None:
    """Put a seccomp program (`filter.program`) over this process, for good."""
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    header = ctypes.create_string_buffer(head)
    _check(_C.prctl(_SECCOMP, ctypes.c_ulong(2), header, 0, 0), "seccomp")


def landlock_version() -> int:
    """The version of Landlock that the kernel has. Raises: OSError if it has none."""
    return _syscall(_CREATE_RULESET, "Landlock", None, 0, 1)


def ruleset(readable: Sequence[str], writable: Sequence[str], devices: Sequence[str]) -> int:
    """What `restrict` leaves open, as a file descriptor: these files and folders, and no network port.

    Connections, abstract sockets and signals to outside are refused where the version knows them.
    Paths that are not there are left out. Raises: OSError if the kernel has no Landlock.
    """
    version = landlock_version()
    known = _FS_KNOWN.get(version, FS_ALL)
    fields = (known, *((3,) if version >= 4 else ()), *((3,) if version >= 6 else ()))
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    rules = _syscall(_CREATE_RULESET, "Landlock", ctypes.c_char_p(attributes), len(attributes), 0)
    for paths, rights in ((readable, READ), (writable, WRITE & known), (devices, _OF_FILES & known)):
        for path in paths:
            _allow(rules, path, rights)
    return rules


def restrict(rules: int) -> None:
    """Close to this process all that `ruleset` does not leave open, for good; after `no_new_privileges`."""
    _syscall(_RESTRICT_SELF, "Landlock", rules, 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, fd)
        _syscall(_ADD_RULE, f"Landlock {path}", ruleset, 1, ctypes.c_char_p(rule), 0)
    finally:
        os.close(fd)
