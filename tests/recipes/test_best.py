"""Which evaluation is the best one, what is left of it, and when the rounds are over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strop.recipes.context import Context, StageResult
from strop.recipes.display import make
from strop.recipes.journal import Journal
from strop.recipes.settings import BestStage, Recipe
from strop.recipes.stages.best import run

ROUNDS = (("@eval-a",), ("@eval-b",), ("@eval-c",))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A run directory with three evaluated models: a outside of it, b with an adapter, c."""
    run_dir = tmp_path / "run"
    places = {"a": tmp_path / "a", "b": run_dir / "stages/b/model", "c": run_dir / "stages/c/model"}
    for name, folder in places.items():
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(name)
    (run_dir / "stages/b/adapter").mkdir()
    (run_dir / "stages/b/adapter/adapter_config.json").write_text("{}")
    for name, more in (("b", {"adapter": "stages/b/adapter"}), ("c", {})):
        write(run_dir, name, {"artifacts": {"model": f"stages/{name}/model", **more}})
    models = {str(places["a"]): places["a"], "@b": places["b"], "@c": places["c"]}
    for (model, _), name in zip(models.items(), "abc", strict=True):
        write(run_dir, f"eval-{name}", {"name": f"eval-{name}", "inputs": {"model": model}, "metrics": {}})
    stage_dir = run_dir / "stages/best"
    stage_dir.mkdir()
    return Context(
        recipe=Recipe(name="r"), index=0, run_dir=run_dir, stage_dir=stage_dir, models={}, seed=0,
        should_stop=lambda: False, resolve=lambda text: str(models[text]), resolve_data=str,
        journal=Journal(run_dir), display=make("quiet"),
    )  # fmt: skip


def write(run_dir: Path, name: str, entry: dict[str, Any]) -> None:
    path = run_dir / "stages" / name / "stage.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entry))


def best(context: Context, *values: float | None, **settings: Any) -> StageResult:
    stage = BestStage(**{"among": ROUNDS, "metric": "accuracy", **settings})
    context = Context(
        **{f: getattr(context, f) for f in Context.__slots__} | {"recipe": Recipe(name="r", stages=(stage,))}
    )
    for name, value in zip("abc", values, strict=False):
        path = context.run_dir / f"stages/eval-{name}/stage.json"
        figure = {"value": value, "low": None, "high": None, "n": 9}
        path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": {"accuracy": figure}}))
    return run(stage, context)


def left(context: Context) -> str:
    return (context.stage_dir / "model/model.safetensors").read_text()


def test_the_highest_or_the_lowest(context: Context) -> None:
    found = best(context, 0.2, 0.5, 0.3)
    assert (found.inputs, found.metrics["accuracy"].value) == ({"model": "@b", "best": "@eval-b"}, 0.5)
    assert left(context) == "b"
    assert best(context, 0.2, 0.5, 0.3, better="lower").inputs["best"] == "@eval-a"
    assert left(context) == "a"


def test_of_equals_the_earliest(context: Context) -> None:
    assert best(context, 0.4, 0.5, 0.5).inputs["best"] == "@eval-b"


def test_a_later_round_must_be_better_by_more_than_the_least_gain(context: Context) -> None:
    found = best(context, 0.4, 0.5, 0.52, min_gain=0.05, patience=1, skips=("x",))
    assert (found.inputs["best"], found.skips) == ("@eval-b", ("x",))
    assert best(context, 0.4, 0.5, 0.52, min_gain=0.01, patience=1, skips=("x",)).inputs["best"] == "@eval-c"
    assert best(context, 0.4, 0.3, 0.32, min_gain=0.05, better="lower").inputs["best"] == "@eval-b"


def test_what_could_not_be_scored_is_not_compared(context: Context) -> None:
    found = best(context, None, 0.1, None, patience=1, skips=("x",))
    assert (found.inputs["best"], found.skips) == ("@eval-b", ())
    with pytest.raises(ValueError, match="accuracy has no value in any of eval-a, eval-b, eval-c"):
        best(context, None, None, None)


@pytest.mark.parametrize(
    ("values", "patience", "over"),
    [
        ((0.5, 0.4, 0.4), 2, True),
        ((0.5, 0.4, 0.4), 3, False),
        ((0.4, 0.5, 0.4), 1, True),
        ((0.4, 0.5, 0.4), 2, False),
        ((0.4, 0.5, 0.6), 1, False),
        ((0.5, 0.4, 0.5), 2, True),
    ],
)
def test_rounds_in_a_row_that_were_not_the_best_end_them(
    values: tuple[float, ...], patience: int, over: bool, context: Context
) -> None:
    assert best(context, *values, patience=patience, skips=("x", "y")).skips == (("x", "y") if over else ())


def test_the_model_is_linked_within_the_run_and_copied_from_elsewhere(context: Context) -> None:
    found = best(context, 0.2, 0.5, 0.3)
    ours = context.stage_dir / "model/model.safetensors"
    assert ours.samefile(context.run_dir / "stages/b/model/model.safetensors")
    assert found.artifacts == {"model": "model", "adapter": "adapter"}
    found = best(context, 0.7, 0.5, 0.3)
    outside = Path(found.inputs["model"]) / "model.safetensors"
    assert ours.read_text() == "a" and not ours.samefile(outside)
    assert found.artifacts == {"model": "model"}


def test_a_figure_that_there_is_not_is_named_with_those_that_there_are(context: Context) -> None:
    with pytest.raises(ValueError, match=r"best.metric: eval-a has no figure f1; it has: accuracy"):
        best(context, 0.2, 0.5, 0.3, metric="f1")
