"""Run directories made up by hand: whatever state a run may be in, without training anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.recipes import artifacts
from strop.recipes.config import load_recipe

REWARDS = [{"name": "number"}, {"name": "exact", "weight": 0}]


@dataclass(slots=True)
class MadeUp:
    """A run of SFT and DPO with an evaluation before, between and after; then changed by the test."""

    folder: Path
    rewards: list[dict[str, Any]] = field(default_factory=lambda: [dict(reward) for reward in REWARDS])
    run: Path = field(init=False)

    def __post_init__(self) -> None:
        self.run = self.folder / "runs/it"
        (self.run / "stages").mkdir(parents=True)
        for name, row in (("chats", {"prompt": "q", "completion": "x"}), ("test", {"prompt": "q", "answer": "1"})):
            (self.folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        self.model(self.folder / "base", "base")

    def model(self, folder: Path, said: str, **config: Any) -> str:
        """A folder that passes for a model; its hash."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"], **config}))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_text("{}")
        header = json.dumps({"w": {"dtype": "U8", "shape": [len(said)], "data_offsets": [0, len(said)]}}).encode()
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + said.encode())
        return artifacts.hash_folder(folder)

    def write(self, *stages: dict[str, Any], state: str = "finished") -> None:
        """config.yaml and status.json of a run with these stages."""
        recipe = load_recipe({"name": "it", "model": str(self.folder / "base"), "stages": list(stages)})
        (self.run / "config.yaml").write_text(strop.dump(recipe))
        (self.run / "status.json").write_text(json.dumps({"state": state}))

    def sft(self, name: str = "sft", **more: Any) -> dict[str, Any]:
        return {"kind": "sft", "name": name, "data": str(self.folder / "chats.jsonl"), **more}

    def evaluation(self, name: str, model: str, **more: Any) -> dict[str, Any]:
        asked = {"data": str(self.folder / "test.jsonl"), "rewards": self.rewards, **more}
        return {"kind": "evaluate", "name": name, "model": model, **asked}

    def entry(self, name: str, kind: str, state: str = "finished", **more: Any) -> Path:
        """A stage's folder with its stage.json."""
        folder = self.run / "stages" / name
        folder.mkdir(parents=True, exist_ok=True)
        said = {"name": name, "kind": kind, "state": state, "metrics": {}, "artifacts": {}, "artifact_hashes": {}}
        (folder / "stage.json").write_text(json.dumps({**said, **more}))
        return folder

    def trained(self, name: str, came_from: str, **config: Any) -> str:
        """A finished stage with a model; the model's hash."""
        hash_ = self.model(self.run / "stages" / name / "model", name, **config)
        self.entry(
            name,
            "sft",
            inputs={"model": came_from, "data": "chats.jsonl"},
            input_hashes={"model": "?", "data.0": "d"},
            artifacts={"model": f"stages/{name}/model"},
            artifact_hashes={"model": hash_},
        )
        return hash_

    def evaluated(self, name: str, model: str, hash_: str, values: Sequence[float | None], asks: str = "t") -> Path:
        """A finished evaluation: one answer a prompt with this value of the first reward, of others its opposite."""
        path = self.run / "stages" / name / "samples.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        first, *rest = (reward.get("label") or reward["name"] for reward in self.rewards)
        lines = []
        for place, value in enumerate(values):
            rewards = {first: value, **dict.fromkeys(rest, None if value is None else 1 - value)}
            answer = {"content": f"answer {place}", "score": value, "rewards": rewards}
            lines.append(
                json.dumps({"prompt": f"question {place}", "completions": [answer], "origin": f"{name}:{place}"})
            )
        path.write_text("\n".join(lines) + "\n")
        self.entry(
            name,
            "evaluate",
            inputs={"model": model, "data": "test.jsonl"},
            input_hashes={"model": hash_, "data.0": asks},
            artifacts={"samples": f"stages/{name}/samples.jsonl"},
            artifact_hashes={"samples": artifacts.hash_artifact(path)},
        )
        return path

    def events(self, *lines: dict[str, Any]) -> None:
        (self.run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def whole(self, before: Sequence[float | None], after: Sequence[float | None]) -> None:
        """SFT with an evaluation of the base model and one of what it left."""
        self.write(
            self.evaluation("eval-start", str(self.folder / "base")),
            self.sft(model=str(self.folder / "base")),
            self.evaluation("eval-sft", "@sft"),
        )
        base = artifacts.hash_folder(self.folder / "base")
        self.evaluated("eval-start", str(self.folder / "base"), base, before)
        left = self.trained("sft", str(self.folder / "base"))
        self.evaluated("eval-sft", "@sft", left, after)


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path)
