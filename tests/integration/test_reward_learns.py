"""Reward models learn what is better, and say how sure they may be: real stages over the embedded world."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest

import strop
from strop.rewards.scale import read_figures
from strop.world.oracle import POLITE, RAMBLES, RUDE, compose, style
from strop.world.tasks import KINDS, make_task

pytestmark = pytest.mark.slow

SHARPNESS = 1.5
"""P(first better) = sigmoid(1.5 times the difference of gold style)."""


def answer(rng: Random, task: Any) -> str:
    return compose(
        task, think=False, remark=rng.choice((POLITE, RUDE, "")), rambles=rng.sample(RAMBLES, rng.randrange(3))
    )


def noisy_rows(seed: int, n: int, num_answers: int = 2) -> list[dict[str, Any]]:
    """Comparisons whose labels are drawn from the Bradley-Terry model (rankings: Plackett-Luce) of gold style."""
    rng, rows = Random(f"noisy/{seed}"), []
    while len(rows) < n:
        task = make_task(rng, KINDS[len(rows) % len(KINDS)], "train")
        texts = list(dict.fromkeys(answer(rng, task) for _ in range(num_answers)))
        if len(texts) < num_answers:
            continue
        noise = {text: SHARPNESS * style(text) - math.log(rng.expovariate(1.0)) for text in texts}  # Gumbel: BT, PL
        ordered = sorted(texts, key=lambda text: -noise[text])
        rows.append({"prompt": [{"role": "user", "content": task.question}], "answers": ordered})
    return rows


def write_pairs(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w") as file:
        for row in rows:
            first, second = ([{"role": "assistant", "content": text}] for text in row["answers"])
            file.write(json.dumps({"prompt": row["prompt"], "chosen": first, "rejected": second}) + "\n")
    return str(path)


def write_rankings(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w") as file:
        for row in rows:
            said = [[{"role": "assistant", "content": text}] for text in row["answers"]]
            scores = list(range(len(said), 0, -1))
            file.write(json.dumps({"prompt": row["prompt"], "completions": said, "scores": scores}) + "\n")
    return str(path)


def train(folder: Path, seed: int, **stage: Any) -> tuple[Path, dict[str, Any]]:
    shared = {"name": "rm", "runs": str(folder), "threads": 1, "device": "cpu", "seed": seed, "model": "world:base"}
    made = {"kind": "reward", "name": "rm", "optimizer": {"name": "adamw", "lr": 1e-3}, **stage}
    run = strop.run({**shared, "stages": [made]}, display="quiet").path
    (entry,) = json.loads((run / "summary.json").read_text())["stages"]
    return run, entry["metrics"]


def bayes_accuracy(rows: list[dict[str, Any]]) -> float:
    """What the gold scores themselves would get right."""
    deltas = [style(row["answers"][0]) - style(row["answers"][1]) for row in rows]
    return sum(1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in deltas) / len(deltas)


@pytest.mark.parametrize("seed", [0, 1])
def test_gold_pairs_are_learnt(seed: int, tmp_path: Path) -> None:
    """From random weights on a thousand pairs: more than 95 % of held-out pairs right, also where the shorter wins."""
    training = {"steps": 30, "batch_size": 32, "max_length": 160, "eval_fraction": 0.15, "save_every": 0}
    run, metrics = train(tmp_path, seed, data="world:pairs", training=training)
    assert metrics["accuracy"]["value"] > 0.95 and metrics["accuracy"]["low"] > 0.9
    assert metrics["before/eval_accuracy"]["value"] < 0.8
    assert metrics["accuracy_chosen_shorter"]["value"] > 0.9
    known = read_figures(str(run / "stages/rm/model"))
    assert known is not None and known.temperature < 1, "clean labels: smoothing keeps scores closer than they could be"


@pytest.mark.parametrize("seed", [0, 1])
def test_honest_labels_give_a_calibrated_model(seed: int, tmp_path: Path) -> None:
    """Labels drawn from a Bradley-Terry model, nothing that holds the scale down: T is close to 1, ECE close to what
    1200 pairs leave to chance (0.035), accuracy that of the gold. Centring alone would bring T to about 0.8."""
    data = write_pairs(tmp_path / "pairs.jsonl", noisy_rows(seed, 3000))
    rows = noisy_rows(seed + 100, 1200)
    held_out = write_pairs(tmp_path / "held-out.jsonl", rows)
    objective = {"name": "bradley_terry", "label_smoothing": 0.0, "center_rewards_coefficient": 0.0}
    training = {"epochs": 1.0, "batch_size": 16, "max_length": 160, "save_every": 0}
    _, metrics = train(tmp_path, seed, data=data, eval_data=held_out, objective=objective, training=training)
    assert 0.8 < metrics["temperature"]["value"] < 1.25
    assert metrics["ece"]["value"] < 0.08 and metrics["ece_calibrated"]["value"] < 0.08
    assert metrics["accuracy"]["value"] > bayes_accuracy(rows) - 0.04
    assert metrics["nll"]["value"] < 0.55 < metrics["before/eval_loss"]["value"]


@pytest.mark.parametrize("objective", ["all_pairs", "plackett_luce"])
def test_rankings_are_learnt(objective: str, tmp_path: Path) -> None:
    """Four answers a prompt, their order drawn from the Plackett-Luce model of gold style."""
    training = {"steps": 30, "batch_size": 16, "max_length": 160, "save_every": 0}
    data = write_rankings(tmp_path / "ranked.jsonl", noisy_rows(3, 600, num_answers=4))
    held_out = write_pairs(tmp_path / "held-out.jsonl", rows := noisy_rows(4, 400))
    _, metrics = train(tmp_path, 0, data=data, eval_data=held_out, objective={"name": objective}, training=training)
    assert metrics["accuracy"]["value"] > bayes_accuracy(rows) - 0.06 > 0.65
