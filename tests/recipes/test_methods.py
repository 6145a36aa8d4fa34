"""The table of methods says what the stages say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from strop.recipes.config import resolve
from strop.recipes.methods import Method, as_text, by_name, methods
from strop.recipes.settings import OnPolicyStage, PPOStage, TrainingStage
from strop.recipes.sources import builtin_names

SRC = str(Path(__file__).parents[2] / "src")
ONE_STAGE = [name for name in builtin_names() if len(resolve(name).stages) == 1]


def relative(name: str) -> float:
    found = by_name()[name].relative
    assert found is not None
    return found


@pytest.mark.parametrize("name", ONE_STAGE)
def test_every_recipe_of_one_stage_has_a_row_that_follows_its_needs(name: str) -> None:
    method, stage = by_name()[name], resolve(name).stages[0]
    assert method.kinds == (stage.kind,) and method.description
    if not isinstance(stage, TrainingStage):
        assert method.trained == (("reward model",) if stage.kind == "refresh" else ())
        return
    assert method.trained and method.cost
    asks = "ref_logprobs" in stage.objective.needs
    if not isinstance(stage, OnPolicyStage):
        assert method.cached == (("reference",) if asks else ()) and not method.frozen and not method.samples
    elif asks:
        assert method.frozen == ("reference",)
    assert method.rewards == (isinstance(stage, OnPolicyStage) and not stage.rewards)
    assert ("critic" in method.trained) == isinstance(stage, PPOStage)


@pytest.mark.parametrize("name", [n for n in builtin_names() if n in by_name()])
def test_every_training_recipe_names_its_paper(name: str) -> None:
    if by_name()[name].trained:
        assert by_name()[name].paper


def test_costs_are_those_of_the_formula() -> None:
    """Forward-equivalent FLOPs a parameter and token: 2 forward, 6 with backward."""
    assert relative("sft") == 1
    assert relative("dpo") == 2 * (6 + 2) / 6 and relative("orpo") == relative("reward") == 2
    assert relative("kto") == (6 + 2 + 2 * 2) / 6
    assert relative("grpo") == 8 * (2 + 6) / 6
    assert relative("grpo-deepseek") == 16 * (2 + 2 + 6) / 6
    assert relative("ppo") == (2 + 2 + 2 + 4 * 12) / 6  # decoding, reference, values, four passes of two models
    assert relative("refresh") == (4 * 2 + 6 * 2 + 6 * 2) / 6  # four answers, a fresh pair and an old one
    assert relative("online-dpo") == 2 * (2 + 2 + 6) / 6
    assert relative("best-of-n") == 16 * 2 / 6 and relative("raft") == (16 * 2 + 6) / 6


def test_models_in_memory() -> None:
    def held(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return by_name()[name].trained, by_name()[name].frozen

    assert held("dpo") == (("policy",), ()) and held("orpo") == (("policy",), ())
    assert held("grpo") == (("policy",), ()) and held("grpo-deepseek") == (("policy",), ("reference",))
    assert held("rloo") == (("policy",), ("reference",))  # its KL is in the reward
    assert held("ppo") == (("policy", "critic"), ("reference",))
    assert held("reward") == (("reward model",), ())


def test_what_each_takes() -> None:
    found = by_name()
    assert found["dpo"].takes == ("preference", "ranking") and found["grpo"].takes == ("prompts",)
    assert "unpaired_preference" in found["kto"].takes and found["raft"].takes == ("prompts",)
    assert (found["grpo"].samples, found["online-dpo"].samples, found["dpo"].samples) == (8, 2, 0)
    assert "quickstart" not in found  # it brings its model


def test_the_table_fits_a_hundred_columns_and_has_every_row() -> None:
    text = as_text(methods())
    assert max(map(len, text.splitlines())) <= 100
    assert all(f"\n{method.name} " in text for method in methods())
    assert "arXiv:2305.18290" in text


def test_json_has_the_relative_compute() -> None:
    row = json.loads(json.dumps(by_name()["dpo"].to_json()))
    assert row["relative"] == pytest.approx(8 / 3) and row["cached"] == ["reference"]
    assert set(row) == {*Method.__slots__, "relative"}


def test_it_imports_no_torch_and_reads_the_recipes_quickly() -> None:
    code = (
        "import sys, time\n"
        "import strop.recipes.config, strop.recipes.methods as m\n"
        "began = time.process_time()\n"
        "m.methods()\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "print(time.process_time() - began)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SRC}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.5  # a quarter of a second where nothing else runs
