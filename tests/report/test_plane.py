"""Rewards against the distance from the start, and alerts of a monitor, in the report."""

from __future__ import annotations

import json
from pathlib import Path

from strop.report import write_report
from strop.report.plane import rewards_by_distance
from strop.report.read import read_run
from strop.report.records import Event, Figure, Look, Run
from strop.report.verdict import alerts

EVIL = "<script>alert(1)</script>"


def look(step: int, root: float, proxy: float, gold: float) -> Look:
    figures = {"sqrt_kl": Figure(root), "delta/proxy": Figure(proxy, proxy - 0.1, proxy + 0.1, 64)}
    return Look(step, {**figures, "delta/held_out": Figure(gold, gold - 0.1, gold + 0.1, 64)})


def test_both_rewards_are_drawn_over_the_root_of_the_kl() -> None:
    start = Look(0, {"sqrt_kl": Figure(0.0)})
    chart = rewards_by_distance([start, look(10, 1.0, 0.5, 0.4), look(20, 2.0, 0.9, 0.1)], "rl")
    assert chart is not None and chart.legend == ("training reward", "held-out reward")
    assert [row[:4] for row in chart.table.rows[3:]] == [
        ("held-out reward", 0, 0.0, 0.0),
        ("held-out reward", 10, 1.0, 0.4),
        ("held-out reward", 20, 2.0, 0.1),
    ]
    assert "held-out reward: highest 0.4000 at distance 1 (step 10), 0.1000 at distance 2 (step 20)." in chart.svg


def test_without_a_held_out_reward_there_is_no_such_plot() -> None:
    only = [Look(step, {"sqrt_kl": Figure(1.0), "delta/proxy": Figure(1.0)}) for step in (0, 1, 2)]
    assert rewards_by_distance(only, "rl") is None and rewards_by_distance([], "rl") is None


def event(kind: str, text: str, code: str = "") -> Event:
    return Event(kind, text, None, "rl", 1, "", code=code)


def test_reward_hacking_stands_first_among_the_alerts_and_once() -> None:
    events = (
        event("warning", "not ours"),
        event("warning", "entropy is gone", "entropy"),
        event("alarm", "idle"),
        event("alarm", "a phrase", "phrase"),
        event("alarm", "a phrase", "phrase"),
    )
    assert [e.text for e in alerts(Run("r", events=events))] == ["a phrase", "idle", "entropy is gone"]


def test_examples_are_shown_and_stay_text(tmp_path: Path) -> None:
    (tmp_path / "stages/rl").mkdir(parents=True)
    shown = [{"prompt": EVIL, "completion": f"x {EVIL}", "proxy": 1.0, "held_out": None}]
    line = {"kind": "alarm", "text": "Reward hacking", "stage": "rl", "step": 4, "code": "phrase", "examples": shown}
    (tmp_path / "events.jsonl").write_text(json.dumps(line) + "\n")
    figures = {"sqrt_kl": {"value": 1.0, "low": 0.5, "high": 1.5, "n": 8}}
    seen = {"stage": "rl", "evaluations": [{"step": 4, "figures": figures}]}
    (tmp_path / "stages/rl/monitor.json").write_text(json.dumps(seen))
    assert read_run(tmp_path).looks["rl"][0].figures["sqrt_kl"].high == 1.5
    page = write_report(tmp_path).read_text()
    assert EVIL not in page and "x &lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_broken_record_of_the_monitor_is_said_and_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "stages/rl").mkdir(parents=True)
    (tmp_path / "stages/rl/monitor.json").write_text('{"evaluations": [{"step": "x"}, 3')
    run = read_run(tmp_path)
    assert run.looks["rl"] == () and any("monitor.json" in problem for problem in run.problems)
