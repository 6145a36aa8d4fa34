"""The label stage: pairs by rules, scores, a judge or people; what is dropped, what is left, and being stopped."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.data.formats import load_dataset
from strop.types import Group

JUDGE = '''
def letters(task, inputs):
    """Prefers more different letters; notes every question, and has no answer where told so."""
    with open(__file__ + ".asked", "a") as file:
        file.write(repr(inputs["responses"]) + "\\n")
    first, second = (len(set(r)) for r in inputs["responses"])
    return "tie" if first == second else "A" if first > second else "B"

def silent(task, inputs):
    raise RuntimeError("out of order")
'''


def sample(tiny: Any, **changes: Any) -> dict[str, Any]:
    small = {"num_samples": 4, "sampling": {"max_completion_length": 10}}
    return {"kind": "sample", "name": "sample", "data": {"path": tiny.data("prompts"), "limit": 12}, **small, **changes}


def label(labeller: Any, **changes: Any) -> dict[str, Any]:
    return {"kind": "label", "name": "label", "data": "@sample", "labeller": labeller, "save_every": 5, **changes}


def recipe(tiny: Any, runs: Path, *stages: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = tiny.recipe(runs, *stages)
    for stage in made["stages"]:
        if stage["kind"] == "label":
            del stage["model"]
    return made


def run(tiny: Any, runs: Path, *stages: dict[str, Any]) -> Path:
    path: Path = strop.run(recipe(tiny, runs, *stages), display="quiet").path
    return path


def pairs_in(run: Path) -> tuple[Group, ...]:
    return load_dataset(str(run / "stages/label/samples.jsonl")).groups


def comparisons_in(run: Path) -> list[dict[str, Any]]:
    lines = (run / "stages/label/comparisons.jsonl").read_text().splitlines()
    return [record for line in lines for record in json.loads(line)["row"]["comparisons"]]


def write(file: Path, *rows: dict[str, Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def judge(folder: Path, name: str = "letters", **settings: Any) -> dict[str, Any]:
    (folder / "judge.py").write_text(JUDGE)
    backend = {"name": "function", "function": f"{folder}/judge.py:{name}"}
    return {"name": "judge", "compare": {"backend": backend}, **settings}


def letters(text: str) -> int:
    return len(set(text))


def test_rules_leave_pairs_that_stages_train_on(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    shorter = {"name": "rules", "rules": [{"name": "shorter", "unit": "characters", "share": 0.0}], "confidence": 0.8}
    dpo = {**tiny.dpo(steps=2, batch_size=3), "data": "@label", "objective": {"name": "dpo", "soft_labels": True}}
    rm = {**tiny.reward(steps=2), "data": "@label", "objective": {"name": "bradley_terry", "soft_labels": True}}
    path = run(tiny, tmp_path, sample(tiny), label(shorter, pairs="all"), dpo, rm)
    pairs, records = pairs_in(path), comparisons_in(path)
    assert all(len(a.text) < len(b.text) for a, b in (g.completions for g in pairs))
    assert {(g.row["probability"], g.row["margin"], g.row["labelled"]["by"]) for g in pairs} == {(0.8, 1.0, "rules")}
    assert "comparisons" not in pairs[0].row and pairs[0].row["answer"]
    (told,) = (s for s in small_runs.summary(path)["stages"] if s["name"] == "label")
    lost = sum(told["data"]["dropped"].values())
    assert len(records) == 12 * 6 == len(pairs) + lost, "nothing is lost without being counted"
    ties = sum(r.get("tie", False) for r in records)
    assert told["data"]["dropped"].get("a tie", 0) == ties and told["data"]["kept"] == len(pairs)
    assert told["metrics"]["longer_preferred"]["value"] < 0.5
    first = next(row for row in small_runs.numbers(path) if row["stage"] == "dpo")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-3)


def test_scores_and_their_temperature(tiny: Any, tmp_path: Path) -> None:
    """P(better) = sigmoid(Delta / 2) of the number of different letters, the best against the worst."""
    reward = {"name": "custom", "function": f"{tiny.path('rewards.py')}:letters", "label": "letters"}
    soft = label({"name": "scores", "temperature": 2.0}, rewards=[reward], pairs="best_worst")
    pairs = pairs_in(run(tiny, tmp_path, sample(tiny), soft))
    for group in pairs:
        best, worst = (letters(c.text) for c in group.completions)
        assert best > worst and [c.score for c in group.completions] == [best, worst]
        assert group.row["margin"] == best - worst
        assert group.row["probability"] == pytest.approx(1 / (1 + math.exp(-(best - worst) / 2)))


def test_a_reward_models_own_temperature(tiny: Any, tmp_path: Path) -> None:
    """Its normalised scores are taken back to its own scale: P = sigmoid(raw difference / T)."""
    rm = {**tiny.reward(steps=4), "training": tiny.training(steps=4, eval_fraction=0.3)}
    reward = {"name": "model", "path": "@reward", "device": "cpu"}
    fitted = label({"name": "scores", "temperature": "fitted"}, rewards=[reward], data=tiny.data("pairs"))
    path = run(tiny, tmp_path, rm, fitted)
    known = json.loads((path / "stages/reward/model/reward.json").read_text())
    for group in pairs_in(path):
        scores = [c.score for c in group.completions]
        raw = (scores[0] - scores[1]) * known["std"]  # type: ignore[operator]
        assert group.row["probability"] == pytest.approx(1 / (1 + math.exp(-raw / known["temperature"])), rel=1e-6)
    with pytest.raises(ValueError, match="'fitted' is one reward model's own"):
        run(tiny, tmp_path, sample(tiny), label({"name": "scores", "temperature": "fitted"}))


def test_a_judge_and_its_figures(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    path = run(tiny, tmp_path, sample(tiny), label(judge(tmp_path), ties="keep", pairs={"name": "random", "num": 2}))
    kept = pairs_in(path)
    assert all(letters(a.text) >= letters(b.text) for a, b in (g.completions for g in kept))
    assert {g.row["probability"] for g in kept} == {0.5, 1.0}, "ties stand at one half"
    (told,) = (s for s in small_runs.summary(path)["stages"] if s["name"] == "label")
    assert told["metrics"]["judge/flip_rate"]["value"] == 0 == told["metrics"]["judge/position_bias"]["value"]
    assert 0 < told["metrics"]["ties"]["value"] < 1 and told["metrics"]["abstained"]["value"] == 0
    different = [r for r in comparisons_in(path) if r["reason"] != "two answers with the same words"]
    asked = (tmp_path / "judge.py.asked").read_text().splitlines()
    assert len(asked) == 2 * len(different), "each couple in both orders, once"


def test_a_judge_that_is_silent_is_an_error_and_not_a_file_of_abstentions(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the judge left \d+ of \d+ comparisons without an answer: .*out of order"):
        run(tiny, tmp_path, sample(tiny), label(judge(tmp_path, "silent"), pairs="all"))
    found = small_run_of(tmp_path) / "stages/label/comparisons.jsonl"
    assert not found.exists() or found.read_text() == ""


def small_run_of(runs: Path) -> Path:
    (found,) = (path for path in runs.iterdir() if (path / "config.yaml").is_file())
    return found


def test_peoples_verdicts_are_pairs_and_agreement(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """MT-bench's rows, with ties; a labeller of length is right where people prefer the longer answer."""
    rows = []
    for i in range(40):
        said = ["No, it is not so.", "Yes."][:: 1 if i % 2 else -1]
        chat = [[{"role": "user", "content": f"Is it {i}?"}, {"role": "assistant", "content": text}] for text in said]
        longer = "model_a" if i % 2 else "model_b"
        winner = "tie" if i % 10 == 0 else longer if i % 4 else ("model_b" if i % 2 else "model_a")
        rows.append({"conversation_a": chat[0], "conversation_b": chat[1], "winner": winner})
    data = write(tmp_path / "mt.jsonl", *rows)
    path = run(tiny, tmp_path / "people", label("people", data=data))
    pairs = pairs_in(path)
    assert len(pairs) == 36 and {g.row["probability"] for g in pairs} == {1.0}
    assert sum(g.completions[0].text.startswith("No") for g in pairs) == 28
    path = run(tiny, tmp_path / "rules", label({"name": "rules", "rules": ["longer"]}, data=data))
    (told,) = small_runs.summary(path)["stages"]
    figures = {k.removeprefix("agreement/"): v for k, v in told["metrics"].items() if k.startswith("agreement/")}
    assert figures["accuracy"]["value"] == pytest.approx(28 / 36) and figures["accuracy"]["n"] == 36
    assert (figures["accuracy/longer"]["value"], figures["accuracy/shorter"]["value"]) == (1.0, 0.0)
    assert 0.3 < figures["kappa"]["value"] < 0.7 and figures["kappa"]["n"] == 40
    assert figures["ece"]["value"] == pytest.approx(8 / 36)
    (note,) = (e["text"] for e in small_runs.events(path, "note") if e["text"].startswith("people and the labeller"))
    assert "on 36 comparisons: accuracy 0.778 (0." in note


def test_preference_rows_are_what_people_said(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """The world's pairs differ in style alone, so a rule for brevity is right more often than not."""
    path = run(tiny, tmp_path, label({"name": "rules", "rules": ["politer", "shorter"]}, data=tiny.data("pairs")))
    (told,) = small_runs.summary(path)["stages"]
    assert told["metrics"]["agreement/accuracy"]["low"] > 0.8
    firsts = [r["first"] for r in comparisons_in(path)]
    assert 12 < sum(firsts) < 36, "which answer is called the first is drawn, or kappa could not be told"


@pytest.mark.parametrize("step", [0, 1])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(step: int, tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    stages = (sample(tiny), label(judge(tmp_path), pairs={"name": "random", "num": 3}))
    whole = run(tiny, tmp_path / "whole", *stages)
    asked = tmp_path / "judge.py.asked"
    before = asked.read_text().splitlines()
    asked.unlink()
    broken, child = recipe(tiny, tmp_path / "broken", *stages), small_runs.Child()
    assert child(broken, at=["step", "label", step], signal=int(signal.SIGKILL)) == -signal.SIGKILL
    again = small_runs.only_run(tmp_path / "broken")
    file = again / "stages/label/comparisons.jsonl"
    assert len(file.read_text().splitlines()) == min(12, 5 * (step + 1))
    file.write_bytes(file.read_bytes() + b'{"prompt": "cut in the midd')  # as a crash while writing leaves it
    strop.run(again, display="quiet")
    for name in ("comparisons.jsonl", "samples.jsonl"):
        assert (again / "stages/label" / name).read_bytes() == (whole / "stages/label" / name).read_bytes()
    assert small_runs.numbers(again) == small_runs.numbers(whole)
    ours, theirs = ([s["metrics"] for s in small_runs.summary(r)["stages"]] for r in (again, whole))
    assert ours == theirs
    assert sorted(asked.read_text().splitlines()) == sorted(before), "nothing was asked twice"


def test_what_cannot_be(tiny: Any, tmp_path: Path) -> None:
    rules = {"name": "rules", "rules": ["shorter"]}
    with pytest.raises(ValueError, match="no row has two answers to compare"):
        run(tiny, tmp_path, label(rules, data=tiny.data("prompts")))
    with pytest.raises(ValueError, match="labeller.*is missing; name who labels: rules, scores, judge or people"):
        run(tiny, tmp_path, label(None))
    with pytest.raises(ValueError, match="nothing reads them: rules labels pairs=random without scores"):
        run(tiny, tmp_path, label(rules, rewards=["number"], data=tiny.data("pairs")))
    with pytest.raises(ValueError, match="no pair is left of 12 prompts"):
        run(tiny, tmp_path, sample(tiny), label({"name": "scores"}))
    no_such = judge(tmp_path, constitution="wrld")
    with pytest.raises(ValueError, match="wrld: no such constitution or file; did you mean world"):
        run(tiny, tmp_path, sample(tiny), label(no_such))
