"""`gym:NAME` as rows: the same each time, checked before they are used."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from strop.data.formats import load_dataset
from strop.rewards.gym import check_gym, resolve_gym, sized
from strop.rewards.gym.check import own_answer

pytestmark = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs reasoning-gym")


def test_a_limit_is_the_size_where_none_is_named() -> None:
    assert sized("gym:leg_counting", 5) == "gym:leg_counting?size=5"
    assert sized("gym:leg_counting?seed=1", 5) == "gym:leg_counting?seed=1&size=5"
    assert sized("gym:leg_counting?size=9", 5) == "gym:leg_counting?size=9"
    assert sized("gym:leg_counting", None) == "gym:leg_counting" and sized("a.jsonl", 5) == "a.jsonl"


def test_rows_are_prompts_and_the_same_each_time(tmp_path: Path) -> None:
    path = resolve_gym("gym:leg_counting?size=20&max_animals=3", tmp_path / "a", 5)
    again = resolve_gym("gym:leg_counting?size=20&max_animals=3", tmp_path / "b", 5)
    other = resolve_gym("gym:leg_counting?size=20&max_animals=3", tmp_path / "a", 6)
    assert Path(path).read_text() == Path(again).read_text() != Path(other).read_text()
    found = load_dataset(path)
    assert (found.kind, found.num_rows, dict(found.dropped)) == ("prompt_only", 20, {})
    row = found.groups[0].row
    assert row["task"] == "leg_counting" and row["answer"] == own_answer(row["gym"]["entry"])
    assert row["gym"]["config"] == {"max_animals": 3, "seed": 5, "size": 20}
    assert found.groups[0].prompt_text == row["gym"]["entry"]["question"]


def test_a_seed_in_the_path_wins(tmp_path: Path) -> None:
    one, two = (resolve_gym("gym:chain_sum?size=3&seed=1", tmp_path / str(s), s) for s in (5, 6))
    assert Path(one).read_text() == Path(two).read_text()
    assert len([json.loads(line) for line in Path(one).read_text().splitlines()]) == 3


def test_a_generator_that_fails_its_check_makes_no_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gym:puzzle24.*cannot be trusted.*answers to other entries score 1"):
        resolve_gym("gym:puzzle24?size=5", tmp_path, 0)
    with pytest.raises(ValueError, match="gym:rush_hour.*has no answer of its own"):
        resolve_gym("gym:rush_hour?size=5", tmp_path, 0)
    assert not list(tmp_path.glob("*.jsonl"))


def test_wrong_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gym:leg_counting[?]legs=4: .*has no setting 'legs'"):
        resolve_gym("gym:leg_counting?legs=4", tmp_path, 0)
    with pytest.raises(ValueError, match="is no generator's name"):
        check_gym(["gym:a b"])
