"""The settings of a ship stage: what is refused, and that its sets are read, hashed and looked for like other data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from strop.recipes import artifacts
from strop.recipes.config import dump, load_recipe
from strop.recipes.kinds.ship import GateSet, ShipStage, set_name
from strop.recipes.preflight import check_inputs
from strop.recipes.settings import Data, Recipe


def recipe(folder: Path, **gate: Any) -> Recipe:
    (folder / "chats.jsonl").write_text(json.dumps({"prompt": "q", "completion": "x"}) + "\n")
    for name in ("safe", "test"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"prompt": name, "answer": "1"}) + "\n")
    sft = {"kind": "sft", "name": "sft", "data": str(folder / "chats.jsonl")}
    stages = [sft, {"kind": "ship", "name": "ship", "model": "@sft", **gate}]
    return load_recipe({"name": "it", "model": "some/model", "stages": stages})


def ship_of(found: Recipe) -> ShipStage:
    stage = found.stages[-1]
    assert isinstance(stage, ShipStage)
    return stage


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({"margin": -0.1}, "margin: must not be negative, got -0.1"),
        ({"margin": float("inf")}, "margin"),
        ({"rewards": "number"}, "data: is missing; rewards judge answers"),
        ({"safety": [{"data": "x.jsonl", "rewards": "number", "floor": float("nan")}]}, r"floor: .*a number"),
        ({"safety": {"rewards": "number"}}, r"safety\[0\].data: is missing"),
        ({"capability": {"data": {"path": "x", "limit": 0}, "rewards": "number"}}, "limit: must be at least 1"),
        ({"safety": {"data": "x", "num_samples": 2}}, "without rewards nothing is sampled"),
        ({"safety": {"data": "x", "rewards": [{"name": "number", "weight": 0}]}}, "all weights are 0"),
        (
            {"safety": {"data": "x", "rewards": "number", "sampling": {"top_p": 2}}},
            "sampling.top_p: must be more than 0",
        ),
        (
            {
                "safety": {"data": "x", "rewards": "number"},
                "capability": {"name": "safety", "data": "x", "rewards": "number"},
            },
            "'safety' is the name of",
        ),
        ({"unclear": "maybe"}, "unclear: expected"),
        ({"adapter": "both"}, "adapter: expected"),
    ],
)
def test_what_is_refused(gate: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        recipe(tmp_path, **gate)


def test_sets_are_told_apart() -> None:
    names = [set_name("safety", i, one) for i, one in enumerate([GateSet(), GateSet(), GateSet(name="toxic")])]
    assert names == ["safety", "safety-2", "toxic"]


def test_it_loads_back_as_it_was(tmp_path: Path) -> None:
    gate = {"safety": [{"data": str(tmp_path / "safe.jsonl"), "rewards": "number", "floor": 0.9}], "metrics": ["-rude"]}
    found = recipe(tmp_path, **gate, data=str(tmp_path / "test.jsonl"), rewards="number")
    (tmp_path / "config.yaml").write_text(dump(found))
    assert load_recipe(tmp_path / "config.yaml") == found


def test_its_data_and_models_are_inputs(tmp_path: Path) -> None:
    judge = {"name": "model", "path": "@rm", "label": "judge"}
    safety = [{"data": "safe.jsonl", "rewards": [judge], "floor": 0.0}]
    stage = ship_of(recipe(tmp_path, safety=[{"data": "safe.jsonl", "rewards": "number"}]))
    whole = recipe(
        tmp_path,
        data="test.jsonl",
        rewards="number",
        against="some/other",
        capability=safety[0] | {"rewards": "number"},
    )
    assert artifacts.inputs_of(whole, whole.stages[-1]) == {
        "model": "@sft",
        "against": "some/other",
        "data": "test.jsonl",
        "capability.0.data": "safe.jsonl",
    }
    asked = replace(stage, safety=(replace(stage.safety[0], rewards=()),))
    assert artifacts.names_data(asked, ("safety", 0, "data", "path")) and not artifacts.names_data(asked, ("model",))


def test_its_hash_knows_the_content_and_not_the_place(tmp_path: Path) -> None:
    def hash_of(name: str, **more: Any) -> str:
        stage = ship_of(recipe(tmp_path, safety={"data": name, "rewards": "number", **more}))
        return artifacts.hash_stage(stage, seed=0, device="cpu", precision="fp32", inputs={"safety.0.data.0": "x"})

    assert hash_of("a.jsonl") == hash_of("b.jsonl") != hash_of("a.jsonl", floor=0.5)


def test_names_of_its_data_change_with_the_stages(tmp_path: Path) -> None:
    stage = replace(
        ship_of(recipe(tmp_path)), data=Data(path="@asked"), safety=(GateSet(data=Data(path=("@asked", "b.jsonl"))),)
    )
    found = artifacts.renamed(stage, lambda text: text, lambda path: (path.replace("@asked", "@asked-2"),))
    assert isinstance(found, ShipStage) and found.data == Data(path="@asked-2")
    assert found.safety[0].data == Data(path=("@asked-2", "b.jsonl"))


def test_files_that_are_not_there_are_told_before_anything_runs(tmp_path: Path) -> None:
    found = recipe(tmp_path, safety={"data": str(tmp_path / "nowhere.jsonl"), "rewards": "number"})
    with pytest.raises(ValueError, match=r"ship.safety.0.data: .*nowhere.jsonl"):
        check_inputs(found)
    code = recipe(tmp_path, safety={"data": str(tmp_path / "safe.jsonl"), "rewards": f"{tmp_path}/mine.py:safe"})
    with pytest.raises(ValueError, match=r"ship.safety.0.rewards.0.*mine.py: no such file"):
        check_inputs(code)
