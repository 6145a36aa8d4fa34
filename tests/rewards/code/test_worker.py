"""Nothing is left behind, nothing blocks, and whatever breaks is no score."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from strop.rewards.code import Code, pool
from strop.rewards.code.grade import Local
from strop.rewards.code.worker import Ended, Fault, Limits, Worker
from strop.types import Completion, Group

SRC = str(Path(__file__).parents[3] / "src")
LIMITS = Limits(timeout_s=1.0, memory_mb=512)
ADD = {"mode": "call", "code": "def f(a): return a + 1", "entry": "f", "args": [3], "kwargs": {}}


def running() -> set[str]:
    """Processes of this one's: its children and theirs."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = dict(line.split() for line in found.splitlines())
    family = {str(os.getpid())}
    while more := {p for p, parent in parents.items() if parent in family and p not in family}:
        family |= more
    return {p for p in family if Path(f"/proc/{p}").exists()} - {str(os.getpid())}


def folders() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("strop-code-")}


@pytest.fixture
def fresh(tier: str) -> Iterator[str]:
    """A tier with no starter running."""
    pool.close_all()
    yield tier
    pool.close_all()


def test_200_runs_leave_nothing(fresh: Any) -> None:
    before = running(), folders(), set(os.listdir("/proc/self/fd"))
    sandbox = Local(fresh)
    assert sandbox.run(ADD, LIMITS).answer == b'["value",4]'
    during = running(), folders(), set(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(1) as threads:
        found = list(threads.map(lambda n: sandbox.run({**ADD, "args": [n]}, LIMITS).answer, range(200)))
    assert found == [f'["value",{n + 1}]'.encode() for n in range(200)]
    assert (running(), folders(), set(os.listdir("/proc/self/fd"))) == during
    pool.close_all()
    assert (running(), folders(), set(os.listdir("/proc/self/fd"))) == before


def test_many_threads_at_a_time(fresh: Any) -> None:
    sandbox = Local(fresh)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: sandbox.run({**ADD, "args": [n]}, LIMITS).answer, range(40)))
    assert found == [f'["value",{n + 1}]'.encode() for n in range(40)]


SCRIPT = """
import sys, time
from strop.rewards.code.worker import Limits, Worker
worker = Worker({tier!r})
print(worker.scratch, worker.pid, flush=True)
code = "import time\\nwhile True: time.sleep(1)"
worker.run({{"mode": "stdin", "code": code}}, Limits(timeout_s=60, memory_mb=512), "")
"""


def test_all_ends_when_the_grader_is_killed(fresh: Any) -> None:
    command = [sys.executable, "-c", SCRIPT.format(tier=fresh)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": SRC})
    assert process.stdout is not None
    scratch = process.stdout.readline().split()[0]
    time.sleep(0.3)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and Path(scratch).exists():
        time.sleep(0.05)
    assert not Path(scratch).exists()
    with subprocess.Popen(["ps", "-eo", "args="], stdout=subprocess.PIPE, text=True) as listing:
        assert listing.stdout is not None and scratch not in listing.stdout.read()


def test_a_starter_that_dies_is_replaced(fresh: Any) -> None:
    sandbox = Local(fresh)
    sandbox.run(ADD, LIMITS)
    with pool.lent(fresh) as worker:
        os.killpg(worker.pid, signal.SIGKILL)
    assert sandbox.run(ADD, LIMITS).answer == b'["value",4]'


def test_a_forked_copy_of_the_grader_starts_its_own(fresh: Any) -> None:
    sandbox = Local(fresh)
    sandbox.run(ADD, LIMITS)
    pid = os.fork()
    if pid == 0:
        answer = sandbox.run(ADD, LIMITS).answer
        pool.close_all()
        os._exit(0 if answer == b'["value",4]' else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert sandbox.run(ADD, LIMITS).answer == b'["value",4]'


def test_faults_of_the_machinery_are_no_score(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def broken(self: Worker, *arguments: Any) -> Ended:
        tries.append(1)
        raise Fault("no process could be started: try again")

    group = Group("p", (Completion("def f(a): return a"),), {"tests": [{"entry": "f", "args": [1], "expected": 1}]})
    reward = Code(tier=fresh)
    assert [v.score for v in reward([group])[0]] == [1.0]
    monkeypatch.setattr(Worker, "run", broken)
    ((verdict,),) = reward([group])
    assert verdict.score is None and "no process could be started" in verdict.reason
    assert len(tries) == pool.TRIES and verdict.facts == {"tier": fresh}


def test_one_fault_is_tried_again(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = Worker.run, []

    def broken_once(self: Worker, *arguments: Any) -> Ended:
        tries.append(1)
        if len(tries) == 1:
            raise Fault("once")
        return real(self, *arguments)

    monkeypatch.setattr(Worker, "run", broken_once)
    assert Local(fresh).run(ADD, LIMITS).answer == b'["value",4]' and len(tries) == 2


def program(code: str, tier: Any, timeout_s: float = 0.3) -> Ended:
    return Local(tier).run({"mode": "stdin", "code": code}, Limits(timeout_s=timeout_s, memory_mb=512), "")


def test_limits_are_kept_and_told(tier: str) -> None:
    began = time.monotonic()
    assert program("while True: pass", tier).why == "timeout"
    assert program("import time; time.sleep(100)", tier).why == "timeout"
    assert time.monotonic() - began < 5
    ended = program("x = b'x' * (600 << 20)", tier)
    assert ended.status == 1 and b"MemoryError" in ended.answer
    assert program("import os; os.abort()", tier).status < 0
    assert len(program("print('x' * (2 << 20))", tier).output) == 1_000_001


_PARTS = Path(sys.prefix).resolve().parts
HERE = f"[n for n in os.listdir('.') if n not in {_PARTS[2:3] if _PARTS[1] == 'tmp' else ()}]"
"""What lies in a program's folder, but for the way to an environment that itself lies below /tmp."""


def test_a_program_sees_nothing_of_the_grader_s(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-1")
    ended = program(f"import os\nprint(sorted(os.environ), {HERE})", tier, 2.0)
    assert b"SECRET" not in ended.output and b"[]" in ended.output and b"HOME" in ended.output
    fds = "import os\ndef there(n):\n  try: os.fstat(n); return True\n  except OSError: return False\n"
    ended = program(fds + "print([n for n in range(300) if there(n)])", tier, 2.0)
    assert ended.output.strip() == b"[0, 1, 2, 3]"
    ended = program("import sys, gc\nprint([m for m in sys.modules if 'strop' in m])", tier, 2.0)
    assert ended.output.strip() == b"[]"


def test_a_run_leaves_nothing_for_the_next(tier: str) -> None:
    leave = (
        "import os, json, math\nopen('x', 'w').write('1')\nos.mkdir('d')\nos.chdir('d')\nos.mkdir('e')\nmath.pi = 3\n"
    )
    program(leave + "import builtins; builtins.leak = 1", tier, 2.0)
    ended = program(f"import os, math, builtins\nprint({HERE}, math.pi > 3.1, hasattr(builtins, 'leak'))", tier, 2.0)
    assert ended.output.strip() == b"[] True False"


def test_random_numbers_and_hashes_repeat(tier: str) -> None:
    code = "import random\nprint(random.random(), hash('a'), list({'a', 'b', 'c'}))"
    assert program(code, tier, 2.0).output == program(code, tier, 2.0).output != b""
