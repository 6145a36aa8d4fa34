"""A realistic run directory, SFT -> DPO -> GRPO with an evaluation after each, made of a seed."""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

START = 1_772_000_000.0
NUM_PROMPTS = 120
ABILITY = {"eval-base": 0.06, "eval-sft": 0.31, "eval-dpo": 0.42, "eval-grpo": 0.77}
LENGTH = {"eval-base": 187.25, "eval-sft": 81.5, "eval-dpo": 88.75, "eval-grpo": 143.25}
MEASURED = {"models/base-135m": "eval-base", "@sft": "eval-sft"}
SHOPS = ("a bakery", "the library", "an orchard", "a bike shop", "the harbour office", "a school kitchen")
GOODS = ("rolls", "books", "apples", "tyres", "tickets", "plates")


def make_run(run_dir: Path, *, seed: int = 7) -> Path:
    """Write all the files a finished run leaves, as journal and stages write them."""
    rng = random.Random(seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    steps = {"sft": _sft(rng), "dpo": _dpo(rng), "grpo": _grpo(rng)}
    lines, clock = [], START
    for stage, rows in steps.items():
        for step, row in enumerate(rows):
            clock += 2.4 if stage == "grpo" else 0.8
            lines.append({"stage": stage, "step": step, "time": round(clock, 3), **row})
    write_lines(run_dir / "metrics.jsonl", lines)
    write_lines(run_dir / "events.jsonl", _events(clock))
    for stage, kind in {"sft": "sft", "dpo": "preference", "grpo": "rl"}.items():
        (run_dir / "stages" / stage).mkdir(parents=True)
        write(
            run_dir / "stages" / stage / "stage.json",
            {"name": stage, "kind": kind, "state": "running", "seconds": 99.0},
        )
    scores = {stage: _samples(run_dir, stage, ability, rng) for stage, ability in ABILITY.items()}
    write(run_dir / "summary.json", _summary(scores))
    write(
        run_dir / "status.json",
        {
            "state": "finished",
            "stage": "eval-grpo",
            "step": 0,
            "steps": 0,
            "pid": 4242,
            "updated": clock,
            "error": None,
        },
    )
    (run_dir / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return run_dir


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")


def write_lines(path: Path, values: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values), encoding="utf-8")


def _decay(t: float, start: float, end: float, rate: float = 4.0) -> float:
    return end + (start - end) * math.exp(-rate * t)


def _cosine(t: float, lr: float) -> float:
    return lr * t / 0.03 if t < 0.03 else lr * (0.1 + 0.45 * (1 + math.cos(math.pi * (t - 0.03) / 0.97)))


def _sft(rng: random.Random, num: int = 600) -> list[dict[str, float]]:
    rows = []
    for i in range(num):
        t = i / num
        rows.append(
            {
                "loss": _decay(t, 2.7, 0.84) + rng.gauss(0, 0.06),
                "mean_token_accuracy": _decay(t, 0.42, 0.79) + rng.gauss(0, 0.012),
                "grad_norm": abs(_decay(t, 3.8, 0.9) + rng.gauss(0, 0.25)),
                "learning_rate": _cosine(t, 1e-5),
                "num_tokens": 8192.0 * (i + 1),
                "tokens_per_s": 11800 + rng.gauss(0, 420),
                "phase/data_s": 0.03,
                "phase/train_s": 0.72,
            }
        )
        if i % 60 == 0:
            rows[-1]["eval_loss"] = _decay(t, 2.7, 0.9) + rng.gauss(0, 0.01)
    return rows


def _dpo(rng: random.Random, num: int = 300) -> list[dict[str, float]]:
    rows = []
    for i in range(num):
        t = i / num
        chosen, rejected = 0.42 * t + rng.gauss(0, 0.05), -1.25 * t + rng.gauss(0, 0.07)
        rows.append(
            {
                "loss": _decay(t, math.log(2), 0.46, 3) + rng.gauss(0, 0.02),
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/margins": chosen - rejected,
                "rewards/accuracies": min(1, max(0, 0.5 + 0.34 * (1 - math.exp(-5 * t)) + rng.gauss(0, 0.05))),
                "logps/chosen": -92 + 4 * t + rng.gauss(0, 3),
                "logps/rejected": -97 - 13 * t + rng.gauss(0, 3.3),
                "kl": 0.9 * t + abs(rng.gauss(0, 0.03)),
                "grad_norm": 6 + 2 * t + abs(rng.gauss(0, 0.8)),
                "learning_rate": 5e-7 * (t / 0.1 if t < 0.1 else (1 - t) / 0.9),
                "tokens_per_s": 10400 + rng.gauss(0, 380),
                "phase/data_s": 0.04,
                "phase/reference_s": 0.11,
                "phase/train_s": 0.63,
            }
        )
    return rows


def _grpo(rng: random.Random, num: int = 500) -> list[dict[str, float | None]]:
    rows: list[dict[str, float | None]] = []
    for i in range(num):
        t = i / num
        exact = 0.42 + 0.37 / (1 + math.exp(-9 * (t - 0.4))) + rng.gauss(0, 0.035)
        tags = min(1.0, 0.72 + 0.27 * (1 - math.exp(-7 * t)) + rng.gauss(0, 0.015))
        rows.append(
            {
                "loss": rng.gauss(0.002, 0.004),
                "reward": exact + 0.2 * tags,
                "reward_std": 0.4 - 0.2 * t + rng.gauss(0, 0.02),
                "rewards/exact/mean": exact,
                "rewards/tags/mean": tags,
                "kl": 0.08 * t + abs(rng.gauss(0, 0.004)),
                "entropy": _decay(t, 0.71, 0.3, 2) + rng.gauss(0, 0.015),
                "clip_ratio": abs(rng.gauss(0.004, 0.002)) + (0.02 if 305 < i < 320 else 0),
                "completions/mean_length": 88 + 60 * t + (70 * math.exp(-(((i - 312) / 9) ** 2))) + rng.gauss(0, 4),
                "frac_reward_zero_std": min(1, max(0, 0.18 + 0.3 * t + rng.gauss(0, 0.06))),
                "grad_norm": abs(rng.gauss(0.6, 0.08)) if i != 211 else None,
                "learning_rate": 1e-6,
                "tokens_per_s": 4100 + 300 * t + rng.gauss(0, 180),
                "phase/sampling_s": 1.35,
                "phase/scoring_s": 0.12,
                "phase/training_s": 0.71,
            }
        )
    return rows


def _events(clock: float) -> list[dict[str, Any]]:
    def event(at: float, stage: str | None, step: int | None, kind: str, text: str, **extra: Any) -> dict[str, Any]:
        return {"time": START + at, "stage": stage, "step": step, "kind": kind, "text": text, **extra}

    return [
        event(0, "sft", None, "start", "started: 4,871 rows, 600 steps of 32"),
        event(
            1,
            "sft",
            None,
            "drop",
            "train.jsonl:317: the last turn is not the assistant's",
            reason="no assistant turn at the end",
        ),
        event(
            1, "sft", None, "drop", "train.jsonl:1204: 3,310 tokens, at most 2,048 fit", reason="longer than max_length"
        ),
        event(480, "sft", 599, "checkpoint", "saved step 600"),
        event(490, "dpo", None, "start", "started: 2,380 pairs, 300 steps of 8"),
        event(
            491,
            "dpo",
            None,
            "drop",
            "pairs.jsonl:88: chosen and rejected are the same text",
            reason="chosen equals rejected",
        ),
        event(740, "grpo", None, "start", "started: 4,000 prompts, 500 steps of 8 prompts, 8 completions each"),
        event(1240, "grpo", 211, "nonfinite", "the gradient was not finite; the step was skipped and the weights kept"),
        event(
            1490,
            "grpo",
            312,
            "alarm",
            "mean completion length rose by 62 % in 20 steps while the exact reward did not: "
            "answers may be padding for the length they earn",
        ),
        event(clock - START, "eval-grpo", None, "finish", "finished"),
    ]


def _question(i: int) -> tuple[str, int]:
    rng = random.Random(i)
    a, b, c = rng.randint(3, 19), rng.randint(12, 60), rng.randint(2, 11)
    goods = rng.choice(GOODS)
    return (
        f"{rng.choice(SHOPS).capitalize()} has {a} crates of {b} {goods} and gives away {c}. "
        f"How many {goods} are left?",
        a * b - c,
    )


def _answer(rng: random.Random, ability: float, right: int) -> tuple[str, bool, bool, str]:
    if ability < 0.1 and rng.random() < 0.6:
        text = "How many are left? How many are left? The number of " + "crates and crates of " * rng.randint(6, 14)
        return text, False, False, "length"
    is_right = rng.random() < ability
    value = right if is_right else right + rng.choice((-10, -2, 1, 4, 20, 100))
    tagged = rng.random() < 0.3 + 0.7 * ability
    thought = f"Crates times items, then subtract what was given away.\nThat is {value + 4} − 4 = {value}."
    text = f"<think>{thought}</think>\n<answer>{value}</answer>" if tagged else f"{thought} The answer is {value}."
    return text, is_right and tagged, tagged, "stop"


def _samples(run_dir: Path, stage: str, ability: float, rng: random.Random) -> list[float]:
    lines, scores = [], []
    for i in range(NUM_PROMPTS):
        prompt, right = _question(i)
        text, exact, tags, finish = _answer(rng, ability, right)
        score = exact + 0.2 * tags
        reason = f"answer equals {right}" if exact else f"expected {right}" if tags else "no <answer> tag"
        completion = {
            "content": text,
            "score": score,
            "rewards": {"exact": float(exact), "tags": float(tags)},
            "reasons": {"exact": reason, "tags": "both tags, in order" if tags else "tags missing"},
            "finish": finish,
        }
        turns = [
            {"role": "system", "content": "Think, then answer inside <answer>."},
            {"role": "user", "content": prompt},
        ]
        lines.append(
            {"prompt": turns if i % 3 == 0 else prompt, "completions": [completion], "row": {"answer": str(right)}}
        )
        scores.append(score)
    write_lines(run_dir / "stages" / stage / "samples.jsonl", lines)
    return scores


def figure(values: list[float]) -> dict[str, float]:
    mean = sum(values) / len(values)
    half = 1.96 * math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def _evaluate(scores: dict[str, list[float]], name: str, model: str, baseline: str) -> dict[str, Any]:
    values = scores[name]
    metrics = {
        "reward": figure(values),
        "rewards/exact/mean": figure([float(v >= 1) for v in values]),
        "rewards/tags/mean": figure([float(v > 0) for v in values]),
        "completions/mean_length": {
            "value": LENGTH[name],
            "low": LENGTH[name] - 5.5,
            "high": LENGTH[name] + 6.0,
            "n": len(values),
        },
    }
    inputs = {"model": model, "data": "problems/test.jsonl"}
    if baseline:
        inputs["baseline"] = baseline
        metrics["delta/reward"] = figure([a - b for a, b in zip(values, scores[MEASURED[baseline]], strict=True)])
    return {
        "name": name,
        "kind": "evaluate",
        "seconds": 62.0,
        "state": "finished",
        "metrics": metrics,
        "hash": "e" * 8 + name.encode().hex(),
        "artifacts": {"samples": f"stages/{name}/samples.jsonl"},
        "inputs": inputs,
        "phases": {"sampling": 55.0, "scoring": 6.5},
        "data": {"rows": 120, "kept": 120, "dropped": {}, "kind": "prompt_only", "sha256": "9b1c" * 16},
    }


def _summary(scores: dict[str, list[float]]) -> dict[str, Any]:
    def trained(name: str, kind: str, model: str, data: dict[str, Any], path: str, **rest: Any) -> dict[str, Any]:
        return {
            "name": name,
            "kind": kind,
            "state": "finished",
            "artifacts": {"model": f"stages/{name}/model"},
            "inputs": {"model": model, "data": path},
            "data": data,
            "hash": (name.encode().hex() * 8)[:64],
            **rest,
        }

    sft = {
        "rows": 5000,
        "kept": 4871,
        "kind": "prompt_completion",
        "sha256": "4f2a" * 16,
        "dropped": {"longer than max_length": 117, "no assistant turn at the end": 12},
    }
    dpo = {
        "rows": 2400,
        "kept": 2380,
        "kind": "preference",
        "sha256": "77ab" * 16,
        "dropped": {"chosen equals rejected": 20},
    }
    rl = {"rows": 4000, "kept": 4000, "kind": "prompt_only", "sha256": "c0de" * 16, "dropped": {}}
    base = "models/base-135m"
    stages = [
        _evaluate(scores, "eval-base", base, ""),
        trained(
            "sft",
            "sft",
            base,
            sft,
            "problems/train.jsonl",
            seconds=484.0,
            phases={"loading": 6.0, "data": 18.0, "training": 432.0, "saving": 9.0},
            peak_memory_mb=3120.0,
            metrics={"eval_loss": {"value": 0.912, "low": 0.88, "high": 0.944, "n": 200}},
        ),
        _evaluate(scores, "eval-sft", "@sft", base),
        trained(
            "dpo",
            "preference",
            "@sft",
            dpo,
            "problems/pairs.jsonl",
            seconds=251.0,
            phases={"loading": 6.0, "data": 12.0, "reference": 33.0, "training": 189.0, "saving": 7.0},
            peak_memory_mb=4410.0,
            metrics={},
        ),
        _evaluate(scores, "eval-dpo", "@dpo", "@sft"),
        trained(
            "grpo",
            "rl",
            "@dpo",
            rl,
            "problems/prompts.jsonl",
            seconds=1212.0,
            phases={"loading": 6.0, "sampling": 675.0, "scoring": 60.0, "training": 355.0, "saving": 8.0},
            peak_memory_mb=5236.5,
            metrics={},
        ),
        _evaluate(scores, "eval-grpo", "@grpo", base),
    ]
    return {
        "name": "word-problems",
        "state": "finished",
        "seed": 7,
        "version": "0.1.0",
        "seconds": 2196.0,
        "stages": stages,
        "command": "strop run align model=models/base-135m stages.dpo.objective.beta=0.2 seed=7",
        "error": None,
        "lineage": [
            {"name": base, "kind": "base", "hash": "b45e" * 16},
            {"name": "sft", "kind": "sft", "hash": "51f7" * 16, "from": base},
            {"name": "dpo", "kind": "preference", "hash": "d90a" * 16, "from": "sft"},
            {"name": "grpo", "kind": "rl", "hash": "6e90" * 16, "from": "dpo"},
        ],
        "difference": [
            "- stages.dpo.objective.beta: 0.1",
            "+ stages.dpo.objective.beta: 0.2",
            "- seed: 0",
            "+ seed: 7",
        ],
    }


CONFIG = """name: word-problems
seed: 7
model: models/base-135m
stages:
- kind: sft
  name: sft
  data: {path: problems/train.jsonl}
  training: {steps: 600, batch_size: 32}
- kind: preference
  name: dpo
  model: '@sft'
  objective: {name: dpo, beta: 0.2}
- kind: rl
  name: grpo
  model: '@dpo'
  num_generations: 8
  rewards:
  - {name: exact}
  - {name: tags, weight: 0.2, tags: [think, answer]}
"""


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test changes."""
    return make_run(tmp_path_factory.mktemp("runs") / "word-problems-20260225-a1b2")


@pytest.fixture(scope="session")
def make() -> Callable[..., Path]:
    """Makes a finished run in a folder, from a seed."""
    return make_run


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """The same run to change, with the first 40 steps of each stage."""
    copy = Path(shutil.copytree(finished_run, tmp_path / finished_run.name))
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    write_lines(copy / "metrics.jsonl", [line for line in lines if line["step"] < 40])
    return copy


@pytest.fixture
def put() -> Callable[[Path, Any], None]:
    """Write a value as JSON, or a list of values as JSON lines."""
    return lambda path, value: write_lines(path, value) if path.suffix == ".jsonl" else write(path, value)


if __name__ == "__main__":
    make_run(Path(sys.argv[1]))
