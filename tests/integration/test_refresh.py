"""The refresh stage over a tiny world: what it samples, whom it asks, what it mixes, what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.recipes.config import RecipeError, load_recipe
from strop.recipes.stages.refresh import old_pairs_for
from strop.rewards.scale import read_figures

LONG = {"name": "custom", "function": f"{__name__}:characters", "label": "labeller"}


def characters(completion: str, row: dict[str, Any]) -> float:
    """A labeller whose opinion is easy to check."""
    return float(len(completion))


def reward(tiny: Any) -> dict[str, Any]:
    training = tiny.training(steps=2, batch_size=8, eval_fraction=0.3)
    return {
        "kind": "reward",
        "name": "rm",
        "data": tiny.data("pairs"),
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "training": training,
    }


def refresh(tiny: Any, **changes: Any) -> dict[str, Any]:
    stage = {
        "kind": "refresh",
        "name": "refresh",
        "model": "@rm",
        "policy": tiny.path("base"),
        "data": {"path": tiny.data("prompts"), "limit": 20},
        "old": tiny.data("pairs"),
        "rewards": [LONG],
        "num_samples": 3,
        "sampling": {"max_completion_length": 8},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "training": tiny.training(steps=None, epochs=1.0, batch_size=8, eval_fraction=0.2),
    }
    return {**stage, **changes}


def run(tiny: Any, folder: Path, *stages: dict[str, Any]) -> Path:
    return strop.run(tiny.recipe(folder, *stages), display="quiet").path


@pytest.fixture(scope="module")
def done(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny, tmp_path_factory.mktemp("refresh"), reward(tiny), refresh(tiny))


def notes(path: Path, kind: str = "note") -> list[str]:
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    return [e["text"] for e in events if e.get("event", e.get("kind")) == kind]


def test_it_leaves_the_fresh_answers_with_their_labels(done: Path) -> None:
    rows = [json.loads(line) for line in (done / "stages/refresh/samples.jsonl").read_text().splitlines()]
    assert len(rows) == 20 and all(len(row["completions"]) == 3 for row in rows)
    for row in rows:
        for completion in row["completions"]:
            assert completion["rewards"]["labeller"] == len(completion["content"])


def test_its_data_are_the_fresh_pairs(done: Path) -> None:
    """The longest and the shortest of each prompt's three answers, for the next refresh to keep."""
    rows = [json.loads(line) for line in (done / "stages/refresh/pairs.jsonl").read_text().splitlines()]
    answers = {
        json.dumps(row["prompt"]): sorted(len(c["content"]) for c in row["completions"])
        for row in map(json.loads, (done / "stages/refresh/samples.jsonl").read_text().splitlines())
    }
    assert rows
    for row in rows:
        first, second = (len(c["content"]) for c in row["completions"])
        assert [second, first] == answers[json.dumps(row["prompt"])][::2]


def test_half_of_what_it_trains_on_is_old(done: Path, small_runs: Any) -> None:
    (said,) = [text for text in notes(done) if "fresh pairs and" in text]
    fresh, old = int(said.split()[0]), int(said.split()[4])
    assert fresh == old > 10 and "(50% old)" in said
    steps = [row for row in small_runs.numbers(done) if row["stage"] == "refresh"]
    assert len(steps) == -(-(fresh + old) // 8) and all({"accuracy", "margin"} <= row.keys() for row in steps)


def test_every_prompt_it_asked_is_accounted_for(tiny: Any, tmp_path: Path, small_runs: Any) -> None:
    """Those that taught nothing are counted, and so are the pairs held out of the fresh and of the old ones."""
    path = run(tiny, tmp_path, refresh(tiny, model=tiny.path("base"), num_samples=2))
    data = small_runs.summary(path)["stages"][0]["data"]
    labelled, fresh = (small_runs.lines(path / f"stages/refresh/{file}.jsonl") for file in ("samples", "pairs"))
    same = sum(len({c["score"] for c in row["completions"]}) == 1 for row in labelled)
    assert sum(data["dropped"].values()) == same == len(labelled) - len(fresh) > 0
    assert data["prompts"] == len(labelled) == 20 and data["held_out"] > 2


def test_it_says_what_was_gained_and_what_was_kept(done: Path, small_runs: Any) -> None:
    metrics = small_runs.summary(done)["stages"][1]["metrics"]
    wanted = {"accuracy", "before/accuracy", "old/accuracy", "before/old/accuracy", "temperature", "ece"}
    assert wanted <= metrics.keys()


def test_the_scale_is_that_of_the_fresh_answers(done: Path) -> None:
    known = read_figures(str(done / "stages/refresh/model"))
    before = read_figures(str(done / "stages/rm/model"))
    assert known is not None and before is not None
    assert known.fitted_on == "fresh answers" and known.num_completions == 60
    assert (known.mean, known.temperature) != (before.mean, before.temperature)


def test_a_stage_that_follows_takes_it_as_reward_and_critic(tiny: Any, tmp_path: Path, small_runs: Any) -> None:
    ppo = {
        "kind": "ppo",
        "name": "ppo",
        "model": tiny.path("base"),
        "critic": "@refresh",
        "data": tiny.data("prompts"),
        "rewards": [{"name": "model", "path": "@refresh"}],
        "sampling": {"max_completion_length": 8},
        "training": tiny.training(steps=1, batch_size=4),
    }
    path = run(tiny, tmp_path, reward(tiny), refresh(tiny), ppo)
    assert [stage["name"] for stage in small_runs.summary(path)["stages"]] == ["rm", "refresh", "ppo"]


def test_too_few_old_pairs_are_said(tiny: Any, tmp_path: Path) -> None:
    few = refresh(tiny, model=tiny.path("base"), old={"path": tiny.data("pairs"), "limit": 6})
    path = run(tiny, tmp_path, few)
    (said,) = notes(path, "alarm")
    assert "old_share=0.5 asks for" in said and "there are 5" in said


def test_answers_that_all_score_the_same_teach_nothing(tiny: Any, tmp_path: Path) -> None:
    same = {"name": "regex", "pattern": ".*", "mode": "search"}
    with pytest.raises(Exception, match="no fresh pair is left of 20 prompts"):
        run(tiny, tmp_path, refresh(tiny, model=tiny.path("base"), rewards=[same]))


@pytest.mark.parametrize(
    ("num_fresh", "share", "want"), [(10, 0.5, 10), (10, 0.0, 0), (10, 0.8, 40), (10, 2 / 3, 20), (3, 0.4, 2)]
)
def test_how_many_old_pairs_make_a_share(num_fresh: int, share: float, want: int) -> None:
    assert old_pairs_for(num_fresh, share) == want
    assert want / (want + num_fresh) >= share - 1e-9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": None}, "policy: is missing"),
        ({"old": None}, "old: is missing"),
        ({"old_share": 1.0}, "old_share: must be at least 0 and less than 1"),
        ({"rewards": []}, "rewards: is empty"),
        ({"num_samples": 1}, "num_samples: must be at least 2"),
        ({"objective": {"soft_labels": True}}, "reads probability"),
        ({"policy": "@nobody"}, "no earlier stage"),
    ],
)
def test_what_is_missing_is_said_before_anything_runs(changes: dict[str, Any], words: str, tiny: Any) -> None:
    with pytest.raises(RecipeError, match=words):
        load_recipe({**refresh(tiny, model="m"), **changes})
