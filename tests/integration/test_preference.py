"""Offline preference stages over a model that was never trained: each built-in recipe, and KTO's data and baseline."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.recipes.sources import BUILTIN
from strop.world.datasets import rows as world_rows

AT_THE_REFERENCE = {
    "apo-down": 1.0,
    "apo-zero": 1.0,
    "cdpo": math.log(2),
    "dpo": math.log(2),
    "dpo-norm": math.log(2),
    "dpop": math.log(2),
    "ipo": 25.0,
    "ipo-sum": 25.0,
    "kto": 0.5,
    "robust-dpo": math.log(2),
    "rso": 1.0,
}
"""The first step's loss where nothing but the reference says what it is."""
FREE = ("cpo", "orpo", "ref-free-dpo", "simpo", "slic")
OTHERS = ("dpo-llama3", "r-dpo")


def changes(tiny: Any, folder: Path, **more: Any) -> dict[str, Any]:
    training = {
        "training.steps": 2,
        "training.batch_size": 6,
        "training.max_length": 128,
        "training.eval_fraction": 0.1,
    }
    shared = {"model": tiny.path("base"), "runs": str(folder), "threads": 1, "device": "cpu", "optimizer.lr": 1e-3}
    return {**shared, **training, "training.micro_batch_tokens": 256, "data": tiny.data("pairs"), **more}


def run(name: str, tiny: Any, folder: Path, **more: Any) -> Path:
    path: Path = strop.run(name, changes(tiny, folder, **more), display="quiet").path
    return path


def notes(small_runs: Any, run: Path, kind: str = "note") -> str:
    return "\n".join(event["text"] for event in small_runs.events(run, kind))


def test_every_preference_recipe_is_among_these() -> None:
    kinds = {path.stem: path.read_text() for path in BUILTIN.glob("*.yaml")}
    found = {name for name, text in kinds.items() if "kind: preference" in text or "kind: unpaired" in text}
    assert found - {"quickstart"} >= {*AT_THE_REFERENCE, *FREE, *OTHERS}


@pytest.mark.parametrize("name", [*AT_THE_REFERENCE, *FREE, *OTHERS])
def test_a_built_in_recipe_runs(name: str, tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    path = run(name, tiny, tmp_path)
    first, second = small_runs.numbers(path)
    assert small_runs.summary(path)["state"] == "finished"
    if name in AT_THE_REFERENCE:
        assert first["loss"] == pytest.approx(AT_THE_REFERENCE[name], rel=1e-4)
        assert abs(first["rewards/margins"]) < 1e-4 < abs(second["rewards/margins"])
    assert math.isfinite(second["loss"]) and second["grad_norm"] > 0
    (stage,) = small_runs.summary(path)["stages"]
    assert {"eval_loss", "before/eval_loss", "eval_rewards/margins"} <= stage["metrics"].keys()
    taken = "is the reference" in notes(small_runs, path)
    assert taken == (name not in FREE), "the reference is read exactly where the loss needs it"


def test_likelihood_and_masked_formatting_of_llama_3(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """At the reference: log 2 + 0.2 NLL. The end token of both sides is no part of the log-ratios."""
    first, second = small_runs.numbers(run("dpo-llama3", tiny, tmp_path / "masked"))
    assert first["loss"] == pytest.approx(math.log(2) + 0.2 * first["nll_loss"], rel=1e-5)
    plain = small_runs.numbers(run("dpo-llama3", tiny, tmp_path / "plain", **{"objective.mask_formatting": False}))
    assert first["grad_norm"] != pytest.approx(plain[0]["grad_norm"], rel=1e-4)
    assert second["rewards/chosen"] != pytest.approx(plain[1]["rewards/chosen"], rel=1e-4)


def test_repeated_and_identical_pairs_are_dropped_and_counted(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    pairs = world_rows("pairs", 0, 12)
    same = {**pairs[5], "rejected": pairs[5]["chosen"]}
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*pairs, pairs[3], pairs[3], same]))
    for name in ("dpo", "kto"):
        path = run(name, tiny, tmp_path / name, data=str(file), **{"training.eval_fraction": 0.0})
        (stage,) = small_runs.summary(path)["stages"]
        assert stage["data"]["kept"] == 12
        assert sorted(stage["data"]["dropped"].values()) == [1, 2]
        assert "2 rows dropped: repeats an earlier row; first at" in notes(small_runs, path, "drop")


def test_pairs_that_are_the_same_after_truncation_are_dropped(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """The world's pairs differ in their tails alone."""
    for name in ("dpo", "kto"):
        path = run(name, tiny, tmp_path / name, **{"training.max_length": 40, "training.eval_fraction": 0.0})
        (stage,) = small_runs.summary(path)["stages"]
        assert stage["data"]["dropped"]["identical after truncation"] > 0
        assert "dropped: identical after truncation" in notes(small_runs, path, "drop")


# KTO.


def feedback(path: Path, labels: list[bool], *, prompts: int | None = None) -> str:
    """Rows of one answer and a label; with `prompts` only so many different prompts."""
    rows = []
    for number, (label, pair) in enumerate(zip(labels, world_rows("pairs", 0, len(labels)), strict=True)):
        prompt = pair["prompt"] if prompts is None else [{"role": "user", "content": f"What? {number % prompts}"}]
        rows.append({"prompt": prompt, "completion": pair["chosen" if label else "rejected"], "label": label})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_unpaired_rows_and_pairs_of_the_same_answers_train_alike(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """Taken apart, a pair is two rows; together its prompt is computed once."""
    pairs, apart = world_rows("pairs", 0, 8), []
    for pair in pairs:
        apart += [{"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
                  for side in ("chosen", "rejected")]  # fmt: skip
    files = []
    for name, rows in (("pairs", pairs), ("apart", apart)):
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    numbers = []
    for file, batch in zip(files, (8, 16), strict=True):
        more = {"training.batch_size": batch, "training.eval_fraction": 0.0, "data.path": str(file)}
        numbers.append(small_runs.numbers(run("kto", tiny, tmp_path / file.stem, **more, **{"schedule.warmup": 0})))
    for ours, theirs in zip(*numbers, strict=True):
        for name in ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "logps/chosen"):
            # z0 is measured on other mismatched answers
            assert ours[name] == pytest.approx(theirs[name], rel=0.05, abs=2e-3), name


@pytest.mark.parametrize("labels", [[True] * 10 + [False] * 2, [True] * 12, [False] * 12])
def test_unbalanced_rows_and_one_class(labels: list[bool], tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    data = feedback(tmp_path / "rows.jsonl", labels)
    path = run("kto", tiny, tmp_path / "runs", data=data, **{"training.steps": 3, "training.eval_fraction": 0.0})
    rows = small_runs.numbers(path)
    assert all(math.isfinite(row["loss"]) and row["kl"] >= 0 and row["grad_norm"] > 0 for row in rows)
    assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-5) and rows[0]["kl"] == pytest.approx(0.0, abs=1e-5)
    assert f"{sum(labels)} desirable and {12 - sum(labels)} undesirable answers" in notes(small_runs, path)
    both = 0 < sum(labels) < 12
    assert ("set objective.undesirable_weight=4.33" in notes(small_runs, path)) == both
    assert all(("rewards/margins" in row) == ("rewards/chosen" in row and "rewards/rejected" in row) for row in rows)


def test_micro_batches_of_one_row_train_alike(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """The baseline is the step's, and a row alone in its micro-batch is no mismatched one of itself."""
    found = []
    for tokens in (1, 4096):
        more = {"training.micro_batch_tokens": tokens, "training.steps": 3}
        found.append(small_runs.numbers(run("kto", tiny, tmp_path / str(tokens), **more)))
    for ours, theirs in zip(*found, strict=True):
        assert ours.pop("stage") == theirs.pop("stage") == "kto"
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def test_rows_of_one_prompt_have_no_baseline(tiny: Any, tmp_path: Path) -> None:
    labels = [bool(i % 2) for i in range(6)]
    one = feedback(tmp_path / "one.jsonl", labels, prompts=1)
    with pytest.raises(ValueError, match="kto: all 6 rows have the same prompt; KTO's baseline reads"):
        run("kto", tiny, tmp_path / "one", data=one, **{"training.eval_fraction": 0.0})
    two = feedback(tmp_path / "two.jsonl", labels, prompts=2)
    run("kto", tiny, tmp_path / "two", data=two, **{"training.eval_fraction": 0.0})


def test_a_killed_stage_goes_on_with_the_same_numbers(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """z0 is a function of the policy and the step's rows, so nothing of it needs saving."""
    stage = {
        "kind": "unpaired",
        "name": "kto",
        "data": tiny.data("pairs"),
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "training": tiny.training(steps=6, save_every=2, eval_fraction=0.1, eval_every=2),
    }
    whole = strop.run(tiny.recipe(tmp_path / "whole", stage), display="quiet").path
    broken, child = tiny.recipe(tmp_path / "broken", stage), small_runs.Child()
    assert child(broken, at=["step", "kto", 4], signal=int(signal.SIGKILL)) == -signal.SIGKILL
    path = small_runs.only_run(tmp_path / "broken")
    strop.run(path, display="quiet")
    assert small_runs.numbers(path) == small_runs.numbers(whole)
    assert small_runs.weights(path, "kto") == small_runs.weights(whole, "kto")


def test_another_reference_is_taken(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """A first KTO stage moves the model; a second one with the base as its reference starts with margins."""
    first = {
        "kind": "unpaired",
        "name": "first",
        "data": tiny.data("pairs"),
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "training": tiny.training(steps=4),
    }
    second = {**first, "name": "second", "model": "@first", "reference": tiny.path("base")}
    path = strop.run(tiny.recipe(tmp_path, first, second), display="quiet").path
    opening = next(row for row in small_runs.numbers(path) if row["stage"] == "second")
    assert abs(opening["rewards/chosen"]) > 1e-3
    assert opening["loss"] != pytest.approx(0.5, abs=1e-4)


def test_soft_labels_and_margins_of_the_rows_are_read(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """At the reference a pair of probability q and margin m costs -q log sigmoid(-m) - (1 - q) log sigmoid(m)."""
    rows = [json.loads(line) for line in Path(tiny.data("pairs")).read_text().splitlines()][:12]
    told = [{"probability": 0.9, "margin": 0.5}, {"probability": 0.5, "margin": 0.0}]
    file = tmp_path / "soft.jsonl"
    file.write_text("".join(json.dumps({**row, **told[i % 2]}) + "\n" for i, row in enumerate(rows)))
    soft = {"data": str(file), "training.eval_fraction": 0.0, "training.batch_size": 12, "training.steps": 1}
    both = {"objective.soft_labels": True, "objective.margin": True}
    path = run("dpo", tiny, tmp_path / "soft", **soft, **both)
    first = 0.9 * math.log1p(math.exp(0.5)) + 0.1 * math.log1p(math.exp(-0.5))
    assert small_runs.numbers(path)[0]["loss"] == pytest.approx((first + math.log(2)) / 2, rel=1e-5)
    assert "that nothing reads" not in notes(small_runs, path)
    plain = run("dpo", tiny, tmp_path / "plain", **soft)
    assert small_runs.numbers(plain)[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert "12 of 12 rows have a probability that nothing reads; set objective.soft_labels=true" in notes(
        small_runs, plain
    )
    judged = [{"probability": 0.9, "margin": 0.8}, {"probability": 0.5, "margin": 0.0}]  # |2p - 1|, as judges leave it
    file.write_text("".join(json.dumps({**row, **judged[i % 2]}) + "\n" for i, row in enumerate(rows)))
    again = run("dpo", tiny, tmp_path / "again", **soft, **{"objective.soft_labels": True})
    assert "that nothing reads" not in notes(small_runs, again), "the probability said it already"
    with pytest.raises(ValueError, match="43 x no margin"):
        run("dpo", tiny, tmp_path / "none", **both)


def test_soft_labels_are_for_rows_and_not_for_pairs_sampled_on_the_way(tiny: Any, tmp_path: Path) -> None:
    online = {"kind": "online", "name": "online", "model": tiny.path("base"), "data": tiny.data("prompts")}
    objective = {"name": "dpo", "soft_labels": True}
    with pytest.raises(ValueError, match="reads the rows' probability, which pairs sampled on the way do not have"):
        strop.run({**online, "rewards": ["number"], "objective": objective, "runs": str(tmp_path)}, display="quiet")
