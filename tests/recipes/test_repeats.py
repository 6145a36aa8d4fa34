"""Runs of recipes with rounds and optional stages: what is skipped or left out is noted, and a resumed run agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli import app
from strop.recipes.config import load_recipe
from strop.recipes.display import make
from strop.recipes.run import start


@pytest.fixture
def rounds(recipe: dict[str, Any]) -> dict[str, Any]:
    """SFT, three rounds of DPO that may end early, and a stage behind them."""
    sft, dpo, evaluation = recipe["stages"]
    given = {"data": evaluation["data"], "rewards": "number"}
    peak = {"kind": "best", "name": "peak", "metric": "accuracy", "patience": 1}
    block = {
        "kind": "repeat",
        "name": "rounds",
        "times": 3,
        "first": {"dpo": "@sft"},
        "stages": [{**dpo, "model": "@dpo"}, peak],
    }
    last = {**sft, "name": "last", "model": "@dpo"}
    return {**recipe, "evaluation": given, "stages": [sft, block, last]}


def go(ref: Any) -> Any:
    return start(ref, [], display=make("quiet"), command="strop run test")


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def states(run: Path) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in summary(run)["stages"]}


def start_of(run: Path, stage: str) -> str:
    """The model that a stage read, as the recipe names it."""
    entry: dict[str, Any] = json.loads((run / f"stages/{stage}/stage.json").read_text())
    return str(entry["inputs"]["model"])


def test_rounds_run_to_their_end_where_nothing_ends_them(stages: Any, rounds: dict[str, Any]) -> None:
    result = go(rounds)
    assert stages.ran == [
        "eval-start", "sft", "eval-sft", "dpo-1", "eval-dpo-1", "peak-1", "dpo-2", "eval-dpo-2", "peak-2",
        "dpo-3", "eval-dpo-3", "peak-3", "eval-peak-3", "last", "eval-last",
    ]  # fmt: skip
    assert set(states(result.path).values()) == {"finished"}
    assert start_of(result.path, "last") == "@dpo-3"


def test_rounds_that_are_over_are_skipped_and_noted(stages: Any, rounds: dict[str, Any]) -> None:
    stages.over = {"peak-1"}
    result = go(rounds)
    assert result.state == "finished"
    assert stages.ran[-7:] == ["eval-dpo-1", "peak-1", "peak-2", "peak-3", "eval-peak-3", "last", "eval-last"]
    found = states(result.path)
    skipped = ["dpo-2", "eval-dpo-2", "dpo-3", "eval-dpo-3"]
    assert [name for name, state in found.items() if state == "skipped"] == skipped
    assert list(found).index("dpo-2") == list(found).index("peak-1") + 1
    assert start_of(result.path, "last") == "@dpo-1"
    events = [json.loads(line) for line in (result.path / "events.jsonl").read_text().splitlines()]
    assert [e["text"] for e in events if e["kind"] == "skip"] == [
        "peak-1: skipped, as rounds before were no better: dpo-2, eval-dpo-2, dpo-3, eval-dpo-3"
    ]
    assert not (result.path / "stages/dpo-2").exists()
    assert (result.path / "report.html").stat().st_size > 1000


def test_a_run_that_was_stopped_behind_the_skip_goes_on_with_it(stages: Any, rounds: dict[str, Any]) -> None:
    stages.over = {"peak-1"}

    def stop(context: Any, step: int) -> None:
        if context.name == "last" and step == 1:
            raise KeyboardInterrupt

    stages.hook = stop
    run = go(rounds).path
    assert (states(run)["last"], states(run)["dpo-3"]) == ("interrupted", "skipped")
    stages.ran, stages.over, stages.hook = [], set(), lambda context, step: None
    assert go(run).state == "finished"
    assert stages.ran == ["last", "eval-last"]
    assert start_of(run, "last") == "@dpo-1" and states(run)["dpo-3"] == "skipped"


def test_what_is_left_out_is_said_and_kept(stages: Any, rounds: dict[str, Any], capsys: Any) -> None:
    sft = {key: value for key, value in rounds["stages"][0].items() if key != "data"}
    optional = {**rounds, "optional": ["sft"], "stages": [sft, *rounds["stages"][1:]]}
    optional["stages"][-1]["data"] = rounds["stages"][0]["data"]
    run = start(optional, [], display=make("plain"), command="strop run test").path
    assert "sft (no sft.data)" in capsys.readouterr().err
    assert summary(run)["left_out"] == ["sft (no sft.data)"]
    assert start_of(run, "dpo-1") == rounds["model"]
    go(run)
    assert summary(run)["left_out"] == ["sft (no sft.data)"]


def test_the_run_directory_has_every_stage_written_out(stages: Any, rounds: dict[str, Any]) -> None:
    result = go(rounds)
    assert load_recipe(result.path) == load_recipe(rounds)
    text = (result.path / "config.yaml").read_text()
    assert "repeat" not in text and "optional" not in text and text.count("kind: evaluate") == 7


def test_validate_says_what_is_left_out_and_shows_the_rest_written_out(tiny: Any) -> None:
    words = ["validate", "align", f"model={tiny.path('base')}", f"dpo.data={tiny.data('pairs')}"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert "left out sft (no sft.data)\n" in told.output and "left out evaluation (no evaluation.data)\n" in told.output
    assert "changed  dpo.data.path: @label -> " in told.output
    plain = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [stage["name"] for stage in plain["stages"]] == ["dpo"]
    assert plain["left_out"][-1] == "evaluation (no evaluation.data)" and len(plain["left_out"]) == 6
