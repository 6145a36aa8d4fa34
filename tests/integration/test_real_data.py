"""Built-in recipes on real rows with a small model of random weights: each learns, resumes and can be looked at."""

from __future__ import annotations

import gzip
import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import strop
from strop.cli import app

DATA = Path(__file__).parents[2] / "../shared/data"
GSM8K = DATA / "gsm8k/train.jsonl.gz"
SOLUTIONS = DATA / "gsm8k/example_model_solutions.jsonl.gz"
HH = DATA / "hh-rlhf/harmless-base-test.jsonl.gz"
COUNTING = DATA / "bbh/object_counting.json"
VOCAB = 2048

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the shared folder of real data is not here")


@pytest.fixture(scope="module")
def model(small_runs: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "qwen3"
    small_runs.write_small_qwen3(folder, texts(), VOCAB)
    return str(folder)


def texts() -> Iterator[str]:
    for path, columns, n in ((GSM8K, ("question", "answer"), 800), (HH, ("chosen",), 400)):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for _, line in zip(range(n), file, strict=False):
                yield from (json.loads(line)[column] for column in columns)


def settings(runs: Path, model: str, data: Path, **more: Any) -> dict[str, Any]:
    given = {"model": model, "data.path": str(data), "runs": str(runs), "threads": 1, "device": "cpu"}
    small = {"training.max_length": 256, "training.log_every": 5, "training.micro_batch_tokens": 2048}
    return {**given, **small, **{key.replace("__", "."): value for key, value in more.items()}}


SFT = {"training__steps": 8, "training__batch_size": 8, "optimizer__lr": 4e-3, "data__limit": 200}
PAIRS = {"training__steps": 8, "training__batch_size": 8, "optimizer__lr": 2e-3, "data__limit": 120}


def test_sft_on_gsm8k_starts_at_log_v_and_falls(model: str, small_runs: Any, tmp_path: Path) -> None:
    result = strop.run("sft", settings(tmp_path, model, GSM8K, **SFT, training__eval_fraction=0.05), display="quiet")
    rows = small_runs.numbers(result.path)
    assert rows[0]["loss"] == pytest.approx(math.log(VOCAB), abs=0.1)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    figures = result.metrics["sft"]
    assert figures["eval_loss"]["n"] == 10 and figures["eval_loss"]["high"] < figures["before/eval_loss"]["low"]  # type: ignore[operator]
    stage = small_runs.summary(result.path)["stages"][0]
    assert (stage["data"]["rows"], stage["data"]["kept"], stage["data"]["held_out"]) == (200, 200, 10)
    assert stage["phases"]["training"] > 0 and [e["step"] for e in small_runs.events(result.path, "evaluate")] == [0, 8]


def test_dpo_on_hh_starts_at_log_2_and_learns_its_pairs(model: str, small_runs: Any, tmp_path: Path) -> None:
    more = {**PAIRS, "training__steps": 10, "data__limit": 24, "training__eval_fraction": 0.2}
    result = strop.run("dpo", settings(tmp_path, model, HH, **more), display="quiet")
    rows = small_runs.numbers(result.path)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[0]["rewards/chosen"] == rows[0]["rewards/accuracies"] == 0 and rows[0]["rewards/ties"] == 1
    assert sum(row["loss"] for row in rows[-3:]) / 3 < math.log(2) - 0.02
    figures = result.metrics["dpo"]
    assert figures["before/eval_loss"]["value"] == pytest.approx(math.log(2), abs=1e-6)
    assert (figures["before/eval_rewards/chosen"]["value"], figures["before/eval_rewards/chosen"]["low"]) == (0, None)
    assert "eval_rewards/accuracies" in figures and figures["eval_loss"]["n"] == 5
    data = small_runs.summary(result.path)["stages"][0]["data"]
    assert data["kept"] == data["rows"] - 1  # one prompt fills max_length
    (said,) = [e["text"] for e in small_runs.events(result.path, "note") if "is the reference" in e["text"]]
    assert said == f"the starting model is the reference: log-probs of {data['kept']} rows taken"


def test_grpo_on_counting_logs_rewards_and_leaves_none_out(model: str, small_runs: Any, tmp_path: Path) -> None:
    code = "def sure(completion, row):\n    return None if len(completion) % 2 else 1.0\n"
    (tmp_path / "sure.py").write_text(code)
    watched = {"name": "custom", "function": f"{tmp_path / 'sure.py'}:sure", "label": "sure", "weight": 0}
    spread = {"name": "custom", "function": f"{tmp_path / 'spread.py'}:spread", "label": "spread", "weight": 0.1}
    (tmp_path / "spread.py").write_text("def spread(completion, row):\n    return len(set(completion)) / 10\n")
    more: dict[str, Any] = {"training__steps": 2, "training__batch_size": 2, "num_generations": 4}
    more |= {"sampling__max_completion_length": 16, "rewards": [{"name": "number"}, watched, spread]}
    more |= {"data__columns": {"prompt": "input", "answer": "target"}}
    result = strop.run("grpo", settings(tmp_path / "runs", model, COUNTING, **more), display="quiet")
    rows = small_runs.numbers(result.path)
    assert len(rows) == 2
    for row in rows:
        assert {"reward", "reward_std", "rewards/number/mean", "rewards/sure/mean", "rewards/spread/mean"} <= set(row)
        assert row["rewards/sure/mean"] == 1.0  # of those that could be scored
        assert row["rewards/unscorable"] == 0  # the score has no part of a reward of weight 0
        assert row["sampling/sampling_logp_difference/max"] < 1e-3
    lines = (result.path / "stages/grpo/rollouts/step-000001.jsonl").read_text().splitlines()
    assert len(lines) == 2 and "reasons" in json.loads(lines[0])["completions"][0]


@pytest.mark.parametrize(("recipe", "data", "more"), [("sft", GSM8K, SFT), ("dpo", HH, PAIRS)])
def test_killed_on_real_data_and_resumed(
    recipe: str, data: Path, more: dict[str, Any], model: str, small_runs: Any, tmp_path: Path
) -> None:
    def described(runs: Path) -> dict[str, Any]:
        small = {**more, "training__steps": 5, "training__save_every": 2}
        loaded = strop.load_recipe(recipe, settings(runs, model, data, **small))
        return dict(strop.recipes.plain.to_plain(loaded))  # type: ignore[attr-defined]

    whole = strop.run(described(tmp_path / "whole"), display="quiet").path
    assert small_runs.Child()(described(tmp_path / "cut"), at=["step", recipe, 3], signal=int(signal.SIGKILL)) < 0
    cut = strop.run(small_runs.only_run(tmp_path / "cut"), display="quiet").path
    assert small_runs.numbers(cut) == small_runs.numbers(whole)
    assert small_runs.weights(cut, recipe) == small_runs.weights(whole, recipe)


@pytest.mark.parametrize(("recipe", "data", "num_rows"), [("sft", GSM8K, "7473"), ("dpo", HH, "2312")])
def test_validate_and_inspect_count_the_rows(recipe: str, data: Path, num_rows: str, model: str) -> None:
    for command in (["validate", recipe, f"model={model}", f"data={data}"], ["inspect", str(data), f"model={model}"]):
        found = CliRunner().invoke(app, command)
        assert found.exit_code == 0, found.output
        assert num_rows in found.output.replace(",", "")


def solved(path: Path, num: int) -> Path:
    """Pairs of a right and a wrong solution of the same problem, of the models whose solutions are here."""
    pairs = []
    with gzip.open(SOLUTIONS, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            told = [value for value in row.values() if isinstance(value, dict)]
            right = [value["solution"] for value in told if value["is_correct"]]
            wrong = [value["solution"] for value in told if not value["is_correct"]]
            pairs += [
                {"prompt": row["question"], "chosen": a, "rejected": b} for a, b in zip(right, wrong, strict=False)
            ]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs[:num]))
    return path


def test_align_on_gsm8k_and_its_model_solutions(model: str, small_runs: Any, tmp_path: Path) -> None:
    training = {"batch_size": 4, "max_length": 192, "micro_batch_tokens": 2048, "eval_fraction": 0.0, "save_every": 0}
    brief = {"temperature": 1.0, "max_completion_length": 24}
    given = {
        **{"model": model, "runs": str(tmp_path / "runs"), "threads": 1, "device": "cpu"},
        **{"sft.data": {"path": str(GSM8K), "limit": 40}, "sft.optimizer.lr": 4e-3},
        **{"dpo.data": str(solved(tmp_path / "pairs.jsonl", 16)), "dpo.optimizer.lr": 1e-3, "dpo.schedule.warmup": 0},
        **{
            "grpo.data": {"path": str(GSM8K), "limit": 8},
            "grpo.rewards": ["number", {"name": "length", "target": 8, "limit": 24}],
        },
        **{"grpo.num_generations": 4, "grpo.sampling": brief, "grpo.optimizer.lr": 1e-3},
        **{"evaluation.data": {"path": str(GSM8K), "limit": 6}, "evaluation.rewards": "number"},
        **{"evaluation.sampling": brief},
        **{f"{name}.training": {**training, "steps": 4} for name in ("sft", "dpo", "grpo")},
    }
    result = strop.run("align", given, display="quiet")
    stages = {stage["name"]: stage for stage in small_runs.summary(result.path)["stages"]}
    assert small_runs.summary(result.path)["left_out"][0] == "sample (no sample.data)"
    evaluations = [name for name, stage in stages.items() if stage["kind"] == "evaluate"]
    assert evaluations == ["eval-start", "eval-sft", "eval-dpo", "eval-grpo"]
    assert [result.metrics[name]["number"]["n"] for name in evaluations] == [6] * 4
    assert all(result.metrics[name]["delta/number"]["n"] == 6 for name in evaluations[1:])
    rows = small_runs.numbers(result.path)
    sft, dpo = ([row["loss"] for row in rows if row["stage"] == name] for name in ("sft", "dpo"))
    assert sft[0] == pytest.approx(math.log(VOCAB), abs=0.1) and sft[-1] < sft[0] - 0.1
    nll = rows[len(sft)]["nll_loss"]
    assert dpo[0] == pytest.approx(math.log(2) + 0.2 * nll, abs=1e-5)
    assert stages["grpo"]["inputs"]["model"] == "@dpo" and (result.artifacts["grpo"]["model"] / "config.json").is_file()
    assert stages["ship"]["state"] == "finished" and "gate" in stages["ship"]["artifacts"]
