"""`strop plan` beside what runs really took: the peak that a stage records, its process's high-water mark, and time.

Each case is a recipe of one stage with two steps, run by `strop run` in a process of its own on random weights, and
planned twice: by arithmetic alone, and with the measured step. Rows are numbered words of fixed length. An hour on
two cores; `--only NAME ...` takes some, `--arithmetic` leaves the measured step out.

    python benchmarks/plan_check.py --only sft-25m dpo-25m
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import Shape, save_model

MIB = 2**20
WITHIN = 0.15
MODELS = {
    "25m": Shape(384, 8, 6, 2, 64, 1536, 8192),
    "100m": Shape(768, 12, 12, 4, 64, 2560, 16384),
    "vocabulary": Shape(256, 4, 4, 2, 64, 768, 131072),
}
"""Qwen3 shapes: 20 and 102 million parameters, and 37 million of which 34 are the embedding. Beside them stand the
embedded world's and `llama`, 36 million in Llama's block with a head of its own."""
REWARD = "def spread(completion, row):\n    return float(sum(map(ord, completion)) % 97)\n"
KINDS = {"sft": "sft", "dpo": "preference", "grpo": "rl", "ppo": "ppo", "reward": "reward"}


@dataclass(frozen=True)
class Case:
    """A recipe: its kind, the model, packed tokens a micro-batch, rows a step, tokens of prompt and answer."""

    recipe: str
    model: str
    tokens: int
    batch: int
    prompt: int = 128
    answer: int = 128
    training: dict[str, Any] = field(default_factory=dict)
    stage: dict[str, Any] = field(default_factory=dict)


AGAIN = {"gradient_checkpointing": True}
LORA = {"adapter": {"r": 16}}
GROUPS = {"num_generations": 4, "objective": {"name": "grpo", "beta": 0.05}}
CASES = {
    "sft-world": Case("sft", "world", 4096, 16, 16, 16),
    "dpo-world": Case("dpo", "world", 8192, 32, 16, 16),
    "reward-world": Case("reward", "world", 4096, 16, 16, 16),
    "grpo-world": Case("grpo", "world", 2048, 16, 8, 64, stage={"num_generations": 8}),
    "ppo-world": Case("ppo", "world", 2048, 16, 8, 32),
    "sft-25m-256": Case("sft", "25m", 256, 4),
    "sft-25m": Case("sft", "25m", 1024, 8),
    "sft-25m-4096": Case("sft", "25m", 4096, 16),
    "sft-25m-short": Case("sft", "25m", 2048, 64, 16, 48),
    "sft-25m-checkpointing": Case("sft", "25m", 2048, 16, training=AGAIN),
    "sft-25m-lora": Case("sft", "25m", 1024, 8, stage=LORA),
    "sft-25m-lora-checkpointing": Case("sft", "25m", 2048, 16, training=AGAIN, stage=LORA),
    "sft-25m-muon": Case("sft", "25m", 1024, 8, stage={"optimizer": {"name": "muon"}}),
    "dpo-25m": Case("dpo", "25m", 1024, 4),
    "reward-25m": Case("reward", "25m", 1024, 4),
    "grpo-25m": Case("grpo", "25m", 1024, 4, 128, 64, stage=GROUPS),
    "ppo-25m": Case("ppo", "25m", 1024, 8, 128, 64, stage={"passes": 1}),
    "sft-llama": Case("sft", "llama", 1024, 8),
    "dpo-llama-lora": Case("dpo", "llama", 1024, 4, stage={"adapter": {"r": 8}}),
    "reward-llama-checkpointing": Case("reward", "llama", 2048, 8, training=AGAIN),
    "grpo-llama": Case("grpo", "llama", 2048, 4, 128, 96, stage={"num_generations": 8}),
    "ppo-llama-shared": Case("ppo", "llama", 1024, 8, 128, 64, stage={"passes": 2, "critic": "shared"}),
    "sft-100m": Case("sft", "100m", 512, 4),
    "sft-100m-lora": Case("sft", "100m", 512, 4, stage=LORA),
    "sft-100m-lora-checkpointing": Case("sft", "100m", 1024, 8, training=AGAIN, stage=LORA),
    "dpo-100m": Case("dpo", "100m", 800, 4),
    "dpo-100m-checkpointing": Case("dpo", "100m", 512, 2, training=AGAIN),
    "grpo-100m-lora": Case("grpo", "100m", 1024, 4, 128, 64, stage={"num_generations": 4, **LORA}),
    "sft-vocabulary": Case("sft", "vocabulary", 512, 4),
    "dpo-vocabulary": Case("dpo", "vocabulary", 512, 2),
    "reward-vocabulary": Case("reward", "vocabulary", 1024, 8),
}


def write_model(name: str, folder: Path) -> None:
    """A model of random weights with a tokenizer; of Llama's block the config alone, whose weights a run draws."""
    if name == "world":
        from strop.world.model import write_base

        return write_base(folder, 0)
    if name != "llama":
        save_model(MODELS[name], folder, stops=True)
        return
    from transformers import LlamaConfig

    save_model(Shape(64, 1, 1, 1, 64, 64, 16_000), folder, stops=True)
    (folder / "model.safetensors").unlink()
    config = LlamaConfig(
        vocab_size=16_000, hidden_size=512, intermediate_size=1408, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=4096, tie_word_embeddings=False, eos_token_id=15_999,
        pad_token_id=0, bos_token_id=None, dtype="float32", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder)


def write_rows(case: Case, file: Path) -> None:
    """64 rows of numbered words."""
    draw = random.Random(0)
    size = {**{name: shape.vocabulary for name, shape in MODELS.items()}, "llama": 16_000}.get(case.model, 300)

    def words(count: int) -> str:
        return " ".join(f"w{draw.randrange(2, size - 2)}" for _ in range(count))

    answers = {"sft": ("completion",), "dpo": ("chosen", "rejected"), "reward": ("chosen", "rejected")}
    rows = (
        {"prompt": words(case.prompt), **{key: words(case.answer) for key in answers.get(case.recipe, ())}}
        for _ in range(64)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_recipe(case: Case, folder: Path, model: Path) -> Path:
    """The case as a YAML file (JSON is YAML), its rows and reward beside it."""
    write_rows(case, folder / "rows.jsonl")
    (folder / "rewards.py").write_text(REWARD, "utf-8")
    training = {"steps": 2, "batch_size": case.batch, "micro_batch_tokens": case.tokens, "save_every": 0}
    held = {"eval_fraction": 0.0} if case.recipe == "reward" else {}
    stage = {"kind": KINDS[case.recipe], "name": "stage", "data": str(folder / "rows.jsonl"), **case.stage}
    stage["training"] = {**training, **held, **case.training}
    if case.recipe in ("grpo", "ppo"):
        stage["rewards"] = [{"name": "custom", "function": f"{folder}/rewards.py:spread", "label": "spread"}]
        stage["sampling"] = {"max_completion_length": case.answer}
    recipe = {"name": "case", "runs": str(folder / "runs"), "threads": 1, "device": "cpu", "model": str(model)}
    (folder / "case.yaml").write_text(json.dumps({**recipe, "stages": [stage]}), "utf-8")
    return folder / "case.yaml"


def run(file: Path) -> dict[str, float]:
    """What the run recorded, and what its process held at most: MiB, and seconds of the second step."""
    command = [sys.executable, "-m", "strop.cli", "run", str(file), "--display", "quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    high = 0.0
    while process.poll() is None:
        high = max(high, high_water(process.pid))
        time.sleep(0.05)
    assert process.returncode == 0, process.stdout and process.stdout.read()
    (folder,) = (file.parent / "runs").glob("*/stages/stage")
    recorded = json.loads((folder / "stage.json").read_text("utf-8"))["peak_memory_mb"]
    lines = (folder.parents[1] / "metrics.jsonl").read_text("utf-8").splitlines()
    last = json.loads(lines[-1])
    return {"peak": recorded, "high": high, "seconds": sum(v for k, v in last.items() if k.startswith("phase/"))}


def high_water(pid: int) -> float:
    """VmHWM of a process, MiB; 0 once it is gone."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")), 0.0)
    except (OSError, ProcessLookupError):
        return 0.0


def check(case: Case, models: Path, measuring: bool) -> dict[str, float]:
    """One case: real, planned and planned with a measured step."""
    from strop.recipes.config import load_recipe
    from strop.recipes.planning.plan import plan

    model = models / case.model
    if not model.exists():
        write_model(case.model, model)
    with tempfile.TemporaryDirectory() as place:
        file = write_recipe(case, Path(place), model)
        real = run(file)
        recipe = load_recipe(str(file))
        (alone,) = plan(recipe, (), measuring=False)
        found = {**real, "alone": alone.peak.total / MIB}
        if measuring:
            (measured,) = plan(recipe, ())
            found["measured"] = measured.peak.total / MIB
            if measured.time is not None:
                found["time"] = sum(measured.time.step.values())
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """A line a case: real peaks, planned ones as shares of them, and time."""
    lines = [
        "| case | recorded, MiB | process, MiB | arithmetic | with a step | seconds a step | planned |",
        "|-" * 7 + "|",
    ]
    for name, row in found.items():
        shares = [f"{row[key] / row['peak']:.2f}" if key in row else "" for key in ("alone", "measured")]
        planned = f"{row['time'] / row['seconds']:.2f}" if "time" in row else ""
        cells = [name, f"{row['peak']:,.0f}", f"{row['high']:,.0f}", *shares, f"{row['seconds']:.2g}", planned]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--arithmetic", action="store_true", help="without the measured step")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "strop-plan-models")
    parser.add_argument("--json", type=Path, help="where to keep the numbers; cases that stand there are not run again")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    asked.models.mkdir(parents=True, exist_ok=True)
    found = json.loads(asked.json.read_text()) if asked.json and asked.json.exists() else {}
    for name in asked.only:
        if name not in found:
            found[name] = check(CASES[name], asked.models, not asked.arithmetic)
            print(name, found[name], file=sys.stderr, flush=True)
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    key = "alone" if asked.arithmetic else "measured"
    off = [name for name, row in found.items() if not abs(row.get(key, row["alone"]) / row["peak"] - 1) <= WITHIN]
    print(f"{len(found) - len(off)} of {len(found)} within {WITHIN:.0%}" + (f"; not {', '.join(off)}" if off else ""))


if __name__ == "__main__":
    main()
