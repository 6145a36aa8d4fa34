"""A stand-in for `recipes.stages`: stages that count, checkpoint and leave small files, without torch."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.evaluate.statistics import Measure
from strop.recipes.context import Context, Interrupted, StageResult

Hook = Callable[[Context, int], None]
"""Called after each step of each stage."""


class FakeStages:
    """`execute` makes `steps` steps, each a number of (seed, step), and leaves a model of what it read.

    A stage that picks the best takes the last evaluation's, and ends the rounds where its name is in `over`.
    """

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.over: set[str] = set()
        self.hook: Hook = lambda context, step: None

    def execute(self, stage: Any, context: Context) -> StageResult:
        self.ran.append(stage.name)
        if stage.kind == "evaluate":
            (context.stage_dir / "samples.jsonl").write_text(json.dumps({"prompt": "q", "completions": []}) + "\n")
            return StageResult({"accuracy": Measure(0.5, 0.4, 0.6, 10)}, {"samples": "samples.jsonl"}, 0.1)
        if stage.kind == "best":
            (context.stage_dir / "model").mkdir(exist_ok=True)
            (context.stage_dir / "model/config.json").write_text(json.dumps({"from": stage.among[-1][-1]}))
            skips = stage.skips if stage.name in self.over else ()
            return StageResult({}, {"model": "model"}, inputs={"model": "@dpo-1"}, skips=skips)
        saved = context.stage_dir / "checkpoint.json"
        start = json.loads(saved.read_text())["step"] if saved.exists() else 0
        if start:
            context.rewind(start)
        context.begin({"model": context.model})
        for step in range(start, stage.training.steps):
            context.step(step, stage.training.steps, {"loss": (context.seed % 97 + step) / 7})
            self.hook(context, step)
            if context.should_stop():
                saved.write_text(json.dumps({"step": step + 1}))
                raise Interrupted
        folder = context.stage_dir / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"from": Path(context.model).name}))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(context.seed.to_bytes(8, "big"))
        return StageResult({"train/loss": Measure(1.0, None, None, 1)}, {"model": "model"}, 0.1, {"training": 0.1})


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    fake = FakeStages()
    module = types.ModuleType("strop.recipes.stages")
    module.execute = fake.execute  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "strop.recipes.stages", module)
    return fake


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """SFT, then preferences, then an evaluation, over files in the test's folder."""
    (tmp_path / "chats.jsonl").write_text(json.dumps({"prompt": "chats", "completion": "x"}) + "\n")
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": "test", "answer": "1"}) + "\n")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "q", "chosen": "x", "rejected": "y"}) + "\n")
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (base / name).write_text("{}")
    return {
        "name": "three",
        "model": str(base),
        "runs": str(tmp_path / "runs"),
        "stages": [
            {"kind": "sft", "name": "sft", "data": str(tmp_path / "chats.jsonl"), "training": {"steps": 4}},
            {
                "kind": "preference",
                "name": "dpo",
                "model": "@sft",
                "data": str(tmp_path / "pairs.jsonl"),
                "training": {"steps": 6},
            },
            {
                "kind": "evaluate",
                "name": "eval",
                "model": "@dpo",
                "data": str(tmp_path / "test.jsonl"),
                "rewards": "number",
            },
        ],
    }
