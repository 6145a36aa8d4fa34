"""DeepSeek-R1's recipes in the embedded world: reasoning found from the base, then made readable, then handed on.

The "base" is the world's model after SFT: it answers at once, mostly, and can reason if something makes it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import strop

SAMPLING = {"temperature": 1.0, "max_completion_length": 72}
SHORT = {"max_length": 128, "save_every": 0}
FORMAT = {"name": "tags", "label": "format", "tags": ["think", "answer"], "text_after": True}
SEEDS = [0, 1]


def rewards(world: Any) -> list[dict[str, Any]]:
    """What all models here are measured by: is it right, does it think first, is it polite and concise."""
    accuracy = {"name": "number", "label": "accuracy"}
    language = {"name": "language", "label": "language", "part": "thinking", "wordless": 1.0, "weight": 0}
    return [accuracy, {**FORMAT, "weight": 0}, language, world.reward("style", 0)]


def shared(world: Any, runs: Path, seed: int) -> dict[str, Any]:
    return {
        **{"seed": seed, "model": world.model, "runs": str(runs), "threads": 1, "device": "cpu"},
        "evaluation.data": world.data("test", 600),
        "evaluation.rewards": rewards(world),
        "evaluation.num_samples": 1,
        "evaluation.sampling": SAMPLING,
    }


def r1_zero(world: Any, runs: Path, seed: int) -> dict[str, Any]:
    """The built-in recipe at a tiny model's size."""
    return {
        **shared(world, runs, seed),
        "data": world.data("prompts"),
        "num_generations": 8,
        "sampling": SAMPLING,
        "optimizer.lr": 6e-4,
        "schedule": {"name": "constant", "warmup": 5},
        "training": {**SHORT, "steps": 24, "batch_size": 32},
    }


def r1(world: Any, runs: Path, seed: int, small: str) -> dict[str, Any]:
    """The built-in recipe at a tiny model's size, with as many steps of RL in all."""
    sft = {**SHORT, "epochs": 3, "batch_size": 16}
    rl = {**SHORT, "steps": 12, "batch_size": 32}
    return {
        **shared(world, runs, seed),
        "cold-start.data": "world:cold",
        "cold-start.optimizer.lr": 1e-3,
        "cold-start.training": sft,
        "reasoning.data": world.data("prompts"),
        "reasoning.num_generations": 8,
        "reasoning.sampling": SAMPLING,
        "reasoning.optimizer.lr": 4e-4,
        "reasoning.training": rl,
        "sample.data": world.data("prompts", 640),
        "sample.num_samples": 4,
        "sample.sampling": SAMPLING,
        "general.data": "world:general",
        "sft.optimizer.lr": 1e-3,
        "sft.training": sft,
        "helpful.data": world.data("pairs"),
        "helpful.optimizer.lr": 5e-4,
        "helpful.training": {**SHORT, "epochs": 1, "batch_size": 16, "eval_fraction": 0.1},
        "all.data": [world.data("prompts")["path"], "world:general"],
        "all.num_generations": 8,
        "all.sampling": SAMPLING,
        "all.optimizer.lr": 1e-4,
        "all.training": rl,
        "distill.model": small,
        "distill.optimizer.lr": 1e-3,
        "distill.training": {**sft, "epochs": 5},
    }


@pytest.fixture(scope="module")
def runs(world: Any, request: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Any]:
    """The finished run of a recipe with a seed."""

    @cache
    def run(name: str, seed: int) -> Any:
        folder = tmp_path_factory.mktemp("runs")
        if name == "r1-zero":
            return strop.run(name, r1_zero(world, folder, seed), display="quiet")
        return strop.run(name, r1(world, folder, seed, request.getfixturevalue("small")), display="quiet")

    return run


def model_of(run: Any, stage: str) -> str:
    return str(run.path / "stages" / stage / "model")


def against(world: Any, runs: Path, seed: int, model: str, baseline: str) -> dict[str, Any]:
    """A model compared with another on the same prompts, paired."""
    stage = {
        **{"kind": "evaluate", "name": "compared", "model": model, "baseline": baseline},
        **{"data": world.data("test", 800), "rewards": rewards(world), "sampling": SAMPLING},
    }
    found: dict[str, Any] = strop.run(world.recipe(runs, seed, stage), display="quiet").metrics["compared"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_reasoning_is_found_from_the_base_by_two_rules(seed: int, runs: Callable[[str, int], Any]) -> None:
    """Accuracy and the use of the thinking part rise together, at the end and along the way."""
    run = runs("r1-zero", seed)
    before, after = run.metrics["eval-start"], run.metrics["eval-r1-zero"]
    assert before["format"]["high"] < 0.35 and before["accuracy"]["high"] < 0.65
    assert after["delta/accuracy"]["low"] > 0.15 and after["delta/format"]["low"] > 0.25
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["stage"] == "r1-zero"]
    for name in ("rewards/accuracy/mean", "rewards/format/mean"):
        thirds = [sum(line[name] for line in steps[i : i + 8]) / 8 for i in (0, 8, 16)]
        assert thirds[0] < thirds[1] < thirds[2] and thirds[2] - thirds[0] > 0.15, (name, thirds)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_r1_ends_better_and_better_formatted_than_r1_zero(
    seed: int, world: Any, runs: Callable[[str, int], Any], tmp_path: Path
) -> None:
    ours, theirs = model_of(runs("r1", seed), "all"), model_of(runs("r1-zero", seed), "r1-zero")
    found = against(world, tmp_path, seed, ours, theirs)
    assert found["format"]["low"] > 0.95 and found["delta/format"]["low"] > 0.15
    assert found["delta/style"]["low"] > 0.3 and found["style"]["low"] > 0.9
    assert found["accuracy"]["value"] > 0.93 and found["delta/accuracy"]["low"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_r1s_stages_do_what_they_are_for(seed: int, runs: Callable[[str, int], Any]) -> None:
    run = runs("r1", seed)
    figures = run.metrics
    assert figures["eval-cold-start"]["delta/format"]["low"] > 0.5, "the form is there before any RL"
    assert figures["eval-reasoning"]["accuracy"]["value"] > figures["eval-start"]["accuracy"]["high"]
    assert figures["helpful"]["accuracy"]["low"] > 0.8
    kept = [json.loads(line) for line in (run.path / "stages/select/samples.jsonl").read_text().splitlines()]
    assert len(kept) > 500
    for row in kept:
        (answer,) = row["completions"]
        assert answer["rewards"] == {"accuracy": 1.0, "format": 1.0}
        assert answer["content"].startswith("<think>")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["stage"] == "all"]
    assert any("rewards/accuracy/mean" in line and "rewards/helpful/mean" in line for line in last)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_distilled_model_beats_the_same_small_model_trained_without(
    seed: int, world: Any, small: str, runs: Callable[[str, int], Any], tmp_path: Path
) -> None:
    """The other one is trained for as many steps, at the same rate, on the world's own right answers."""
    run = runs("r1", seed)
    steps = sum(json.loads(line)["stage"] == "distill" for line in (run.path / "metrics.jsonl").open())
    without = {
        **{"kind": "sft", "name": "without", "model": small, "data": world.data("sft")},
        "optimizer": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.95]},
        "schedule": {"name": "cosine", "warmup": 0.03, "final": 0.1},
        "training": {**SHORT, "steps": steps, "batch_size": 16},
    }
    other = strop.run(world.recipe(tmp_path, seed, without), display="quiet")
    found = against(world, tmp_path, seed, model_of(run, "distill"), model_of(other, "without"))
    assert found["delta/accuracy"]["low"] > 0.05 and found["delta/format"]["low"] > 0.3
    assert found["delta/style"]["low"] > 0.8


def test_r1_runs_through_on_a_model_that_knows_nothing(tiny: Any, tmp_path: Path) -> None:
    """Every stage, a few steps each; the base is started from again, and mixed rows find their own rewards."""
    training = tiny.training(steps=2, eval_fraction=0.0)
    short = {"max_completion_length": 8}
    letters = {"name": "custom", "function": f"{tiny.path('rewards.py')}:letters", "label": "letters"}
    rl = {"num_generations": 2, "sampling": short, "training": tiny.training(steps=2, batch_size=4)}
    helpful = {"name": "model", "path": "@helpful", "part": "answer"}
    changes = {
        **{"model": tiny.path("base"), "runs": str(tmp_path), "threads": 1, "device": "cpu"},
        **{"cold-start.data": tiny.data("sft"), "cold-start.training": training},
        **{"reasoning.data": tiny.data("prompts"), "reasoning.rewards": [letters]},
        **{f"{stage}.{key}": value for stage in ("reasoning", "all") for key, value in rl.items()},
        **{
            "sample.data": {"path": tiny.data("prompts"), "limit": 6},
            "sample.num_samples": 2,
            "sample.sampling": short,
        },
        **{"score.rewards": [letters], "select.keep": ["each"]},
        **{"general.data": {"path": tiny.data("sft"), "limit": 3}, "sft.training": training},
        **{"helpful.data": tiny.data("pairs"), "helpful.training": tiny.training(steps=2, eval_fraction=0.25)},
        "all.data": [tiny.data("prompts"), tiny.data("sft")],
        "all.rewards": [
            {"name": "only", "label": "letters", "column": "answer", "reward": letters},
            {"name": "only", "label": "helpful", "column": "answer", "rows": "without", "reward": helpful},
        ],
        **{"distill.model": tiny.path("base"), "distill.training": training},
    }
    run = strop.run("r1", changes, display="quiet")
    summary = json.loads((run.path / "summary.json").read_text())
    stages = {stage["name"]: stage for stage in summary["stages"]}
    assert stages["sft"]["data"]["kept"] == 12 + 3 and stages["distill"]["data"]["kept"] == 15
    assert stages["sft"]["inputs"]["model"] == stages["cold-start"]["inputs"]["model"]
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["stage"] == "all"]
    assert len(last) == 2 and any("rewards/helpful/mean" in line for line in last)
    assert any("rewards/letters/mean" in line for line in last)


def test_r1_zero_gives_a_base_model_its_template_and_leaves_it_with_it(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    from strop.data.templates import R1_ZERO
    from strop.recipes.stages import common

    asked: list[tuple[int, ...]] = []
    sample = common.sample

    def seen(module: Any, prompts: Any, **settings: Any) -> Any:
        asked.extend(prompts)
        return sample(module, prompts, **settings)

    monkeypatch.setattr(common, "sample", seen)

    bare = tmp_path / "bare"
    shutil.copytree(tiny.path("base"), bare)
    config = json.loads((bare / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    rows = [{"prompt": f"What is {i} plus 1?", "answer": str(i + 1)} for i in range(4)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    letters = {"name": "custom", "function": f"{tiny.path('rewards.py')}:letters", "label": "letters"}
    changes = {
        **{"model": str(bare), "runs": str(tmp_path), "threads": 1, "device": "cpu"},
        **{"data": str(tmp_path / "problems.jsonl"), "rewards": [letters], "num_generations": 2},
        **{"sampling.max_completion_length": 6, "training": tiny.training(steps=1, batch_size=2, max_length=600)},
        **{"evaluation.data": str(tmp_path / "problems.jsonl"), "evaluation.sampling.max_completion_length": 6},
    }
    run = strop.run("r1-zero", changes, display="quiet")
    tokenizer = AutoTokenizer.from_pretrained(run.path / "stages/r1-zero/model")
    told = [f"{R1_ZERO}\n\nUser:\n{row['prompt']}\n\nAssistant:\n" for row in rows]
    texts = [tokenizer.decode(ids) for ids in asked]
    assert texts[:4] == texts[-4:] == told and len(texts) == 4 + 2 + 4 and set(texts) == set(told)
    turns = [{"role": "user", "content": rows[0]["prompt"]}]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == told[0]
    notes = [event["text"] for event in map(json.loads, (run.path / "events.jsonl").open()) if event["kind"] == "note"]
    assert not any("chat template of its own" in note for note in notes)
    (tmp_path / "own").mkdir()
    own = strop.run("r1-zero", {**changes, "model": tiny.path("base"), "runs": str(tmp_path / "own")}, display="quiet")
    notes = [event["text"] for event in map(json.loads, (own.path / "events.jsonl").open()) if event["kind"] == "note"]
    assert sum("has a chat template of its own, so template=r1-zero is not used" in note for note in notes) == 1
