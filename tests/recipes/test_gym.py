"""`gym:NAME` as a stage's data: seen before a run, hashed by what its rows depend on, made in the run's folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from strop.recipes.artifacts import hash_data
from strop.recipes.config import load_recipe
from strop.recipes.preflight import check_inputs
from strop.recipes.run import run
from strop.recipes.validate import validate

pytestmark = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs reasoning-gym")


def recipe(path: str, **more: Any) -> Any:
    data = {"path": path, "limit": 6}
    training = {"steps": 1, "batch_size": 2, "max_length": 512, "save_every": 0}
    sampling = {"max_completion_length": 4}
    return load_recipe(
        {"name": "g", "kind": "rl", "model": "world:base", "data": data, "rewards": ["gym"], "threads": 1}
        | {"num_generations": 2, "training": training, "sampling": sampling, **more}
    )


def test_a_wrong_path_is_told_before_the_run() -> None:
    check_inputs(recipe("gym:chain_sum?seed=2"))
    with pytest.raises(ValueError, match="g.data: gym:chain_sum[?]seed=x: seed must be a whole number"):
        check_inputs(recipe("gym:chain_sum?seed=x"))


def test_the_limit_is_how_many_are_made() -> None:
    told = validate(recipe("gym:chain_sum"))[0]
    assert told["steps"]["rows"] == 6


def test_the_hash_is_of_path_and_seed() -> None:
    hashes = {hash_data(path, "train", seed) for path in ("gym:a", "gym:a?x=1") for seed in (0, 1)}
    assert len(hashes) == 4 and hash_data("gym:a", "train", 0) in hashes


def test_a_run_makes_its_rows_and_scores_them(tmp_path: Path) -> None:
    done = run(recipe("gym:chain_sum", runs=str(tmp_path)), display="quiet")
    folder = next(tmp_path.iterdir())
    (file,) = (folder / "gym").glob("chain_sum-*.jsonl")
    assert len(file.read_text().splitlines()) == 6 and done is not None
    assert '"rewards/gym/mean"' in (folder / "metrics.jsonl").read_text()
