"""The monitor of a stage: it changes nothing that is trained, ends a stage where it is told to, and survives a kill."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import strop

SHORT = '''
def short(completion, row):
    """Falls as answers grow longer, or where they hold many letters."""
    return -float(len(set(completion)))
'''


@pytest.fixture(scope="module")
def folder(tiny: Any) -> Any:
    (tiny.folder / "held_out.py").write_text(SHORT)
    return tiny


def monitor(tiny: Any, **changes: Any) -> dict[str, Any]:
    held = {"name": "custom", "function": f"{tiny.path('held_out.py')}:short", "label": "short"}
    return {"num_prompts": 10, "num_generations": 3, "every": 2, "rewards": [held], **changes}


def stage(tiny: Any, method: str = "grpo", **changes: Any) -> dict[str, Any]:
    made = getattr(tiny, method)(steps=8, save_every=3)
    if method == "dpo":
        made["training"]["max_length"] = 128
        changes = {**changes, "sampling": {"max_completion_length": 12}}
    return {**made, "monitor": monitor(tiny, **changes)}


def record(run: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((run / "stages" / name / "monitor.json").read_text())["evaluations"]
    return rows


@pytest.mark.parametrize("method", ["grpo", "dpo", "ppo"])
def test_what_is_trained_is_the_same_with_a_monitor(method: str, folder: Any, small_runs: Any, tmp_path: Path) -> None:
    plain = getattr(folder, method)(steps=4)
    watched = {**plain, "monitor": stage(folder, method)["monitor"]}
    runs = [tmp_path / "plain", tmp_path / "watched"]
    for place, made in zip(runs, (plain, watched), strict=True):
        strop.run(folder.recipe(place, made), display="quiet")
    bare, seen = map(small_runs.only_run, runs)
    assert small_runs.numbers(bare) == small_runs.numbers(seen)
    assert small_runs.weights(bare, method) == small_runs.weights(seen, method)
    assert not (bare / "stages" / method / "monitor.json").exists()
    rows = record(seen, method)
    assert [row["step"] for row in rows] == [0, 2, 4]
    first, last = rows[0]["figures"], rows[-1]["figures"]
    assert first["kl"]["value"] == pytest.approx(0.0, abs=1e-4) and last["kl"]["value"] > 0.05
    assert first["held_out"]["n"] == 30 and ("proxy" in first) == (method != "dpo")


def test_the_same_prompts_and_seeds_at_each_evaluation(folder: Any, small_runs: Any, tmp_path: Path) -> None:
    frozen = {**stage(folder), "optimizer": {"name": "adamw", "lr": 1e-12}}
    strop.run(folder.recipe(tmp_path, frozen), display="quiet")
    samples = small_runs.only_run(tmp_path) / "stages/grpo/monitor"
    texts = [
        [[c["content"] for c in row["completions"]] for row in small_runs.lines(file)]
        for file in sorted(samples.glob("step-*.jsonl"))
    ]
    assert len(texts) == 5 and all(text == texts[0] for text in texts)


@pytest.mark.parametrize("method", ["grpo", "dpo"])
def test_killed_and_resumed_it_remembers_and_says_the_same(
    method: str, folder: Any, small_runs: Any, tmp_path: Path
) -> None:
    child = small_runs.Child()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    strop.run(folder.recipe(whole, stage(folder, method, on_alarm="rollback")), display="quiet")
    recipe = folder.recipe(broken, stage(folder, method, on_alarm="rollback"))
    assert child(recipe, at=["step", method, 4], signal=int(signal.SIGKILL)) == -signal.SIGKILL
    run = small_runs.only_run(broken)
    assert child(run, at=["step", method, 6], signal=int(signal.SIGKILL)) == -signal.SIGKILL
    strop.run(run, display="quiet")
    ours, theirs = run, small_runs.only_run(whole)
    assert record(ours, method) == record(theirs, method)
    assert small_runs.numbers(ours) == small_runs.numbers(theirs)
    assert small_runs.weights(ours, method) == small_runs.weights(theirs, method)


@pytest.fixture(scope="module")
def alarming(folder: Any) -> dict[str, Any]:
    """A stage whose held-out reward is the trained one's opposite, and falls from the first."""
    made = stage(folder, num_prompts=30, num_generations=4, every=1, patience=1)
    made["optimizer"] = {"name": "adamw", "lr": 4e-3}
    made["training"] |= {"steps": 12, "save_every": 2, "keep": 1}
    return made


def ended(run: Path, small_runs: Any) -> tuple[int, list[dict[str, Any]]]:
    """The last step that was made, and the alarms."""
    return small_runs.numbers(run)[-1]["step"] + 1, small_runs.events(run, "alarm")


def test_an_alarm_stops_the_stage_and_says_so(
    alarming: dict[str, Any], folder: Any, small_runs: Any, tmp_path: Path
) -> None:
    made = {**alarming, "monitor": {**alarming["monitor"], "on_alarm": "stop"}}
    strop.run(folder.recipe(tmp_path, made), display="quiet")
    run = small_runs.only_run(tmp_path)
    step, alarms = ended(run, small_runs)
    assert 0 < step < 12 and alarms[0]["code"] == "held_out_falls" and alarms[0]["step"] == step
    assert alarms[0]["examples"] and alarms[0]["evidence"]["held_out/value"] < 0
    said = [event["text"] for event in small_runs.events(run, "note")]
    assert any(f"the monitor ended the stage; the model is that of step {step}" in text for text in said)
    assert (run / "stages/grpo/checkpoints" / f"step-{step:06d}").is_dir()
    report = (run / "report.html").read_text()
    assert "Reward hacking: the held-out reward fell" in report and "Rewards by distance from the start" in report


def test_a_rollback_leaves_the_model_of_the_best_evaluation(
    alarming: dict[str, Any], folder: Any, small_runs: Any, tmp_path: Path
) -> None:
    made = {**alarming, "monitor": {**alarming["monitor"], "on_alarm": "rollback"}}
    strop.run(folder.recipe(tmp_path / "back", made), display="quiet")
    run = small_runs.only_run(tmp_path / "back")
    step, alarms = ended(run, small_runs)
    values = [row["figures"]["held_out"]["value"] for row in record(run, "grpo")]
    best = values.index(max(values[:-1]))
    assert alarms and best < step < 12
    kept = folder.recipe(tmp_path / "kept", {**made, "monitor": None, "training": {**made["training"], "steps": best}})
    if best:
        strop.run(kept, display="quiet")
        assert small_runs.weights(run, "grpo") == small_runs.weights(small_runs.only_run(tmp_path / "kept"), "grpo")
    else:
        start = small_runs.load_file(folder.folder / "base/model.safetensors")
        left = small_runs.weights(run, "grpo")
        assert all(left[f"model/{name}"] == tensor.tobytes() for name, tensor in start.items())


def test_a_stage_that_was_ended_and_killed_before_it_was_saved_is_not_trained_on(
    alarming: dict[str, Any], folder: Any, small_runs: Any, tmp_path: Path
) -> None:
    made = {**alarming, "monitor": {**alarming["monitor"], "on_alarm": "rollback"}}
    strop.run(folder.recipe(tmp_path / "whole", made), display="quiet")
    whole = small_runs.only_run(tmp_path / "whole")
    step, _ = ended(whole, small_runs)
    saves = len(small_runs.events(whole, "checkpoint"))
    child = small_runs.Child()
    recipe = folder.recipe(tmp_path / "broken", made)
    assert child(recipe, at=["phase", "saving", saves], signal=int(signal.SIGKILL)) == -signal.SIGKILL
    run = small_runs.only_run(tmp_path / "broken")
    strop.run(run, display="quiet")
    assert ended(run, small_runs)[0] == step
    assert small_runs.weights(run, "grpo") == small_runs.weights(whole, "grpo")


def test_early_stop_ends_where_no_new_best_comes(
    alarming: dict[str, Any], folder: Any, small_runs: Any, tmp_path: Path
) -> None:
    made = {**alarming, "monitor": {**alarming["monitor"], "patience": 9, "early_stop": 3}}
    strop.run(folder.recipe(tmp_path, made), display="quiet")
    run = small_runs.only_run(tmp_path)
    values = [row["figures"]["held_out"]["value"] for row in record(run, "grpo")]
    best = values.index(max(values))
    assert len(values) - 1 == best + 3 and (run / "stages/grpo/best" / f"step-{best:06d}").is_dir()


def test_without_a_monitor_eval_data_feeds_the_cheap_detectors(folder: Any, small_runs: Any, tmp_path: Path) -> None:
    made = {**folder.grpo(steps=4, eval_every=2), "eval_data": folder.data("test")}
    strop.run(folder.recipe(tmp_path, made), display="quiet")
    rows = record(small_runs.only_run(tmp_path), "grpo")
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert "kl" not in rows[-1]["figures"] and rows[-1]["figures"]["proxy"]["n"] == 12
