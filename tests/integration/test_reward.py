"""Stages of reward models over a tiny world: what is dropped, what is left, and who can use it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import strop
from strop.evaluate.calibration import Scored, length_slope
from strop.rewards import RewardModel
from strop.rewards.scale import read_figures
from strop.types import Completion, Group, Message


def reward(tiny: Any, name: str = "rm", steps: int = 2, **changes: Any) -> dict[str, Any]:
    stage = {
        "kind": "reward",
        "name": name,
        "data": tiny.data("pairs"),
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "training": tiny.training(steps=steps, batch_size=8, eval_fraction=0.3),
    }
    return {**stage, **changes}


def run(tiny: Any, folder: Path, *stages: dict[str, Any]) -> Path:
    return strop.run(tiny.recipe(folder, *stages), display="quiet").path


def read(tiny: Any, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(tiny.data(name)).read_text().splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def groups_of(rows: list[dict[str, Any]]) -> list[Group]:
    def turns(said: list[dict[str, str]]) -> tuple[Message, ...]:
        return tuple(Message(m["role"], m["content"]) for m in said)

    return [
        Group(turns(row["prompt"]), tuple(Completion(turns(row[side])) for side in ("chosen", "rejected")))
        for row in rows
    ]


@pytest.fixture(scope="module")
def trained(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny, tmp_path_factory.mktemp("rm"), reward(tiny, steps=6))


def test_what_is_left_is_a_stock_classifier(trained: Path, tiny: Any) -> None:
    """Loaded by its Auto class and asked with the chat template, alone or in a padded batch, it says what ours does."""
    folder = str(trained / "stages/rm/model")
    module, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    config = module.config
    assert (config.num_labels, config.id2label, config.problem_type) == (1, {0: "score"}, "regression")
    rows = read(tiny, "pairs")[:6]
    texts = [
        tokenizer.apply_chat_template([*row["prompt"], *row[side]], tokenize=False)
        for row in rows for side in ("chosen", "rejected")
    ]  # fmt: skip
    inputs = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    assert config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    with torch.no_grad():
        want = module(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
    found = RewardModel(path=folder, normalize=False, device="cpu")(groups_of(rows))
    assert [v.score for row in found for v in row] == pytest.approx(want.tolist(), abs=1e-4)


def test_the_figures_stand_beside_the_weights(trained: Path, tiny: Any, small_runs: Any) -> None:
    """They are those of the held-out rows, and the scores in their unit have mean 0 and deviation 1 there."""
    (stage,) = small_runs.summary(trained)["stages"]
    known = read_figures(str(trained / "stages/rm/model"))
    assert known is not None and known.fitted_on == "held-out comparisons"
    assert known.num_completions == 2 * stage["data"]["held_out"] == 28
    names = {
        "accuracy", "tie_rate", "margin", "nll", "brier", "ece", "ece_width", "temperature", "nll_calibrated",
        "ece_calibrated", "len_corr", "len_slope", "accuracy_chosen_shorter", "accuracy_chosen_longer",
        "eval_loss", "eval_accuracy", "before/eval_loss",
    }  # fmt: skip
    assert names <= stage["metrics"].keys()
    figures = {name: stage["metrics"][name]["value"] for name in names}
    assert figures["accuracy"] == figures["eval_accuracy"]
    assert figures["nll_calibrated"] <= figures["nll"]
    assert known.temperature == pytest.approx(figures["temperature"])
    assert known.length_slope == pytest.approx(figures["len_slope"])
    curves = json.loads((trained / "stages/rm/calibration.json").read_text())["curves"]
    assert list(curves) == ["as trained", f"at temperature {known.temperature:.3g}"]
    for bins in curves.values():
        assert sum(b["n"] for b in bins) == stage["data"]["held_out"]
        assert sum(b["n"] * b["right"] for b in bins) / 14 == pytest.approx(figures["accuracy"])  # no pair ties
    rows = read(tiny, "pairs")
    scores = [[v.score for v in row] for row in RewardModel(path=str(trained / "stages/rm/model"))(groups_of(rows))]
    assert torch.tensor(scores).std().item() == pytest.approx(1.0, abs=0.4)  # all rows, of which 30 % were held out


def test_metrics_of_each_step(trained: Path, small_runs: Any) -> None:
    for row in small_runs.numbers(trained):
        assert {"loss", "accuracy", "tie_rate", "margin", "mean_reward", "min_reward", "max_reward"} <= row.keys()
        assert row["min_reward"] < row["mean_reward"] < row["max_reward"] and 0 <= row["accuracy"] <= 1


def test_what_cannot_be_compared_is_dropped_and_counted(tiny: Any, tmp_path: Path, small_runs: Any) -> None:
    rows = read(tiny, "pairs")[:20]
    rows[3]["rejected"] = rows[3]["chosen"]
    rows[5]["chosen"][0]["content"] += " and" * 60
    data = write(tmp_path / "pairs.jsonl", rows)
    made = reward(tiny, data=data, training=tiny.training(steps=1, eval_fraction=0.0, max_length=90))
    path = run(tiny, tmp_path / "runs", made)
    (stage,) = small_runs.summary(path)["stages"]
    assert stage["data"]["kept"] == 18 and sum(stage["data"]["dropped"].values()) == 2
    assert stage["data"]["dropped"] == {
        "chosen == rejected": 1, "longer than 90 tokens, and a cut text cannot be scored": 1,
    }  # fmt: skip
    assert any("no rows are held out" in e["text"] for e in small_runs.events(path, "alarm"))
    assert "accuracy" not in stage["metrics"], "trained rows say nothing of how good a model is"
    known = read_figures(str(path / "stages/rm/model"))
    assert known is not None and known.fitted_on == "trained comparisons"


def test_margins_and_probabilities_are_read_from_the_rows(tiny: Any, tmp_path: Path, small_runs: Any) -> None:
    rows = [{**row, "margin": 0.5, "probability": 0.8} for row in read(tiny, "pairs")[:16]]
    rows[2]["probability"] = 1.2
    del rows[4]["margin"]
    rows[6]["margin"] = "much"
    objective = {"name": "bradley_terry", "margin": True, "soft_labels": True}
    training = tiny.training(steps=1, batch_size=64, eval_fraction=0.0)
    made = reward(tiny, data=write(tmp_path / "pairs.jsonl", rows), objective=objective, training=training)
    path = run(tiny, tmp_path / "runs", made)
    (stage,) = small_runs.summary(path)["stages"]
    assert stage["data"]["dropped"] == {"probability is not in [0, 1]": 1, "no margin": 1, "margin is no number": 1}
    bare = reward(tiny, data=write(tmp_path / "bare.jsonl", read(tiny, "pairs")[:8]), objective=objective)
    with pytest.raises(ValueError, match=r"no row can be used \(.* x no margin\)"):
        run(tiny, tmp_path / "bare", bare)


def test_rankings_stay_together_and_need_their_objective(tiny: Any, tmp_path: Path, small_runs: Any) -> None:
    rows = read(tiny, "pairs")[:12]
    third = [{"role": "assistant", "content": "no"}]
    ranked = [
        {"prompt": r["prompt"], "completions": [r["chosen"], r["rejected"], third], "scores": [3, 2, 1]} for r in rows
    ]
    data = write(tmp_path / "ranked.jsonl", ranked)
    for name in ("all_pairs", "plackett_luce"):
        made = reward(tiny, data=data, objective={"name": name}, training=tiny.training(steps=2, eval_fraction=0.3))
        path = run(tiny, tmp_path / name, made)
        assert small_runs.numbers(path)[0]["accuracy"] * 3 * 4 == pytest.approx(
            round(small_runs.numbers(path)[0]["accuracy"] * 12)
        ), "four rankings of three pairs each"
    with pytest.raises(ValueError, match="3 answers where the objective compares two"):
        run(tiny, tmp_path / "pairs", reward(tiny, data=data, training=tiny.training(steps=1)))


def test_length_is_balanced_by_repetition(tiny: Any, tmp_path: Path, small_runs: Any) -> None:
    made = reward(tiny, balance_length=True, training=tiny.training(steps=1, eval_fraction=0.0))
    path = run(tiny, tmp_path, made)
    assert any("pairs stand again, to balance length" in e["text"] for e in small_runs.events(path, "note"))


def test_an_adapter_is_folded_into_what_is_left(tiny: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    path = run(tiny, tmp_path, reward(tiny, adapter={"name": "lora", "r": 4}))
    folder = path / "stages/rm"
    assert (folder / "adapter/adapter_config.json").is_file()
    whole = load_file(folder / "model/model.safetensors")
    base = load_file(Path(tiny.path("base")) / "model.safetensors")
    assert "score.weight" in whole and not any("lora" in name for name in whole)
    assert any(not torch.equal(whole[name], base[name]) for name in base if name in whole)
    AutoModelForSequenceClassification.from_pretrained(folder / "model")


# Chains of stages.


def test_an_ensemble_trains_a_policy(tiny: Any, tmp_path: Path, small_runs: Any) -> None:
    """Members differ by their names' seeds; RL takes the ensemble's score, and its label is logged."""
    ensemble = {"name": "model", "path": ["@rm1", "@rm2"], "combine": "mean_minus_std", "label": "ensemble"}
    rl = {**tiny.grpo(steps=1), "rewards": [ensemble], "objective": {"name": "grpo"}}
    path = run(tiny, tmp_path, reward(tiny, "rm1"), reward(tiny, "rm2"), rl)
    heads = [load_file(path / f"stages/rm{i}/model/model.safetensors")["score.weight"] for i in (1, 2)]
    assert not torch.equal(*heads)
    (row,) = [row for row in small_runs.numbers(path) if row["stage"] == "grpo"]
    assert math.isfinite(row["rewards/ensemble/mean"]) and row["rewards/ensemble/std"] > 0
    reasons = [c["reasons"]["ensemble"] for line in (path / "stages/grpo/rollouts").iterdir()
               for group in small_runs.lines(line) for c in group["completions"]]  # fmt: skip
    assert all(reason.startswith("members lie ") for reason in reasons)


def test_averaged_weights_are_calibrated_and_used(tiny: Any, tmp_path: Path, small_runs: Any) -> None:
    """WARM: two runs from one head, their mean, its figures on other rows and on a policy's samples."""
    members = [reward(tiny, name, head_seed=7) for name in ("rm1", "rm2")]
    average = {"kind": "average", "name": "warm", "members": ["@rm1", "@rm2"]}
    sample = {
        "kind": "sample", "name": "sample", "model": tiny.path("base"), "data": tiny.data("prompts"),
        "num_samples": 3, "sampling": {"max_completion_length": 8},
    }  # fmt: skip
    calibrate = {
        "kind": "calibrate",
        "name": "rm",
        "model": "@warm",
        "data": tiny.data("pairs"),
        "normalize": "@sample",
    }
    score = {"kind": "score", "name": "score", "data": "@sample", "rewards": [{"name": "model", "path": "@rm"}]}
    recipe = tiny.recipe(tmp_path, *members, average, sample, calibrate, score)
    for stage in recipe["stages"]:
        if stage["kind"] in ("average", "score"):
            del stage["model"]
    path = strop.run(recipe, display="quiet").path
    parts = [load_file(path / f"stages/{name}/model/model.safetensors") for name in ("rm1", "rm2", "warm", "rm")]
    for name, mean in parts[2].items():
        torch.testing.assert_close(mean, (parts[0][name] + parts[1][name]) / 2, rtol=1e-6, atol=1e-8)
        assert torch.equal(mean, parts[3][name])
    assert not (path / "stages/warm/model/reward.json").exists()
    known = read_figures(str(path / "stages/rm/model"))
    samples = small_runs.lines(path / "stages/score/samples.jsonl")
    assert known is not None and known.fitted_on == "@sample"
    assert known.num_completions == sum(len(group["completions"]) for group in samples)
    scores = torch.tensor([c["rewards"]["model"] for group in samples for c in group["completions"]])
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert scores.std(correction=0).item() == pytest.approx(1.0, abs=1e-5)
    calibrated = {s["name"]: s for s in small_runs.summary(path)["stages"]}["rm"]
    assert {"accuracy", "ece", "temperature"} <= calibrated["metrics"].keys()


def test_calibrating_leaves_the_model_it_read_as_it_was(trained: Path, tiny: Any, tmp_path: Path) -> None:
    """Its files are hard links; the new figures are not written through them."""
    source = trained / "stages/rm/model"
    before = (source / "reward.json").read_bytes()
    made = {"kind": "calibrate", "name": "rm", "model": str(source), "data": {"path": tiny.data("pairs"), "limit": 9}}
    path = run(tiny, tmp_path, made)
    assert (source / "reward.json").read_bytes() == before
    known = read_figures(str(path / "stages/rm/model"))
    assert known is not None and known.num_completions == 18 and asdict(known) != json.loads(before)


def test_length_taken_out_leaves_no_slope_where_it_was_fitted(trained: Path, tiny: Any, tmp_path: Path) -> None:
    source = str(trained / "stages/rm/model")
    path = run(tiny, tmp_path, {"kind": "calibrate", "name": "rm", "model": source, "data": tiny.data("pairs")})
    fair = RewardModel(path=str(path / "stages/rm/model"), length_debias=True, normalize=False)
    found = groups_of(read(tiny, "pairs"))
    from strop.rewards.model import open_model

    lengths = [tuple(j.lengths) for j in open_model(fair.paths[0]).judge(found, None, 4096)]
    scores = [tuple(v.score for v in row) for row in fair(found)]
    slope = length_slope([Scored(s, n) for s, n in zip(scores, lengths, strict=True)])  # type: ignore[arg-type]
    assert slope == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"kind": "average", "members": []}, "members: is empty; name model folders or earlier stages"),
        ({"kind": "average", "members": ["@x"]}, "@x: no earlier stage of that name"),
        ({"kind": "average", "members": ["a", "b"], "weights": [1.0]}, "1 weights for 2 members"),
        (
            {"kind": "reward", "balance_length": True, "objective": "all_pairs"},
            "is for pairs; all_pairs takes rankings",
        ),
        ({"kind": "reward", "head_seed": -1}, "head_seed: must not be negative"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(
    stage: dict[str, Any], message: str, tiny: Any
) -> None:
    from strop.recipes.config import load_recipe

    if stage["kind"] == "reward":
        stage = {"model": tiny.path("base"), "data": tiny.data("pairs"), **stage}
    with pytest.raises(ValueError, match=message):
        load_recipe({"name": "x", "stages": [stage]})
