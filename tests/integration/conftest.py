"""What the slow tests share: the embedded world's model after SFT, made once a session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import strop


@dataclass(frozen=True, slots=True)
class World:
    """A run directory with a model that speaks, and the world's files.

    It answers directly more often than it reasons, so sampled accuracy is about 0.45 and there is room to learn.
    """

    run: Path

    @property
    def model(self) -> str:
        return str(self.run / "stages/sft/model")

    def data(self, name: str, limit: int | None = None) -> dict[str, Any]:
        """Rows of sft, pairs, prompts or test, as a recipe names them."""
        return {"path": str(self.run / f"world/{name}.jsonl"), "limit": limit}

    def reward(self, name: str, weight: float = 1.0) -> dict[str, Any]:
        """One of the world's own rewards: accuracy, style, polite, rude, rambles or thinks."""
        return {"name": "custom", "function": f"strop.world.rewards:{name}", "label": name, "weight": weight}

    def evaluation(self, model: str, *rewards: dict[str, Any], limit: int = 200) -> dict[str, Any]:
        """A stage that samples one answer a test prompt, at temperature 1."""
        return {
            "kind": "evaluate",
            "name": f"eval-{model.removeprefix('@')}" if model.startswith("@") else "eval-start",
            "model": model,
            "data": self.data("test", limit),
            "rewards": list(rewards),
            "sampling": {"temperature": 1.0, "max_completion_length": 72},
        }

    def recipe(self, runs: Path, seed: int, *stages: dict[str, Any]) -> dict[str, Any]:
        """A recipe of these stages; its model is the one after SFT."""
        shared = {"name": "slow", "runs": str(runs), "threads": 1, "device": "cpu", "model": self.model}
        return {**shared, "seed": seed, "stages": list(stages)}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The quickstart's first stage."""
    return World(first_stage("world:base", tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The world's small model after the same stage."""
    return World(first_stage("world:small", tmp_path_factory.mktemp("small"))).model


def first_stage(model: str, runs: Path) -> Path:
    """The run of the quickstart's first stage with one of the world's models."""
    sft = {
        "kind": "sft",
        "name": "sft",
        "data": {"path": "world:sft", "shuffle": False},
        "optimizer": {"name": "muon", "lr": 0.015, "adamw": {"lr": 2e-3}},
        "schedule": {"name": "linear", "warmup": 20, "hold": 0.5},
        "training": {"steps": 1200, "batch_size": 16, "max_length": 128, "save_every": 0},
    }
    recipe = {"name": "world", "runs": str(runs), "device": "cpu", "threads": 1, "model": model, "stages": [sft]}
    return strop.run(recipe, display="quiet").path
