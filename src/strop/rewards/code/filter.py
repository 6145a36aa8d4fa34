"""The seccomp program: which system calls a sandboxed process may make. A list of what is allowed.

Threads, files, pipes, timers and `socketpair` (asyncio wakes itself through one) are. What starts
a process, opens a socket, or touches another process is refused with EPERM, what is not named
here with ENOSYS, so that the C library falls back to older calls. Some are allowed by argument
alone: `clone` for threads, signals to the process itself, harmless `fcntl`, `ioctl`, `prctl`.

Runs inside the sandbox's own processes, so it imports the standard library alone.
Each name has its numbers on x86_64 and aarch64, from the kernel's headers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

_ALLOWED = """
read 0 63, write 1 64, open 2 -, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, poll 7 -, lseek 8 62, mmap 9 222,
mprotect 10 226, munmap 11 215, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139,
pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66, access 21 -, pipe 22 -, select 23 -, sched_yield 24
124, mremap 25 216, msync 26 227, mincore 27 232, madvise 28 233, dup 32 23, dup2 33 -, pause 34 -, nanosleep 35
101, getitimer 36 102, alarm 37 -, setitimer 38 103, getpid 39 172, sendfile 40 71, recvfrom 45 207, sendto 44
206, shutdown 48 210, getsockname 51 204, getpeername 52 205, getsockopt 55 209, exit 60 93, uname 63 160, flock
73 32, fsync 74 82, fdatasync 75 83, ftruncate 77 46, getdents 78 -, getcwd 79 17, chdir 80 49, fchdir 81 50,
rename 82 -, mkdir 83 -, rmdir 84 -, creat 85 -, link 86 -, unlink 87 -, symlink 88 -, readlink 89 -, umask 95
166, gettimeofday 96 169, getrlimit 97 163, getrusage 98 165, sysinfo 99 179, times 100 153, getuid 102 174,
getgid 104 176, geteuid 107 175, getegid 108 177, getppid 110 173, getpgrp 111 -, getgroups 115 158, getresuid
118 148, getresgid 120 150, getpgid 121 155, getsid 124 156, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132, statfs 137 43, fstatfs 138 44, getpriority 140 141, sched_getparam
143 121, sched_getscheduler 145 120, sched_get_priority_max 146 125, sched_get_priority_min 147 126,
sched_getaffinity 204 123, setrlimit 160 164, gettid 186 178, time 201 -, futex 202 98, getdents64 217 61,
set_tid_address 218 96, fadvise64 221 223, clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115,
exit_group 231 94, epoll_create 213 -, epoll_wait 232 -, epoll_ctl 233 21, openat 257 56, mkdirat 258 34,
newfstatat 262 79, unlinkat 263 35, renameat 264 38, linkat 265 37, symlinkat 266 36, readlinkat 267 78,
faccessat 269 48, pselect6 270 72, ppoll 271 73, set_robust_list 273 99, get_robust_list 274 100, fallocate 285
47, timerfd_create 283 85, timerfd_settime 286 86, timerfd_gettime 287 87, eventfd2 290 19, epoll_create1 291
20, epoll_pwait 281 22, dup3 292 24, pipe2 293 59, preadv 295 69, pwritev 296 70, getrandom 318 278, renameat2
316 276, membarrier 324 283, copy_file_range 326 285, preadv2 327 286, pwritev2 328 287, statx 332 291, rseq 334
293, close_range 436 436, faccessat2 439 439, epoll_pwait2 441 441, wait4 61 260, waitid 247 95, restart_syscall
219 128, getcpu 309 168, futex_waitv 449 449
"""

_CHECKED = "clone 56 220, kill 62 129, tgkill 234 131, prlimit64 302 261, fcntl 72 25, ioctl 16 29, prctl 157 167, \
socketpair 53 199"

_REFUSED = """
fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, socket 41 198, connect 42 203, bind 49 200, listen 50
201, accept 43 202, accept4 288 242, sendmsg 46 211, recvmsg 47 212, ptrace 101 117, process_vm_readv 310 270,
process_vm_writev 311 271, tkill 200 130, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, pidfd_open 434
434, pidfd_getfd 438 438, pidfd_send_signal 424 424, shmget 29 194, shmat 30 196, shmctl 31 195, msgget 68 186,
msgsnd 69 189, msgrcv 70 188, msgctl 71 187, semget 64 190, semop 65 193, semctl 66 191, mq_open 240 180,
mq_unlink 241 181, io_uring_setup 425 425, keyctl 250 219, add_key 248 217, request_key 249 218, bpf 321 280,
perf_event_open 298 241, userfaultfd 323 282, memfd_create 319 279, mount 165 40, umount2 166 39, unshare 272
97, setns 308 268, pivot_root 155 41, chroot 161 51, setsid 112 157, setpgid 109 154, setuid 105 146, setgid 106
144, chmod 90 -, fchmod 91 52, fchmodat 268 53, chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54,
utimensat 280 88, truncate 76 45, setxattr 188 5, mknod 133 -, mknodat 259 33
"""

_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032)
"""Duplicate, flags, locks, pipe sizes; not the ones that have signals sent."""
_IOCTL = (0x5401, 0x541B, 0x5413, 0x5421, 0x5450, 0x5451)
"""Is it a terminal, bytes waiting, window size, non-blocking, close on exec."""
_PRCTL = (3, 15, 16, 21, 23, 39, 0x53564D41)
"""Reading, and the names of threads and of memory."""

_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _MASK, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x54, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_EPERM, _ENOSYS = 0x00050001, 0x00050026
_NUMBER, _ARCH = 0, 4
_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_THREAD, _NEW_NAMESPACES = 0x10000, 0x7E020000

Step = tuple[int, int, int, int]


def prepared(machine: str) -> Callable[[int], bytes]:
    """The filter of a process, by its own pid, the only one it may send signals to.

    Args: machine: "x86_64" or "aarch64".
    """
    column = 1 if machine == "x86_64" else 2
    checked = _table(_CHECKED, column)
    first = [_load(_ARCH), (_EQUAL, 1, 0, _ARCHES[machine]), _end(_KILL), _load(_NUMBER)]
    if machine == "x86_64":  # the x32 calls have numbers of their own
        first += [(_AT_LEAST, 0, 1, 0x40000000), _end(_KILL)]
    last = [s for n in _table(_ALLOWED, column).values() for s in ((_EQUAL, 0, 1, n), _end(_ALLOW))]
    last += [s for n in _table(_REFUSED, column).values() for s in ((_EQUAL, 0, 1, n), _end(_EPERM))]
    before, after = _packed(first), _packed([*last, _end(_ENOSYS)])

    def program(pid: int) -> bytes:
        blocks = [((_EQUAL, 0, len(tests), checked[name]), *tests) for name, tests in _blocks(pid).items()]
        return before + _packed([step for block in blocks for step in block]) + after

    return program


def _packed(steps: Sequence[Step]) -> bytes:
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _blocks(pid: int) -> dict[str, list[Step]]:
    """What is asked of the arguments of the calls that depend on them."""
    return {
        "clone": [
            _load(_argument(0)),
            (_ANY_BIT, 0, 2, _THREAD),
            (_ANY_BIT, 1, 0, _NEW_NAMESPACES),
            _end(_ALLOW),
            _end(_EPERM),
        ],
        "kill": _one_of(0, (pid,)),
        "tgkill": _one_of(0, (pid,)),
        "prlimit64": _one_of(0, (0, pid)),
        "fcntl": _one_of(1, _FCNTL),
        "ioctl": _one_of(1, _IOCTL),
        "prctl": _one_of(0, _PRCTL),
        # Of the Unix family and a stream: datagrams could be sent to sockets of others.
        "socketpair": [
            _load(_argument(0)),
            (_EQUAL, 0, 3, 1),
            _load(_argument(1)),
            (_MASK, 0, 0, 0xF),
            (_EQUAL, 1, 0, 1),
            _end(_EPERM),
            _end(_ALLOW),
        ],
    }


def _one_of(argument: int, values: tuple[int, ...]) -> list[Step]:
    tests = [step for value in values for step in ((_EQUAL, 0, 1, value), _end(_ALLOW))]
    return [_load(_argument(argument)), *tests, _end(_EPERM)]


def _load(offset: int) -> Step:
    return (_LOAD, 0, 0, offset)


def _end(action: int) -> Step:
    return (_RETURN, 0, 0, action)


def _argument(index: int) -> int:
    return 16 + 8 * index


def _table(text: str, column: int) -> dict[str, int]:
    rows = [row.split() for row in text.replace("\n", " ").split(",")]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def numbers(machine: str) -> dict[str, int]:
    """The numbers of all calls that are named here; what the battery tries is among those refused."""
    column = 1 if machine == "x86_64" else 2
    return _table(f"{_ALLOWED},{_CHECKED},{_REFUSED}", column)
