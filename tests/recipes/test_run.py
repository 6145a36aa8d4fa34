from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from strop.recipes.config import dump, load_recipe
from strop.recipes.context import Context
from strop.recipes.display import Quiet
from strop.recipes.run import RunResult, run, start
from strop.recipes.rundir import is_run, locked, states
from strop.recipes.trouble import explain


def go(ref: Any, *overrides: str) -> RunResult:
    return start(ref, list(overrides), display=Quiet(), command="strop run test")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def losses(result: RunResult) -> list[tuple[str, int, float]]:
    return [(line["stage"], line["step"], line["loss"]) for line in lines(result.path / "metrics.jsonl")]


def stop_at(stage: str, at: int) -> Any:
    def hook(context: Context, step: int) -> None:
        if (context.name, step) == (stage, at):
            os.kill(os.getpid(), signal.SIGINT)

    return hook


def test_a_run_leaves_everything_in_its_directory(stages: Any, recipe: dict[str, Any]) -> None:
    result = go(recipe, "dpo.objective.beta=0.2")
    assert (result.state, result.exit_code, stages.ran) == ("finished", 0, ["sft", "dpo", "eval"])
    assert result.path.name.startswith("three-") and is_run(result.path)
    assert load_recipe(result.path) == load_recipe(recipe, ["dpo.objective.beta=0.2"])
    assert result.model == result.path / "stages/dpo/model"
    assert result.metrics["eval"]["accuracy"] == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    status = read(result.path / "status.json")
    assert (status["state"], status["pid"], status["error"]) == ("finished", os.getpid(), None)
    assert len(losses(result)) == 10
    summary = read(result.path / "summary.json")
    assert summary["difference"] == ["dpo.objective.beta: 0.1 -> 0.2"]
    assert (summary["command"], summary["state"]) == ("strop run test", "finished")
    assert [s["artifacts"] for s in summary["stages"]] == [
        {"model": "stages/sft/model"},
        {"model": "stages/dpo/model"},
        {"samples": "stages/eval/samples.jsonl"},
    ]
    assert [(entry["name"], entry.get("from")) for entry in summary["lineage"]] == [
        (recipe["model"], None),
        ("sft", recipe["model"]),
        ("dpo", "sft"),
    ]
    assert result.report is not None and result.report.is_file()


def test_names_stand_for_the_artifacts_of_earlier_stages(stages: Any, recipe: dict[str, Any]) -> None:
    seen: dict[str, str] = {}
    stages.hook = lambda context, step: seen.update({context.name: context.model})
    result = go(recipe)
    assert seen == {"sft": recipe["model"], "dpo": str(result.path / "stages/sft/model")}


def test_each_stage_has_its_own_seed_that_other_stages_do_not_change(stages: Any, recipe: dict[str, Any]) -> None:
    first = {stage: loss for stage, step, loss in losses(go(recipe)) if step == 0}
    recipe["stages"].pop(0)
    recipe["stages"][0]["model"] = recipe["model"]
    second = {stage: loss for stage, step, loss in losses(go(recipe)) if step == 0}
    assert first["sft"] != first["dpo"] == second["dpo"]


def test_an_interrupted_run_resumes_to_the_numbers_of_the_unbroken_one(stages: Any, recipe: dict[str, Any]) -> None:
    whole = losses(go(recipe))
    stages.hook = stop_at("dpo", 2)
    broken = go(recipe)
    assert (broken.state, broken.exit_code) == ("interrupted", 130)
    status = read(broken.path / "status.json")
    assert (status["state"], status["stage"], status["step"]) == ("interrupted", "dpo", 3)
    assert [s["state"] for s in read(broken.path / "summary.json")["stages"]] == ["finished", "interrupted"]
    stages.hook, stages.ran = (lambda context, step: None), []
    resumed = go(broken.path)
    assert stages.ran == ["dpo", "eval"]
    assert (resumed.state, resumed.path) == ("finished", broken.path.resolve())
    assert losses(resumed) == whole
    events = [(e["kind"], e["stage"]) for e in lines(resumed.path / "events.jsonl")]
    assert ("skip", "sft") in events and ("resume", "dpo") in events


def test_sigterm_saves_too_and_signals_are_given_back(stages: Any, recipe: dict[str, Any]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stages.hook = lambda context, step: os.kill(os.getpid(), signal.SIGTERM)
    result = go(recipe)
    assert (result.exit_code, read(result.path / "status.json")["state"]) == (130, "interrupted")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_ctrl_c_stops_at_once(stages: Any, recipe: dict[str, Any]) -> None:
    def twice(context: Context, step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on")

    stages.hook = twice
    result = go(recipe)
    assert (result.state, result.exit_code) == ("interrupted", 130)
    assert not (result.path / "stages/sft/checkpoint.json").exists()


def test_a_failure_is_written_down_and_reported(stages: Any, recipe: dict[str, Any]) -> None:
    def fail(context: Context, step: int) -> None:
        if step == 1:
            raise RuntimeError("the disk caught fire")

    stages.hook = fail
    result = go(recipe)
    assert (result.state, result.exit_code) == ("failed", 1)
    status, summary = read(result.path / "status.json"), read(result.path / "summary.json")
    assert status["error"] == summary["error"] == "sft: RuntimeError: the disk caught fire"
    assert "Traceback" in (result.path / "error.txt").read_text()
    assert summary["stages"][0]["state"] == "failed"
    assert result.report is not None
    with pytest.raises(RuntimeError, match="caught fire"):
        run(recipe, display="quiet")


def test_a_users_mistake_before_the_first_step_is_exit_2_later_1(stages: Any, recipe: dict[str, Any]) -> None:
    def fail(context: Context, step: int) -> None:
        raise ValueError("no such column")

    stages.hook = fail
    assert go(recipe).exit_code == 1
    stages.execute = lambda stage, context: fail(context, 0)  # type: ignore[method-assign,assignment]
    import sys

    sys.modules["strop.recipes.stages"].execute = stages.execute  # type: ignore[attr-defined]
    assert go(recipe).exit_code == 2


def test_missing_inputs_are_all_said_before_a_directory_is_made(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file") as caught:
        go(recipe, "sft.data=gone.jsonl", "eval.rewards=gone.py:f")
    assert "sft.data" in str(caught.value) and "eval.rewards.0.function" in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_changed_input_sets_the_stage_and_what_follows_aside(
    stages: Any, recipe: dict[str, Any], tmp_path: Path
) -> None:
    first = go(recipe)
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "new", "chosen": "y", "rejected": "z"}) + "\n")
    stages.ran = []
    second = go(first.path)
    assert stages.ran == ["dpo"]  # the new model is the same here, so the evaluation still holds
    assert (second.path / "replaced/dpo-0/model").is_dir()
    assert len(losses(second)) == 10
    alarms = [e["text"] for e in lines(second.path / "events.jsonl") if e["kind"] == "alarm"]
    assert alarms == ["dpo starts again, since data.0 changed; its old files are in replaced/"]


def test_a_changed_artifact_is_noticed(stages: Any, recipe: dict[str, Any]) -> None:
    first = go(recipe)
    weights = first.path / "stages/sft/model/model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    stages.ran = []
    go(first.path)
    assert stages.ran == ["sft"]
    assert weights.read_bytes() == good


def test_settings_that_change_no_number_run_nothing_again(stages: Any, recipe: dict[str, Any]) -> None:
    go(recipe, "reuse=true")
    stages.ran = []
    result = go(recipe, "reuse=true", "sft.training.log_every=1", "sft.training.save_every=7")
    assert stages.ran == []
    assert [s["state"] for s in read(result.path / "summary.json")["stages"]] == ["reused"] * 3
    assert (result.path / "stages/dpo/model/model.safetensors").is_file()
    assert len(losses(result)) == 10


@pytest.mark.parametrize("override", ["seed=1", "sft.training.steps=3", "sft.optimizer.lr=1e-4", "precision=bf16"])
def test_settings_that_change_numbers_run_again(stages: Any, recipe: dict[str, Any], override: str) -> None:
    go(recipe)
    stages.ran = []
    go(recipe, "reuse=true", override)
    assert stages.ran[0] == "sft"


def test_a_run_directory_takes_no_overrides(stages: Any, recipe: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"config.yaml key=value"):
        go(go(recipe).path, "seed=3")


def test_two_processes_cannot_be_at_one_run(stages: Any, recipe: dict[str, Any]) -> None:
    path = go(recipe).path
    with locked(path), pytest.raises(ValueError, match=f"process {os.getpid()} is at this run"):
        go(path)


def test_runs_are_listed_with_their_state_and_dead_ones_found(stages: Any, recipe: dict[str, Any]) -> None:
    path = go(recipe).path
    assert [(s.name, s.state) for s in states(path.parent)] == [(path.name, "finished")]
    status = read(path / "status.json")
    (path / "status.json").write_text(json.dumps({**status, "state": "running", "pid": 2**22 + 1}))
    assert states(path.parent)[0].state == "dead"
    assert states(path / "nowhere") == []


def test_out_of_memory_names_smaller_settings() -> None:
    stage = load_recipe("grpo", ["model=m", "data=q", "rewards=number"]).stages[0]
    text = explain(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), stage)
    assert "training.micro_batch_tokens=2048" in text and "num_generations=4" in text


def test_a_torn_line_is_cut_when_the_run_goes_on(stages: Any, recipe: dict[str, Any]) -> None:
    stages.hook = stop_at("sft", 1)
    path = go(recipe).path
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"stage": "sft", "st')
    stages.hook = lambda context, step: None
    assert len(losses(go(path))) == 10


def test_a_call_from_python_is_told_as_a_command_line(stages: Any, recipe: dict[str, Any], tmp_path: Path) -> None:
    steps = {"sft.training.steps": 2, "dpo.data.columns": {"chosen": "chosen"}, "name": "mine"}
    result = run(recipe, steps, display="quiet")
    assert read(result.path / "summary.json")["command"] == f"strop run {result.path / 'config.yaml'}"
    (tmp_path / "my.yaml").write_text(dump(load_recipe(recipe)))
    result = run(tmp_path / "my.yaml", steps, display="quiet")
    assert read(result.path / "summary.json")["command"] == (
        f'strop run {tmp_path / "my.yaml"} sft.training.steps=2 \'dpo.data.columns={{"chosen": "chosen"}}\' name=mine'
    )


def test_a_stage_is_named_once(tmp_path: Path) -> None:
    stage = load_recipe("sft", ["model=m", "data=d"]).stages[0]
    assert explain(ValueError("no row"), stage) == "sft: no row"
    assert explain(ValueError("sft: no row"), stage) == "sft: no row"
    assert explain(ValueError("sft.data: no row"), stage) == "sft.data: no row"


@pytest.mark.parametrize(("evaluated", "verb"), [(True, "ship"), (False, "export")])
def test_what_was_evaluated_is_offered_to_be_judged(
    evaluated: bool, verb: str, stages: Any, recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = recipe["stages"] if evaluated else recipe["stages"][:2]
    path = run({**recipe, "stages": kept}, display="plain").path
    assert f"strop {verb} {path} --to my-model" in capsys.readouterr().err
