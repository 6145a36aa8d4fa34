from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from strop.recipes.display import Json, Live, Plain, Quiet, make, shown
from strop.types import Completion, Group

LINE = {"stage": "dpo", "step": 4, "loss": 0.69314, "rewards/margins": 0.5, "grad_norm": None, "tokens_per_s": 12345.6}
SUMMARY: dict[str, Any] = {
    "stages": [
        {
            "name": "eval",
            "kind": "evaluate",
            "seconds": 1.0,
            "metrics": {"accuracy": {"value": 0.5, "low": 0.43, "high": 0.57, "n": 200}},
        },
        {
            "name": "dpo",
            "kind": "preference",
            "seconds": 42.0,
            "metrics": {"train/loss": {"value": 0.61, "low": None, "high": None, "n": 10}},
        },
    ]
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drive(display: Any) -> None:
    display.start({"run": "runs/x", **{f"fact {i}": "words" for i in range(20)}})
    display.facts("dpo", {"model": "m"})
    display.phase("training")
    display.step("dpo", 5, 60, LINE, due=True)
    display.step("dpo", 6, 60, LINE, due=False)
    display.note("saved step-000005", "checkpoint")
    display.samples("dpo", 5, [Group("why?", (Completion("[red]be\x1b[31mcause"),))])
    display.end(SUMMARY, ["finished: runs/x", "report: runs/x/report.html"])


def test_pipes_ci_and_no_color_get_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make("auto", io.StringIO()), Plain)
    assert isinstance(make("auto", Terminal()), Live)
    for name in ("CI", "NO_COLOR"):
        monkeypatch.setenv(name, "1")
        assert isinstance(make("auto", Terminal()), Plain)
        monkeypatch.delenv(name)
    assert isinstance(make("quiet"), Quiet)


def test_plain_prints_due_steps_only_and_at_most_twelve_lines_at_the_start() -> None:
    out = io.StringIO()
    display = Plain(out)
    display.start({f"fact {i}": "words" for i in range(20)})
    assert len(out.getvalue().splitlines()) == 12
    drive(Plain(out := io.StringIO()))
    steps = [line for line in out.getvalue().splitlines() if line.startswith("dpo ") and "/60" in line]
    assert steps == ["dpo 5/60  loss 0.6931  rewards/margins 0.5  12,346 tokens/s"]
    assert "  dpo  loss 0.61  (last steps)  42 s" in out.getvalue()
    assert "  accuracy  0.50 [0.43, 0.57]" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_json_prints_the_lines_of_the_file() -> None:
    out = io.StringIO()
    drive(Json(out))
    values = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [v for v in values if "step" in v] == [LINE, LINE]
    assert values[-1] == {"kind": "end", "summary": SUMMARY}


def test_live_shows_text_of_models_as_text() -> None:
    out = Terminal()
    drive(Live(out))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "[red]be [31mcause" in plain
    assert "0.50 [0.43, 0.57]" in plain and "report: runs/x/report.html" in plain


def test_a_step_shows_what_it_has() -> None:
    assert shown({"loss": 1.0, "step": 3}) == ["loss 1"]
