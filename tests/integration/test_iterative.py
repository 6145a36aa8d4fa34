"""Sample, score, select and train on what is kept: stages over a model that was never trained."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.data.formats import load_dataset
from strop.evaluate.best_of import best_of_k
from strop.rollout.choose import best_of
from strop.types import Group


def sample(tiny: Any, **changes: Any) -> dict[str, Any]:
    small = {"num_samples": 4, "save_every": 5, "sampling": {"max_completion_length": 10}}
    return {"kind": "sample", "name": "sample", "data": {"path": tiny.data("prompts"), "limit": 12}, **small, **changes}


def score(tiny: Any, **changes: Any) -> dict[str, Any]:
    letters = {"name": "custom", "function": f"{tiny.path('rewards.py')}:letters", "label": "letters"}
    return {"kind": "score", "name": "score", "data": "@sample", "rewards": [letters], "save_every": 5, **changes}


def select(**changes: Any) -> dict[str, Any]:
    return {"kind": "select", "name": "select", "data": "@score", **changes}


def recipe(tiny: Any, runs: Path, *stages: dict[str, Any]) -> dict[str, Any]:
    """Stages of which only those with a model are given one."""
    made: dict[str, Any] = tiny.recipe(runs, *stages)
    for stage in made["stages"]:
        if stage["kind"] in ("score", "select"):
            del stage["model"]
    return made


def groups(run: Path, stage: str) -> tuple[Group, ...]:
    return load_dataset(str(run / f"stages/{stage}/samples.jsonl")).groups


def test_each_stage_leaves_what_the_next_one_reads(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    stages = (sample(tiny), score(tiny), select(keep=["dedup_answers", "pair"]))
    run = strop.run(recipe(tiny, tmp_path, *stages), display="quiet").path
    sampled, scored, pairs = (groups(run, name) for name in ("sample", "score", "select"))
    assert len(sampled) == 12 and {len(g.completions) for g in sampled} == {4}
    assert sampled[0].row["answer"] and sampled[0].origin.endswith("prompts.jsonl:1")
    for before, after in zip(sampled, scored, strict=True):
        assert [c.text for c in before.completions] == [c.text for c in after.completions]
        assert [c.rewards for c in after.completions] == [{"letters": len(set(c.text))} for c in before.completions]
        assert all(c.token_ids and c.logprobs is None for c in after.completions)
    assert all(g.completions[0].score > g.completions[1].score for g in pairs)  # type: ignore[operator]
    told = {stage["name"]: stage for stage in small_runs.summary(run)["stages"]}
    expected = sum(best_of_k([c.score for c in g.completions], 4) for g in scored) / 12
    assert told["score"]["metrics"]["best@4/score"]["value"] == pytest.approx(expected)
    assert told["score"]["metrics"]["score"] == told["score"]["metrics"]["letters"]
    assert told["select"]["data"]["kept"] == len(pairs)
    steps = [(row["stage"], row["step"]) for row in small_runs.numbers(run)]
    assert steps == [(stage, step) for stage in ("sample", "score") for step in range(3)]


def test_the_best_answers_are_trained_on(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    tuned = {**tiny.sft(steps=2), "data": {"path": "@select", "shuffle": False}}
    run = strop.run(recipe(tiny, tmp_path, sample(tiny), score(tiny), select(), tuned), display="quiet").path
    best = [g.completions[best_of([c.score for c in g.completions]) or 0] for g in groups(run, "score")]
    assert [c.text for g in groups(run, "select") for c in g.completions] == [c.text for c in best]
    data = small_runs.summary(run)["stages"][-1]["data"]
    assert (data["kind"], data["rows"], data["kept"]) == ("groups", 12, 12)
    assert any(c.finish == "length" for g in groups(run, "select") for c in g.completions)
    assert not any("longer than" in event["text"] for event in small_runs.events(run, "note"))


def test_rows_that_are_cut_to_fit_and_answers_that_leave_no_room_are_said(
    tiny: Any, small_runs: Any, tmp_path: Path
) -> None:
    run = strop.run(recipe(tiny, tmp_path, tiny.sft(steps=1, max_length=20)), display="quiet").path
    assert any("longer than 20 tokens, cut at the end" in event["text"] for event in small_runs.events(run, "note"))
    long = sample(tiny, sampling={"max_completion_length": 5000})
    with pytest.raises(ValueError, match="answers take 3977 tokens too many for any prompt to fit in what the model"):
        strop.run(recipe(tiny, tmp_path / "long", long), display="quiet")


def test_one_sample_and_no_filter_is_fine_tuning_on_the_models_own_samples(
    tiny: Any, small_runs: Any, tmp_path: Path
) -> None:
    own = sample(tiny, num_samples=1)
    raft = {**tiny.sft(steps=3), "data": "@select"}
    first = strop.run(recipe(tiny, tmp_path / "raft", own, score(tiny), select(), raft), display="quiet").path
    plain = {**tiny.sft(steps=3), "data": "@sample"}
    second = strop.run(recipe(tiny, tmp_path / "own", own, plain), display="quiet").path
    assert small_runs.weights(first, "sft") == small_runs.weights(second, "sft")


def test_pairs_of_own_samples_are_preferences(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    dpo = {**tiny.dpo(steps=2, batch_size=3), "data": "@select"}
    stages = (sample(tiny), score(tiny), select(keep=["dedup_answers", "pair"]), dpo)
    run = strop.run(recipe(tiny, tmp_path, *stages), display="quiet").path
    first = next(row for row in small_runs.numbers(run) if row["stage"] == "dpo")
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)


def test_chunks_and_rows_change_no_answer(tiny: Any, tmp_path: Path) -> None:
    def texts(folder: str, **changes: Any) -> list[list[str]]:
        run = strop.run(recipe(tiny, tmp_path / folder, sample(tiny, **changes)), display="quiet").path
        return [[c.text for c in g.completions] for g in groups(run, "sample")]

    assert texts("a") == texts("b", save_every=64) == texts("c", save_every=1)


@pytest.mark.parametrize(("stage", "step"), [("sample", 0), ("sample", 2), ("score", 1)])
def test_a_stage_that_was_killed_goes_on_with_the_same_answers(
    stage: str, step: int, tiny: Any, small_runs: Any, tmp_path: Path
) -> None:
    stages = (sample(tiny), score(tiny), select())
    whole = strop.run(recipe(tiny, tmp_path / "whole", *stages), display="quiet").path
    broken, child = recipe(tiny, tmp_path / "broken", *stages), small_runs.Child()
    assert child(broken, at=["step", stage, step], signal=int(signal.SIGKILL)) == -signal.SIGKILL
    run = small_runs.only_run(tmp_path / "broken")
    file = run / f"stages/{stage}/samples.jsonl"
    assert len(file.read_text().splitlines()) == min(12, 5 * (step + 1))
    file.write_bytes(file.read_bytes() + b'{"prompt": "cut in the midd')  # as a crash while writing leaves it
    strop.run(run, display="quiet")
    for name in ("sample", "score", "select"):
        files = [r / f"stages/{name}/samples.jsonl" for r in (run, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert small_runs.numbers(run) == small_runs.numbers(whole)
    ours, theirs = ([s["metrics"] for s in small_runs.summary(r)["stages"]] for r in (run, whole))
    assert ours == theirs
    assert [event["step"] for event in small_runs.events(run, "resume")] == [step + 1]


def test_nothing_left_is_an_error_with_the_reasons(tiny: Any, tmp_path: Path) -> None:
    keep = [{"name": "threshold", "above": 1000}, "best"]
    with pytest.raises(ValueError, match=r"select.keep: nothing is left of 12 prompts \(48 answers that score 1000"):
        strop.run(recipe(tiny, tmp_path, sample(tiny), score(tiny), select(keep=keep)), display="quiet")


def test_given_answers_are_scored_and_prompts_without_any_refused(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    pairs = score(tiny, data=tiny.data("pairs"))
    run = strop.run(recipe(tiny, tmp_path / "pairs", pairs), display="quiet").path
    assert {len(g.completions) for g in groups(run, "score")} == {2}
    (told,) = small_runs.summary(run)["stages"]
    assert told["metrics"]["letters"]["n"] == 96
    bare = score(tiny, data=tiny.data("prompts"))
    with pytest.raises(ValueError, match="prompts without answers; let a stage of kind sample come first"):
        strop.run(recipe(tiny, tmp_path / "prompts", bare), display="quiet")


def test_a_choice_behind_a_choice_is_refused(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pair finds one answer a row, for an earlier choice parted them"):
        strop.run(recipe(tiny, tmp_path, sample(tiny), score(tiny), select(keep=["best", "pair"])), display="quiet")
    with pytest.raises(ValueError, match="keep.*is empty"):
        strop.run(recipe(tiny, tmp_path, sample(tiny), score(tiny), select(keep=[])), display="quiet")
    with pytest.raises(ValueError, match="0 is greedy: all 4 answers would be the same"):
        strop.run(recipe(tiny, tmp_path, sample(tiny, sampling={"temperature": 0.0})), display="quiet")


@pytest.mark.parametrize("name", ["best-of-n", "raft", "rejection-sampling"])
def test_the_built_in_recipes_run(name: str, tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    (tiny.folder / "coin.py").write_text("def coin(completion, row):\n    return len(completion) % 2 == 1\n")
    changes = {
        "model": tiny.path("base"),
        "runs": str(tmp_path),
        "threads": 1,
        "device": "cpu",
        "sample.data": {"path": tiny.data("prompts"), "limit": 8},
        "sample.num_samples": 6,
        "sample.sampling.max_completion_length": 10,
        "sample.sampling.stop": [" "],
        "score.rewards": [f"{tiny.path('coin.py')}:coin"],
    }
    training = {"sft.training": {"max_length": 128, "batch_size": 4, "micro_batch_tokens": 256}}
    result = strop.run(name, changes if name == "best-of-n" else {**changes, **training}, display="quiet")
    assert result.state == "finished"
    kept = groups(result.path, "select")
    assert kept and all(len(g.completions) == 1 for g in kept)
    if name == "rejection-sampling":
        assert all(c.rewards == {"coin": 1.0} for g in kept for c in g.completions)
    assert json.loads((result.path / "summary.json").read_text())["stages"][-1]["state"] == "finished"
