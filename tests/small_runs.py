"""Whole runs small enough for seconds, and a process to run (and kill) them in."""

from __future__ import annotations

import json
import multiprocessing
import runpy
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from strop.world.datasets import rows
from strop.world.model import write_base

CHILD = Path(__file__).with_name("child.py")
NUM_ROWS = {"sft": 96, "pairs": 48, "prompts": 32, "test": 12}
TIMED = ("time", "tokens_per_s", "peak_memory_mb")
REWARDS = '''
def letters(completion, row):
    """Distinct characters: differs between answers of a model that was never trained."""
    return float(len(set(completion)))
'''


@dataclass(frozen=True, slots=True)
class Tiny:
    """A folder with the embedded world's untrained model, a few rows of each kind, and a reward."""

    folder: Path

    def write(self) -> None:
        write_base(self.folder / "base", 0)
        for name, n in NUM_ROWS.items():
            text = "".join(json.dumps(row) + "\n" for row in rows(name, 0, n))
            (self.folder / f"{name}.jsonl").write_text(text)
        (self.folder / "rewards.py").write_text(REWARDS)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def data(self, name: str) -> str:
        return self.path(f"{name}.jsonl")

    def training(self, **settings: Any) -> dict[str, Any]:
        small = {"steps": 8, "batch_size": 4, "max_length": 128, "save_every": 0, "micro_batch_tokens": 256}
        return {**small, **settings}

    def sft(self, **training: Any) -> dict[str, Any]:
        """An SFT stage."""
        return {
            "kind": "sft",
            "name": "sft",
            "data": self.data("sft"),
            "optimizer": {"name": "muon", "lr": 0.015, "adamw": {"lr": 2e-3}},
            "training": self.training(**training),
        }

    def dpo(self, **training: Any) -> dict[str, Any]:
        """A DPO stage."""
        return {
            "kind": "preference",
            "name": "dpo",
            "data": self.data("pairs"),
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "training": self.training(**training),
        }

    def reward(self, **training: Any) -> dict[str, Any]:
        """A reward stage."""
        return {
            "kind": "reward",
            "name": "reward",
            "data": self.data("pairs"),
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "training": self.training(**training),
        }

    def grpo(self, **training: Any) -> dict[str, Any]:
        """A GRPO stage with a reference, two passes and two minibatches."""
        return {
            "kind": "rl",
            "name": "grpo",
            "data": self.data("prompts"),
            "rewards": [{"name": "custom", "function": f"{self.path('rewards.py')}:letters", "label": "letters"}],
            "num_generations": 3,
            "passes": 2,
            "minibatches": 2,
            "sampling": {"max_completion_length": 12},
            "objective": {"name": "grpo", "beta": 0.05},
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "training": self.training(**training),
        }

    def ppo(self, **training: Any) -> dict[str, Any]:
        """A PPO stage with a critic of its own, an adaptive KL, two passes and two minibatches."""
        return {
            "kind": "ppo",
            "name": "ppo",
            "data": self.data("prompts"),
            "rewards": [{"name": "custom", "function": f"{self.path('rewards.py')}:letters", "label": "letters"}],
            "reward_clip": None,
            "passes": 2,
            "minibatches": 2,
            "sampling": {"max_completion_length": 12},
            "kl": {"name": "adaptive", "target": 1.0, "horizon": 100},
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "critic_optimizer": {"name": "adamw", "lr": 1e-3},
            "training": self.training(**training),
        }

    def stale(self, **training: Any) -> dict[str, Any]:
        """A stage with all that group methods carry from step to step: a sampler's copy, a moving reference."""
        return {
            **self.grpo(**training),
            "name": "stale",
            "objective": {"name": "grpo"},
            "advantage": {"name": "leave_one_out", "beta": 0.02},
            "sync_every": 4,
            "max_staleness": 12,
            "correction": {"name": "token_tis"},
            "reset_reference_every": 2,
            "dynamic_sampling": {"attempts": 2},
        }

    def recipe(self, runs: Path, *stages: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": "tiny",
            "runs": str(runs),
            "threads": 1,
            "device": "cpu",
            "stages": [{"model": self.path("base"), **stage} for stage in stages],
        }


@dataclass(frozen=True, slots=True)
class Child:
    """Runs a recipe in a process of its own: a fork of one that has imported everything and computed nothing."""

    context: ForkServerContext = field(default_factory=lambda: multiprocessing.get_context("forkserver"))

    def __call__(self, ref: Any, *, wait_s: float = 120.0, **plan: Any) -> int:
        """The exit code, negative for a signal. plan: see `child.py`."""
        process = self.start(ref, **plan)
        process.join(wait_s)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"still running after {wait_s} s")
        return process.exitcode

    def start(self, ref: Any, **plan: Any) -> ForkServerProcess:
        self.context.set_forkserver_preload(["strop.recipes.stages", "strop.recipes.run", "transformers"])
        job = {"ref": ref if isinstance(ref, dict) else str(ref), **plan}
        process = self.context.Process(target=runpy.run_path, args=(str(CHILD), {"job": job}))
        process.start()
        return process


def only_run(runs: Path) -> Path:
    """The one run directory in a folder."""
    (found,) = (path for path in runs.iterdir() if (path / "config.yaml").is_file())
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    """A JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """A run's events of one kind."""
    return [event for event in lines(run / "events.jsonl") if event["kind"] == kind]


def numbers(run: Path) -> list[dict[str, Any]]:
    """Every metric that is no time or size of the process."""
    rows = lines(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMED and not k.startswith("phase/")} for row in rows]


def weights(run: Path, stage: str) -> dict[str, bytes]:
    """Every tensor of a stage's model, and of its critic where it has one."""
    folders = [path for name in ("model", "critic") if (path := run / "stages" / stage / name).is_dir()]
    files = {folder.name: load_file(folder / "model.safetensors") for folder in folders}
    return {f"{folder}/{name}": t.tobytes() for folder, tensors in files.items() for name, t in tensors.items()}


def summary(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return value


def write_small_qwen3(folder: Path, texts: Iterable[str], vocab_size: int = 2048) -> None:
    """A folder with a config and no weights, and a byte-level BPE tokenizer of the texts with ChatML's tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True)
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=control, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"eos_token": control[0], "pad_token": control[0], "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    more = {"head_dim": 16, "intermediate_size": 128, "max_position_embeddings": 1024, "tie_word_embeddings": True}
    kind = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": vocab_size, "eos_token_id": 0}
    (folder / "config.json").write_text(json.dumps({**kind, **shape, **more, "dtype": "float32"}))
