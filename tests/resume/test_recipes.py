"""Whole recipes killed behind each stage and within each, and resumed: the same as the run that nothing happened to.

A row of `RECIPES` is a built-in recipe and what makes it tiny; a new recipe needs no more than its row.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.data.read import sha256
from strop.recipes.config import load_recipe
from strop.recipes.context import Context
from strop.recipes.plain import to_plain

Overrides = dict[str, Any]
Place = list[Any]
"""Where a run is killed, as `child.py` has it."""


def align(tiny: Any) -> Overrides:
    """All of it: SFT, pairs labelled by rules, DPO, GRPO; evaluated behind each."""
    return {
        **evaluation(tiny),
        **sft(tiny, "sft"),
        "sample.data": {"path": tiny.data("prompts"), "limit": 8},
        "sample.num_samples": 2,
        "sample.save_every": 3,
        "sample.sampling.max_completion_length": 8,
        "label.labeller": {"name": "rules", "rules": ["shorter"]},
        "label.ties": "keep",
        "label.save_every": 3,
        "dpo.training": tiny.training(steps=4, save_every=2, eval_fraction=0.0),
        "dpo.optimizer.lr": 1e-3,
        **rl(tiny, "grpo"),
        **{"ship.margin": 1.0, "ship.unclear": "pass"},
    }


def r1_zero(tiny: Any) -> Overrides:
    """Evaluated, with a reference that is reset on the way."""
    return {
        **evaluation(tiny),
        "data": tiny.data("prompts"),
        "rewards": [letters(tiny), {"name": "tags", "label": "format"}],
        "num_generations": 2,
        "sampling.max_completion_length": 8,
        "reset_reference_every": 3,
        "training": tiny.training(steps=4, save_every=2, batch_size=3),
        "optimizer.lr": 1e-3,
    }


def r1(tiny: Any) -> Overrides:
    """All of it, distilled into the same model; what an untrained one could not pass is not asked of it."""
    helpful = {"name": "model", "path": "@helpful", "part": "answer"}
    reasoning, everything = rl(tiny, "reasoning"), rl(tiny, "all")
    return {
        **sft(tiny, "cold-start"),
        **reasoning,
        "sample.data": {"path": tiny.data("prompts"), "limit": 8},
        "sample.num_samples": 2,
        "sample.save_every": 3,
        "sample.sampling.max_completion_length": 8,
        "score.rewards": [letters(tiny)],
        "select.keep": [{"name": "paragraphs", "most": 50}, "each"],
        "general.data": {"path": tiny.data("sft"), "limit": 6},
        "sft.training": tiny.training(steps=4, save_every=2, eval_fraction=0.0),
        "helpful.data": tiny.data("pairs"),
        "helpful.training": tiny.training(steps=4, save_every=2, eval_fraction=0.25),
        **everything,
        "all.data": [tiny.data("prompts"), tiny.data("sft")],
        "all.rewards": [
            {"name": "only", "label": "letters", "column": "answer", "reward": letters(tiny)},
            {"name": "only", "label": "helpful", "column": "answer", "rows": "without", "reward": helpful},
        ],
        "distill.model": tiny.path("base"),
        "distill.training": tiny.training(steps=4, save_every=2, eval_fraction=0.0),
    }


def prm(tiny: Any) -> Overrides:
    """Labels, the model, and each of its uses; an untrained model says an e now and then, so that ends steps."""
    rewards = [{"name": "process", "label": "steps", "path": "@prm"}, letters(tiny, weight=0)]
    search = {"data": {"path": tiny.data("test"), "limit": 6}, "rewards": rewards, "save_every": 2}
    short = {"max_completion_length": 12}
    return {
        "steps.data": {"path": tiny.data("prompts"), "limit": 8},
        "steps.rewards": [letters(tiny)],
        "steps.num_samples": 2,
        "steps.num_continuations": 2,
        "steps.separator": "e",
        "steps.right_above": 9.0,
        "steps.save_every": 3,
        "steps.sampling": short,
        "prm.separator": "e",
        "prm.training": tiny.training(steps=4, save_every=2, eval_fraction=0.0),
        **{f"best-of-n.{key}": value for key, value in {**search, "sampling": short}.items()},
        "best-of-n.method.num_samples": 4,
        **{f"beam.{key}": value for key, value in {**search, "sampling": short}.items()},
        "beam.method": {"name": "beam", "width": 4, "expand": 2, "separator": "e", "max_steps": 3},
        **rl(tiny, "grpo"),
        "grpo.rewards": rewards,
        "grpo.sampling": short,
    }


def rlhf(tiny: Any) -> Overrides:
    """All of it, the reward model refreshed before each of two rounds of PPO."""
    short = {"max_completion_length": 8}
    return {
        **evaluation(tiny),
        **sft(tiny, "sft"),
        "pairs.data": tiny.data("pairs"),
        "scale.data": tiny.data("prompts"),
        "scale.num_prompts": 8,
        "scale.num_samples": 2,
        "scale.save_every": 2,
        "scale.sampling": short,
        "reward.training": tiny.training(steps=4, save_every=2, eval_fraction=0.25),
        "rounds.times": 2,
        "refresh.data": tiny.data("prompts"),
        "refresh.rewards": [letters(tiny)],
        "refresh.num_prompts": 8,
        "refresh.num_samples": 2,
        "refresh.sampling": short,
        "refresh.training": tiny.training(steps=4, save_every=2, eval_fraction=0.25),
        "ppo.data": tiny.data("prompts"),
        "ppo.sampling": short,
        "ppo.passes": 2,
        "ppo.monitor.num_prompts": 8,
        "ppo.monitor.num_generations": 3,
        "ppo.training": tiny.training(steps=4, save_every=2, batch_size=3),
        "ppo.optimizer.lr": 1e-3,
    }


def iterative_dpo(tiny: Any) -> Overrides:
    """A round that gains too little, so that the second is skipped, with pairs of one's own."""
    return {
        **evaluation(tiny),
        "rounds.times": 2,
        "peak.min_gain": 100.0,
        "pairs.data": {"path": tiny.data("pairs"), "limit": 8},
        "sample.data": tiny.data("prompts"),
        "sample.num_prompts": 8,
        "sample.num_samples": 2,
        "sample.save_every": 2,
        "sample.sampling.max_completion_length": 8,
        "label.labeller": {"name": "rules", "rules": ["shorter"]},
        "label.pairs": "random",
        "label.ties": "keep",
        "label.save_every": 2,
        "reward.training": tiny.training(steps=4, save_every=2, eval_fraction=0.25),
        "score.save_every": 2,
        "best.keep": "best",
        "sft.training": tiny.training(steps=4, save_every=2),
        "sft.optimizer.lr": 1e-3,
        "dpo.training": tiny.training(steps=4, save_every=2, eval_fraction=0.0),
        "dpo.optimizer.lr": 1e-3,
    }


RECIPES: dict[str, Callable[[Any], Overrides]] = {
    "align": align, "r1-zero": r1_zero, "r1": r1, "prm": prm, "rlhf": rlhf, "iterative-dpo": iterative_dpo
}  # fmt: skip
BRIEF = "-brief"
"""Behind a recipe's name: without its last stage, if that ships."""


# What rows share.


def evaluation(tiny: Any) -> Overrides:
    sampling = {"temperature": 1.0, "max_completion_length": 8}
    data = {"path": tiny.data("test"), "limit": 6}
    return {"evaluation.data": data, "evaluation.rewards": [letters(tiny)], "evaluation.sampling": sampling}


def letters(tiny: Any, **more: Any) -> dict[str, Any]:
    """A reward that differs between answers of a model that was never trained."""
    return {"name": "custom", "function": f"{tiny.path('rewards.py')}:letters", "label": "letters", **more}


def sft(tiny: Any, name: str, data: str = "sft") -> Overrides:
    return {
        f"{name}.data": tiny.data(data),
        f"{name}.training": tiny.training(steps=4, save_every=2, eval_fraction=0.0),
        f"{name}.optimizer.lr": 1e-3,
    }


def rl(tiny: Any, name: str) -> Overrides:
    return {
        f"{name}.data": tiny.data("prompts"),
        f"{name}.rewards": [letters(tiny)],
        f"{name}.num_generations": 2,
        f"{name}.sampling.max_completion_length": 8,
        f"{name}.training": tiny.training(steps=4, save_every=2, batch_size=3),
        f"{name}.optimizer.lr": 1e-3,
    }


# The kills.


@dataclass(slots=True)
class Recipes:
    """The unbroken run of each recipe, the steps of its stages of several, and others of it that are broken."""

    tiny: Any
    helpers: Any
    in_child: Callable[..., int]
    folder: Path
    whole: dict[str, tuple[Path, dict[str, Place]]] = field(default_factory=dict)
    steps: dict[str, dict[str, int]] = field(default_factory=dict)

    def recipe(self, name: str, runs: Path) -> dict[str, Any]:
        """The recipe with every stage written out; `name` without shipping, which takes longest, where it ends so."""
        shared = {"model": self.tiny.path("base"), "runs": str(runs), "threads": 1, "device": "cpu"}
        found = to_plain(
            load_recipe(name.removesuffix(BRIEF), {**RECIPES[name.removesuffix(BRIEF)](self.tiny), **shared})
        )
        if name.endswith(BRIEF):
            found["stages"] = [stage for stage in found["stages"] if stage["kind"] != "ship"]
        return found

    def unbroken(self, name: str) -> tuple[Path, dict[str, Place]]:
        """The run that nothing happened to, and a place within each of its stages."""
        if name not in self.whole:
            with pytest.MonkeyPatch.context() as patch:
                seen = watched(patch)
                result = strop.run(self.recipe(name, self.folder / name), display="quiet")
            self.steps[name] = {stage: steps for stage, (steps, _) in seen.items() if steps > 1}
            self.whole[name] = (result.path, {stage: within(stage, steps, n) for stage, (steps, n) in seen.items()})
        return self.whole[name]

    def kill(self, ref: Any, at: Place) -> None:
        assert self.in_child(ref, at=at, signal=int(signal.SIGKILL)) == -signal.SIGKILL, f"it never came to {at}"

    def finish(self, run: Path, name: str) -> None:
        """Let a run go on to its end, and compare it with the unbroken one."""
        strop.run(run, display="quiet")
        whole, _ = self.unbroken(name)
        assert self.helpers.numbers(run) == self.helpers.numbers(whole)
        assert left(self.helpers.summary(run), run) == left(self.helpers.summary(whole), whole)
        assert json.loads((run / "status.json").read_text())["state"] == "finished"


def watched(patch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Steps and phases of each stage that runs while the patch holds."""
    seen: dict[str, list[int]] = {}
    step, phase = Context.step, Context.phase

    def stepped(self: Context, number: int, steps: int, metrics: dict[str, float]) -> None:
        seen[self.name][0] += 1
        step(self, number, steps, metrics)

    def began(self: Context, name: str) -> None:
        seen.setdefault(self.name, [0, 0])[1] += 1
        phase(self, name)

    patch.setattr(Context, "step", stepped)
    patch.setattr(Context, "phase", began)
    return seen


def within(stage: str, steps: int, phases: int) -> Place:
    """A step in the middle, behind a checkpoint; of a stage that makes none, its last phase."""
    return ["step", stage, steps // 2] if steps else ["inside", stage, phases - 1]


def left(summary: dict[str, Any], run: Path) -> list[dict[str, Any]]:
    """What each stage came to: its figures, and the content of all that it left."""
    keys = ("name", "kind", "state", "metrics", "inputs", "artifacts")
    return [{**{key: stage.get(key) for key in keys}, "hashes": hashes(stage, run)} for stage in summary["stages"]]


def hashes(stage: dict[str, Any], run: Path) -> dict[str, str]:
    """The content of what a stage left, but for the words of a shipped model's card, which name the run."""
    entry = run / "stages" / stage["name"] / "stage.json"
    found: dict[str, str] = json.loads(entry.read_text())["artifact_hashes"] if entry.is_file() else {}
    if stage["kind"] == "ship" and "model" in found:
        folder = run / stage["artifacts"]["model"]
        found["model"] = sha256([folder / name for name in ("config.json", "model.safetensors", "tokenizer.json")])
    return found


@pytest.fixture(scope="module")
def recipes(tiny: Any, small_runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Recipes:
    return Recipes(tiny, small_runs, small_runs.Child(), tmp_path_factory.mktemp("unbroken"))


def test_killed_within_or_behind_each_other_stage(recipes: Recipes, tmp_path: Path) -> None:
    """Of the recipe with most kinds of stages, in seconds; the slow tests kill all of them everywhere."""
    name = f"align{BRIEF}"
    ref: Any = recipes.recipe(name, tmp_path)
    places = {stage: place for stage, place in recipes.unbroken(name)[1].items() if not stage.startswith("eval")}
    for number, (stage, place) in enumerate(places.items()):
        recipes.kill(ref, ["event", "finish", stage] if number % 2 else place)
        ref = recipes.helpers.only_run(tmp_path)
    recipes.finish(ref, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_killed_within_and_behind_every_stage_of_one_run(name: str, recipes: Recipes, tmp_path: Path) -> None:
    ref: Any = recipes.recipe(name, tmp_path)
    for stage, place in recipes.unbroken(name)[1].items():
        recipes.kill(ref, place)
        ref = recipes.helpers.only_run(tmp_path)
        recipes.kill(ref, ["event", "finish", stage])
    recipes.finish(ref, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_killed_once_within_any_stage(name: str, recipes: Recipes, tmp_path: Path) -> None:
    """From its start each time, for what a second kill could hide."""
    for stage, place in recipes.unbroken(name)[1].items():
        runs = tmp_path / stage
        recipes.kill(recipes.recipe(name, runs), place)
        recipes.finish(recipes.helpers.only_run(runs), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_killed_at_random_steps_again_and_again(name: str, recipes: Recipes, tmp_path: Path) -> None:
    draw = random.Random(name)
    recipes.unbroken(name)
    ref: Any = recipes.recipe(name, tmp_path)
    for stage, steps in recipes.steps[name].items():
        recipes.kill(ref, ["step", stage, draw.randrange(steps // 2)])
        ref = recipes.helpers.only_run(tmp_path)
        recipes.kill(ref, ["step", stage, draw.randrange(steps // 2, steps)])
    recipes.finish(ref, name)
