"""The ship gate on models of the embedded world that really got better, really got worse, or learned a trick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import strop
from strop.cli import app

pytestmark = pytest.mark.slow


def dpo(world: Any, **changes: Any) -> dict[str, Any]:
    """Manners from pairs: with the settings of the quickstart, or spoiled ones."""
    stage = {
        "kind": "preference",
        "name": "dpo",
        "data": world.data("pairs"),
        "objective": {"name": "dpo", "beta": 0.3, "nll_weight": 0.5},
        "optimizer": {"name": "adamw", "lr": 5e-4},
        "schedule": {"name": "linear", "warmup": 6},
        "training": {"steps": 40, "batch_size": 32, "max_length": 128, "save_every": 0},
    }
    return {**stage, **changes}


def evaluation(world: Any, name: str, model: str) -> dict[str, Any]:
    rewards = [world.reward("accuracy"), world.reward("polite"), world.reward("rude", -1.0)]
    sampling = {"temperature": 0, "max_completion_length": 72}
    asked = {"data": world.data("test", 200), "rewards": rewards, "sampling": sampling}
    return {"kind": "evaluate", "name": name, "model": model, **asked}


def run(world: Any, runs: Path, stage: dict[str, Any]) -> Path:
    stages = (evaluation(world, "eval-start", world.model), stage, evaluation(world, "eval-end", f"@{stage['name']}"))
    return strop.run(world.recipe(runs, 0, *stages), display="quiet").path


def ship(*words: str | Path) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["ship", *map(str, words), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.output)


def verdicts(said: dict[str, Any]) -> dict[str, str]:
    return {outcome["metric"]: outcome["verdict"] for outcome in said["gate"]["outcomes"]}


def test_manners_ship_and_a_spoiled_model_does_not(world: Any, tmp_path: Path) -> None:
    good = run(world, tmp_path / "runs", dpo(world))
    code, said = ship(good, "--to", tmp_path / "good", "metrics=[polite, -rude]")
    assert code == 0 and verdicts(said) == {"polite": "pass", "-rude": "pass"}
    assert said["gate"]["outcomes"][0]["change"]["low"] > 0.2  # measured: from 0.29 to 0.65
    assert said["compared"]["same"] + said["compared"]["ties"] == 4 and said["compared"]["tokens"] > 20

    # Too high a rate and nothing that holds the arithmetic: politer, and wrong.
    objective = {"name": "dpo", "beta": 0.1}
    bad = run(world, tmp_path / "runs", dpo(world, objective=objective, optimizer={"name": "adamw", "lr": 4e-3}))
    code, said = ship(bad, "--to", tmp_path / "bad")
    lost = said["gate"]["outcomes"][0]
    assert code == 3 and not (tmp_path / "bad").exists()
    assert lost["metric"] == "accuracy" and lost["verdict"] == "fail" and lost["change"]["high"] < -0.05
    assert lost["change"]["n"] == 200

    # The other run is a rival, too: by the same answers that it gave itself.
    code, said = ship(bad, "--gate-only", f"against={good}")
    assert code == 3 and verdicts(said)["accuracy"] == "fail" and not (bad / "ship/checks").exists()


def test_a_trick_is_held_back_until_it_is_rolled_back(world: Any, tmp_path: Path) -> None:
    """A grader who likes length: the alarm of the run's own monitor is open, and closed by its rollback."""

    def grader(name: str, label: str) -> dict[str, Any]:
        return {"name": "custom", "function": f"strop.world.{name}", "label": label}

    def rl(on_alarm: str) -> dict[str, Any]:
        looks = {"data": world.data("test"), "num_prompts": 64, "num_generations": 4, "every": 2}
        return {
            "kind": "rl",
            "name": "rl",
            "data": world.data("prompts"),
            "rewards": [grader("hacks:longest", "proxy")],
            "num_generations": 8,
            "sampling": {"temperature": 1.0, "max_completion_length": 72},
            "advantage": {"name": "leave_one_out"},
            "objective": {"name": "rloo"},
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "schedule": {"name": "constant", "warmup": 3},
            "monitor": {**looks, "rewards": [grader("rewards:gold", "gold")], "on_alarm": on_alarm},
            "training": {"steps": 16, "batch_size": 16, "max_length": 128, "save_every": 0},
        }

    # Rewards that the trick does not lower: only the alarm can hold it back.
    asked = [f"data={world.run}/world/test.jsonl", "data.limit=40", "unclear=pass", "margin=1"]
    asked.append('rewards={name: custom, function: "strop.world.hacks:longest", label: proxy}')
    warned = strop.run(world.recipe(tmp_path / "runs", 0, rl("warn")), display="quiet").path
    code, said = ship(warned, *asked, "--gate-only")
    assert code == 3 and [o["verdict"] for o in said["gate"]["outcomes"]] == ["pass"]
    assert any(alarm["open"] for alarm in said["gate"]["alarms"]) and "open alarm of rl" in said["gate"]["reasons"][0]

    rolled = strop.run(world.recipe(tmp_path / "runs", 0, rl("rollback")), display="quiet").path
    code, said = ship(rolled, *asked, "--to", tmp_path / "rolled")
    (alarm,) = said["gate"]["alarms"][:1]
    assert code == 0 and not alarm["open"] and alarm["kept_step"] < alarm["step"]
    assert "closed: the model is that of step" in (tmp_path / "rolled/README.md").read_text()
