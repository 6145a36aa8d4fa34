"""Process rewards from end to end: labels by continuations, a model of them, a search with it, credit by it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.data.formats import load_dataset
from strop.rewards import ProcessReward
from strop.types import Group

SEPARATOR = "e"
"""What an untrained model says now and then."""


def groups(run: Path, stage: str) -> tuple[Group, ...]:
    return load_dataset(str(run / "stages" / stage / "samples.jsonl"), kind="groups").groups


@pytest.fixture(scope="module")
def run(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every stage of the family, a few steps each, on the untrained model."""
    letters = {"name": "custom", "function": f"{tiny.path('rewards.py')}:letters", "label": "letters"}
    prm = {"name": "process", "path": "@prm"}
    sampling = {"max_completion_length": 24}
    search = {"kind": "search", "data": tiny.data("test"), "sampling": sampling, "save_every": 5}
    truth = {**letters, "weight": 0}
    stages = [
        {
            "kind": "steps", "name": "steps", "data": {"path": tiny.data("prompts"), "limit": 16}, "rewards": [letters],
            "num_samples": 3, "num_continuations": 3, "separator": SEPARATOR, "right_above": 20.0, "save_every": 8,
            "sampling": sampling,
        },
        {
            "kind": "process", "name": "prm", "data": "@steps", "separator": SEPARATOR,
            "optimizer": {"name": "adamw", "lr": 1e-3}, "training": tiny.training(steps=4, eval_fraction=0.25),
        },
        {**search, "name": "bon", "rewards": [prm, truth], "method": {"name": "best_of_n", "num_samples": 4}},
        {
            **search, "name": "beam", "rewards": [prm, truth],
            "method": {"name": "beam", "width": 4, "expand": 2, "separator": SEPARATOR, "max_steps": 4},
        },
        {
            **tiny.grpo(steps=2), "name": "grpo", "rewards": [prm, truth],
            "advantage": {"name": "process", "combine": "mean", "outcome": 0.5}, "sampling": sampling,
        },
    ]  # fmt: skip
    return strop.run(tiny.recipe(tmp_path_factory.mktemp("runs"), *stages), display="quiet")


def test_solutions_are_cut_and_labelled(run: Any) -> None:
    solutions = [c for group in groups(run.path, "steps") for c in group.completions]
    assert len(solutions) == 48 and max(len(c.steps) for c in solutions) > 2
    for c in solutions:
        assert "".join(c.steps) == c.text and len(c.step_labels) == len(c.steps)
        assert not c.steps or c.step_labels[-1] is (c.score > 20.0)
        assert all(label * 3 in (0, 1, 2, 3) for label in c.step_labels[:-1])
    assert {label for c in solutions for label in c.step_labels} >= {0.0, 1.0}
    labels = [label for c in solutions for label in c.step_labels]
    assert run.metrics["steps"]["steps/label"]["n"] == len(labels)


def test_the_model_learns_from_log_2_on_and_says_how_it_cuts(run: Any) -> None:
    from transformers import AutoModelForTokenClassification

    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    first = next(line for line in lines if line["stage"] == "prm")
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-6)  # its head begins at zero
    folder = run.path / "stages/prm/model"
    assert json.loads((folder / "process.json").read_text()) == {"separator": SEPARATOR}
    assert AutoModelForTokenClassification.from_pretrained(folder).config.num_labels == 1
    figures = run.metrics["prm"]
    assert figures["before/eval_loss"]["value"] == pytest.approx(math.log(2), rel=1e-6)
    assert 0 <= figures["eval_auroc"]["value"] <= 1 and figures["eval_accuracy"]["n"] > 10


def test_the_best_by_the_model_stands_first(run: Any) -> None:
    reward = ProcessReward(path=str(run.path / "stages/prm/model"))
    found = groups(run.path, "bon")
    for group in found:
        scores = [c.score for c in group.completions]
        assert scores == sorted(scores, reverse=True) and len(scores) == 4
    bare = [replace(g, completions=tuple(replace(c, score=None) for c in g.completions)) for g in found]
    again = reward(bare)
    for group, verdicts in zip(found, again, strict=True):
        for c, verdict in zip(group.completions, verdicts, strict=True):
            assert c.steps == verdict.steps and list(c.step_scores) == pytest.approx(verdict.step_scores, rel=1e-3)
    figures = run.metrics["bon"]
    values = [[c.rewards["letters"] for c in g.completions] for g in found]
    assert figures["chosen/letters"]["value"] == pytest.approx(sum(v[0] for v in values) / len(values))
    assert figures["best_of@1/letters"]["value"] == pytest.approx(sum(map(sum, values)) / 48)
    assert figures["best_of@4/letters"]["value"] == pytest.approx(figures["chosen/letters"]["value"])


def test_beams_keep_the_best_beginnings(run: Any) -> None:
    found = groups(run.path, "beam")
    assert len(found) == 12 and all(1 <= len(g.completions) <= 2 for g in found)
    for group in found:
        assert [c.score for c in group.completions] == sorted((c.score for c in group.completions), reverse=True)
        assert all(len(c.token_ids) <= 24 and c.finish in ("stop", "length") for c in group.completions)


def test_credit_goes_to_tokens(run: Any) -> None:
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["stage"] == "grpo"]
    assert len(steps) == 2 and all(line["steps/number"] >= 1 and 0 < line["steps/score"] < 1 for line in steps)
    assert all(line["grad_norm"] > 0 for line in steps)
    shown = load_dataset(str(run.path / "stages/grpo/rollouts/step-000001.jsonl"), kind="groups").groups
    assert all(c.advantage is not None and c.step_scores for g in shown for c in g.completions)


# What outcomes alone are worth in the embedded world; the explicit model's worth is in `test_prm`.

SAMPLING = {"max_completion_length": 72}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_an_implicit_model_chooses_better_than_the_majority(seed: int, world: Any, tmp_path: Path) -> None:
    """A language model trained on right and wrong answers; its log-ratio to the start chooses."""
    truth = world.reward("accuracy", 0)
    stages = (
        {
            "kind": "sample", "name": "sample", "data": world.data("prompts", 400), "num_samples": 8,
            "sampling": SAMPLING,
        },
        {"kind": "score", "name": "score", "data": "@sample", "rewards": [world.reward("accuracy")]},
        {"kind": "select", "name": "select", "data": "@score", "keep": ["dedup_answers", "label"]},
        {
            "kind": "unpaired", "name": "implicit", "data": "@select", "objective": "implicit_prm",
            "optimizer": {"name": "adamw", "lr": 5e-4},
            "training": {"epochs": 2, "batch_size": 32, "max_length": 256, "save_every": 0},
        },
        {
            "kind": "search", "name": "search", "model": world.model, "data": world.data("test", 160),
            "rewards": [{"name": "implicit_process", "path": ["@implicit", world.model], "separator": ";"}, truth],
            "method": {"name": "best_of_n", "num_samples": 8}, "sampling": SAMPLING,
        },
    )  # fmt: skip
    found = strop.run(world.recipe(tmp_path, seed, *stages), display="quiet").metrics["search"]
    assert found["best_of@8/accuracy"]["low"] > found["best_of@1/accuracy"]["high"]
    assert found["delta/best_of-maj/accuracy"]["low"] > 0
