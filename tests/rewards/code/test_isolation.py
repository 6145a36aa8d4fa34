"""The tier is what withstands attacks; where none does, nothing runs."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from strop.recipes.doctor import examine as look
from strop.rewards import load_rewards, score
from strop.rewards.code import Code, attacks, battery, isolation, pool, values
from strop.rewards.code.battery import Report, examine
from strop.rewards.code.grade import Local
from strop.rewards.code.isolation import Wanted, sandbox_of
from strop.rewards.code.worker import Ended, Limits, Relay, Tier, Worker
from strop.types import Completion, Group

GROUP = Group("p", (Completion("def f(a): return a"),), {"tests": [{"entry": "f", "args": [1], "expected": 1}]})


def broken(tier: Tier, runner: str | None = None) -> Report:
    return Report(tier=tier, broken=(f"a program can read /{tier}", "x", "y", "z"), seconds=0.1)


def test_the_battery_is_quick_and_leaves_nothing(tier: str) -> None:
    before = set(os.listdir("/dev/shm")), set(os.listdir("."))
    began = time.process_time()
    found = examine(Local(tier))  # type: ignore[arg-type]
    assert found.holds and found.tier == tier
    assert time.process_time() - began < 2
    assert (set(os.listdir("/dev/shm")), set(os.listdir("."))) == before


class Leaky:
    """A sandbox in which some attacks succeed, as their answers say; nothing really runs."""

    tier: Tier = "B"

    def __init__(self, name: str, found: Any) -> None:
        self.name, self.found = name, found

    def run(self, request: dict[str, Any], limits: Limits, stdin: str | None = None) -> Ended:
        if request["mode"] == "stdin":
            why = None if self.name == "endless" else "timeout"
            return Ended(status=0, why=why, output=b"", answer=b"", cpu_s=0.0)
        honest = request["code"] == attacks.program(attacks.HONEST)
        leaks = self.name in attacks.QUICK and request["code"] == attacks.program(attacks.QUICK[self.name])
        answer = self.found if leaks else ["honest"] if honest and self.name != "honest" else []
        return Ended(status=0, why=None, output=b"", answer=values.dump(["value", values.encode(answer)]), cpu_s=0.0)

    def run_test(self, request: dict[str, Any], limits: Limits, wall_s: float, relay: Relay) -> Ended:
        raise NotImplementedError


@pytest.mark.parametrize("name", attacks.QUICK)
def test_one_attack_that_succeeds_breaks_a_tier(name: str) -> None:
    report = examine(Leaky(name, ["do harm"]))
    assert report.broken == ("a program can do harm",) and not report.holds


def test_programs_that_run_for_ever_break_a_tier() -> None:
    assert examine(Leaky("none", [])).holds
    assert examine(Leaky("endless", [])).broken == ("a program can run for ever", "a program can write for ever")
    assert "an honest program fails" in examine(Leaky("honest", [])).broken[0]


def test_a_tier_that_does_not_start_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    pool.close_all()
    monkeypatch.setattr("strop.rewards.code.worker._BOOT", "import os; os._exit(1)")
    report = examine(Local("A"))
    assert report.broken == ("it does not start: the sandbox's starter ended",)


def test_where_no_tier_holds_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "report", broken)
    with pytest.raises(ValueError) as caught:
        load_rewards([Code()])
    text = str(caught.value)
    assert "no isolation holds on this machine" in text and "unsafe_exec=true" in text and "docker run" in text
    assert "tier A: a program can read /A; x; y (and 1 more)" in text and "tier B: a program can read /B" in text
    for tier in ("A", "B"):
        with pytest.raises(ValueError, match=f"tier {tier}: a program can read /{tier}"):
            Code(tier=tier)([])  # type: ignore[arg-type]


def test_unsafe_runs_are_told_and_stamped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(isolation, "report", broken)
    monkeypatch.setattr(isolation, "_warned", [])
    reward = Code(unsafe_exec=True)
    load_rewards([reward])
    assert "UNSAFE" in capsys.readouterr().err
    (group,) = score([GROUP], [reward])
    assert group.completions[0].score == 1.0 and group.completions[0].facts == {"code": {"tier": "D", "hidden": 1.0}}
    assert capsys.readouterr().err == ""


def test_unsafe_is_not_taken_where_a_tier_holds(tier: str) -> None:
    assert sandbox_of(Wanted(tier=tier, unsafe=True)).tier == tier


def test_the_best_tier_that_holds_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_b(tier: Tier, runner: str | None = None) -> Report:
        return Report(tier=tier, broken=("x",) if tier == "A" else (), seconds=0.0)

    monkeypatch.setattr(isolation, "report", only_b)
    assert sandbox_of(Wanted()).tier == "B"
    assert sandbox_of(Wanted(runner="run it")).tier == "C"


def test_a_runner_that_cannot_run_is_told() -> None:
    with pytest.raises(ValueError, match="tier C: it does not start: the runner cannot be started"):
        Code(runner="no-such-command python -")([])
    with pytest.raises(ValueError, match="did not run Python: exit status 3"):
        Code(runner="sh -c 'exit 3'")([])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"timeout_s": 0}, "timeout_s"),
        ({"memory_mb": 10}, "memory_mb"),
        ({"tier": "C"}, "runner"),
        ({"tier": "B", "runner": "x"}, "runner"),
        ({"workers": 0}, "workers"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Code(**settings)


def test_visible_and_hidden_tests(tier: str) -> None:
    call = {"entry": "f", "args": [1], "expected": 1}
    row = {"tests": [call], "hidden_tests": [{**call, "args": [2], "expected": 4}]}
    answers = ("def f(a): return a * a", "def f(a): return 1", "def f(a): return 0")
    (group,) = score([Group("p", tuple(map(Completion, answers)), row)], [Code(tier=tier)])  # type: ignore[arg-type]
    assert [c.score for c in group.completions] == [1.0, 0.0, 0.0]
    assert [c.facts["code"]["visible"] for c in group.completions] == [1.0, 1.0, 0.0]
    assert [c.facts["code"]["hidden"] for c in group.completions] == [1.0, 0.0, 0.0]


def test_the_doctor_names_the_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "report", broken)
    assert "none (A: a program can read /A; B: " in look()["sandbox"]
    monkeypatch.setattr(isolation, "report", lambda tier, runner=None: Report(tier=tier, broken=(), seconds=0.0))
    assert look()["sandbox"] == "tier A, which withstood all attacks"


def test_a_battery_is_run_once_a_process(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = isolation.report(tier)  # type: ignore[arg-type]
    monkeypatch.setattr(isolation, "examine", lambda sandbox: pytest.fail("attacked twice"))
    assert isolation.report(tier) is first  # type: ignore[arg-type]


def test_the_limits_of_the_battery_are_those_of_programs() -> None:
    assert battery.LIMITS.memory_mb <= Code().memory_mb
    worker = Worker("D")
    worker.close()
    assert not os.path.exists(worker.scratch)
