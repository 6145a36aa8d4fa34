"""Which alarms of the monitor are open: rolled back, stopped, done again, taken from another run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strop.recipes.shipping.alarms import Alarm, alarms_of
from strop.recipes.shipping.left import read_left


def alarm(step: int, *, stage: str = "sft", code: str = "held_out_falls", severity: str = "alarm") -> dict[str, Any]:
    text = {"code": code, "severity": severity, "text": "Reward hacking: it fell.", "subject": ""}
    return {"kind": "alarm" if severity == "alarm" else "warning", "stage": stage, "step": step, **text}


def line(kind: str, step: int | None = None, text: str = "", stage: str = "sft") -> dict[str, Any]:
    return {"kind": kind, "stage": stage, "step": step, "text": text}


def ended(step: int) -> dict[str, Any]:
    return line("note", step, f"the monitor ended the stage; the model is that of step {step}")


def found(made_up: Any, *lines: dict[str, Any], stage: str = "sft") -> list[tuple[int, bool]]:
    made_up.events(line("start"), *lines)
    return [(a.step, a.is_open) for a in alarms_of(read_left(made_up.run), stage)]


@pytest.fixture
def run(made_up: Any) -> Any:
    made_up.whole([0.0], [1.0])
    return made_up


def test_an_alarm_nothing_came_of_is_open(run: Any) -> None:
    assert found(run, alarm(20)) == [(20, True)]
    assert alarms_of(read_left(run.run), "sft")[0] == Alarm("sft", 20, "held_out_falls", "Reward hacking: it fell.")


def test_a_rollback_closes_it(run: Any) -> None:
    assert found(run, alarm(20), ended(10)) == [(20, False)]


def test_a_stop_that_kept_the_model_does_not(run: Any) -> None:
    assert found(run, alarm(20), ended(20)) == [(20, True)]


def test_an_alarm_before_the_step_that_was_kept_stays_open(run: Any) -> None:
    assert found(run, alarm(5), alarm(20), ended(10)) == [(5, True), (20, False)]


def test_warnings_and_other_alarms_are_none_of_the_monitors(run: Any) -> None:
    idle = line("alarm", 3, "5 steps in a row trained nothing")
    assert found(run, alarm(20, severity="warning"), idle) == []


def test_what_is_done_again_is_said_again(run: Any) -> None:
    again = [line("start"), line("resume", 10, "resumed at step 10")]
    assert found(run, alarm(5), alarm(20), *again) == [(5, True)]
    assert found(run, alarm(5), alarm(20), *again, alarm(20)) == [(5, True), (20, True)]
    assert found(run, alarm(20), line("start")) == []  # from its first step on


def test_only_stages_that_the_model_came_from_count(made_up: Any) -> None:
    made_up.write(made_up.sft(), made_up.sft("second", model="@sft"), made_up.sft("other", model="@sft"))
    made_up.trained("sft", str(made_up.folder / "base"))
    made_up.trained("second", "@sft")
    made_up.trained("other", "@sft")
    lines = [alarm(1), alarm(2, stage="second"), alarm(3, stage="other")]
    assert found(made_up, *lines, stage="second") == [(1, True), (2, True)]


def test_a_stage_of_another_run_brings_its_own_record(run: Any) -> None:
    evaluations = [{"step": 20, "alerts": [{**alarm(20), "what": "It fell."}, {**alarm(20, severity="info")}]}]
    record = run.run / "stages/sft/monitor.json"
    record.write_text(json.dumps({"stage": "sft", "evaluations": evaluations}))
    assert found(run) == [(20, True)]
    assert found(run, alarm(20)) == [(20, True)]  # told once
    record.write_text(json.dumps({"stage": "sft", "evaluations": evaluations, "kept": 10}))
    assert found(run) == [(20, False)]


def test_a_run_without_events(run: Any) -> None:
    assert alarms_of(read_left(run.run), "sft") == []
