"""The gate on made-up runs: which evaluations it compares, and what it makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from strop.recipes import artifacts
from strop.recipes.display import make
from strop.recipes.settings import EvaluateStage, Recipe
from strop.recipes.shipping import gate as gates
from strop.recipes.shipping.gate import Gate, judge, rival_of
from strop.recipes.shipping.left import Left, read_left, subject_of
from strop.recipes.shipping.ship import on_this_machine, settings_of
from strop.types import Completion, Group

NUM = 100


def values(share: float, num: int = NUM) -> list[float]:
    return [float(i < share * num) for i in range(num)]


def gate_of(run: Path, *pairs: str, stage: str | None = None) -> Gate:
    left = read_left(run)
    subject = subject_of(left, stage)
    settings, rival = settings_of(left, subject, pairs)
    return judge(subject, settings, run / "ship/checks", rival=rival, show=lambda: make("quiet"))


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> dict[str, EvaluateStage]:
    """The evaluations that the gate asks for; the models answer by `accuracy/<folder's name>` of the environment."""
    asked: dict[str, EvaluateStage] = {}

    def ask(left: Left, wanted: Mapping[str, EvaluateStage], folder: Path, show: Any) -> dict[str, list[Group]]:
        asked.update(wanted)
        found = {}
        for name, stage in wanted.items():
            share = 0.9 if stage.model and "stages" in stage.model else 0.5
            label = stage.rewards[0].label or stage.rewards[0].name
            answers = [(Completion("x", rewards={label: v}),) for v in values(share)]
            found[name] = [Group(f"question {i}", answer) for i, answer in enumerate(answers)]
        return found

    monkeypatch.setattr(gates, "_ask", ask)
    return asked


@pytest.mark.parametrize(
    ("before", "after", "passed", "verdict"),
    [(0.5, 0.9, True, "pass"), (0.9, 0.5, False, "fail"), (0.9, 0.9, True, "pass"), (0.93, 0.9, False, "unclear")],
)
def test_first_and_last_evaluation(made_up: Any, before: float, after: float, passed: bool, verdict: str) -> None:
    made_up.whole(values(before), values(after)[::1])
    if verdict == "unclear":  # some up, some down
        made_up.whole(values(before), [float(i % 10 != 3) for i in range(NUM)])
    found = gate_of(made_up.run)
    (outcome,) = found.outcomes
    assert (found.passed, outcome.verdict) == (passed, verdict), found.lines()
    assert outcome.change is not None and outcome.change.n == NUM
    assert outcome.change.value == pytest.approx(after - before)
    assert found.asked[0].rival == "base" or str(made_up.folder / "base") == found.asked[0].rival
    assert "[" in found.lines()[1] and "n=100" in found.lines()[1]


def test_what_is_unclear_may_be_let_pass(made_up: Any) -> None:
    made_up.whole(values(0.9, 10), values(0.9, 10))
    assert not gate_of(made_up.run).passed
    lenient = gate_of(made_up.run, "unclear=pass")
    assert lenient.passed and lenient.outcomes[0].verdict == "unclear"
    assert gate_of(made_up.run, "margin=0.5").passed


def test_the_weight_says_which_rewards_are_judged_and_which_way(made_up: Any) -> None:
    made_up.whole(values(0.5), values(0.9))
    (watched,) = gate_of(made_up.run).watched  # the second reward's weight is 0; it fell by 0.4
    assert watched.metric == "exact" and watched.change is not None
    assert watched.change.value == pytest.approx(-0.4)
    both = gate_of(made_up.run, "metrics=[number, exact]")
    assert [o.verdict for o in both.outcomes] == ["pass", "fail"] and not both.passed
    less = gate_of(made_up.run, "metrics=[number, -exact]")
    assert less.passed and less.outcomes[1].metric == "-exact"
    with pytest.raises(ValueError, match="no reward style in eval-sft; there are: number, exact"):
        gate_of(made_up.run, "metrics=style")


def test_a_negative_weight_says_that_less_is_better(made_up: Any) -> None:
    made_up.rewards[1]["weight"] = -0.5
    made_up.whole(values(0.5), values(0.9))
    found = gate_of(made_up.run)
    assert [o.metric for o in found.outcomes] == ["number", "-exact"] and found.passed


def test_prompts_are_paired_by_what_they_say_and_not_by_their_place(made_up: Any) -> None:
    made_up.whole(values(0.5), values(0.5))
    path = made_up.run / "stages/eval-start/samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[::-1]))
    entry = made_up.run / "stages/eval-start/stage.json"
    said = json.loads(entry.read_text())
    entry.write_text(json.dumps({**said, "artifact_hashes": {"samples": artifacts.hash_artifact(path)}}))
    change = gate_of(made_up.run).outcomes[0].change
    assert change is not None and change.low is not None and change.low > -0.04  # all differences are 0


def test_changed_answers_are_refused(made_up: Any) -> None:
    made_up.whole(values(0.9), values(0.5))
    path = made_up.run / "stages/eval-sft/samples.jsonl"
    path.write_text(path.read_text().replace('"number": 0.0', '"number": 1.0'))
    with pytest.raises(ValueError, match=r"samples.jsonl: was changed since eval-sft left it"):
        gate_of(made_up.run)


def test_the_model_that_the_run_was_given_is_compared_with_no_other(made_up: Any) -> None:
    """Rounds that never beat the start leave the start; that it beats one of them is no reason to ship it."""
    made_up.whole(values(0.9), values(0.5))
    base = made_up.folder / "base"
    made_up.write(
        made_up.evaluation("eval-start", str(base)),
        made_up.sft(model=str(base)),
        made_up.evaluation("eval-sft", "@sft"),
        {"kind": "best", "name": "peak", "among": ["@eval-start", "@eval-sft"]},
    )
    hash_ = made_up.model(made_up.run / "stages/peak/model", "base")
    made_up.entry(
        "peak",
        "best",
        inputs={"among": "@eval-start, @eval-sft", "model": str(base), "best": "@eval-start"},
        artifacts={"model": "stages/peak/model"},
        artifact_hashes={"model": hash_},
    )
    gate = gate_of(made_up.run)
    assert (gate.subject, gate.passed) == ("peak", False)
    (outcome,) = gate.outcomes
    assert outcome.verdict == "unclear" and "the very weights that the run was given" in outcome.why
    assert len(gate.asked[0].ours) == NUM, "its own answers are told all the same"
    assert not gate_of(made_up.run, "against=sft").outcomes[0].why.startswith("these are")


def test_other_questions_are_not_compared(made_up: Any, sampled: dict[str, EvaluateStage]) -> None:
    """The evaluation before asked other rows, so the starting model is asked again."""
    made_up.whole(values(0.9), values(0.9))
    base = artifacts.hash_folder(made_up.folder / "base")
    made_up.evaluated("eval-start", str(made_up.folder / "base"), base, values(0.9), asks="other rows")
    found = gate_of(made_up.run)
    assert list(sampled) == ["held-out-theirs"] and found.passed
    assert sampled["held-out-theirs"].model == str(made_up.folder / "base")
    assert found.outcomes[0].theirs is not None and found.outcomes[0].theirs.value == pytest.approx(0.5)


def test_a_model_that_was_not_evaluated_is_asked_what_others_were(
    made_up: Any, sampled: dict[str, EvaluateStage]
) -> None:
    made_up.write(
        made_up.evaluation("eval-start", str(made_up.folder / "base")), made_up.sft(model=str(made_up.folder / "base"))
    )
    base = artifacts.hash_folder(made_up.folder / "base")
    made_up.evaluated("eval-start", str(made_up.folder / "base"), base, values(0.3))
    made_up.trained("sft", str(made_up.folder / "base"))
    found = gate_of(made_up.run)
    assert list(sampled) == ["held-out-ours"]
    assert found.outcomes[0].change is not None and found.outcomes[0].change.value == pytest.approx(0.6)


def test_a_run_that_evaluated_nothing(made_up: Any, sampled: dict[str, EvaluateStage]) -> None:
    made_up.write(made_up.sft(model=str(made_up.folder / "base")))
    made_up.trained("sft", str(made_up.folder / "base"))
    nothing = gate_of(made_up.run)
    assert not nothing.passed and "give data=test.jsonl rewards=number" in nothing.reasons[0] and not sampled
    given = gate_of(made_up.run, f"data={made_up.folder}/test.jsonl", "rewards=number")
    assert given.passed and set(sampled) == {"held-out-ours", "held-out-theirs"}
    assert gate_of(made_up.run, "unclear=pass").passed


def test_given_data_stand_in_the_place_of_the_runs(made_up: Any, sampled: dict[str, EvaluateStage]) -> None:
    made_up.whole(values(0.9), values(0.1))
    assert gate_of(made_up.run, f"data={made_up.folder}/test.jsonl", "rewards=number").passed
    assert len(sampled) == 2


def test_safety_and_capability(made_up: Any, sampled: dict[str, EvaluateStage]) -> None:
    made_up.whole(values(0.5), values(0.9))
    file = made_up.folder / "test.jsonl"
    found = gate_of(
        made_up.run,
        f"safety=[{{data: {file}, rewards: number, floor: 0.95}}, {{data: {file}, rewards: exact, floor: 0.8}}]",
        f"capability={{name: sums, data: {file}, rewards: number, margin: 0.1}}",
    )
    assert [(o.of, o.rule, o.verdict) for o in found.outcomes] == [
        ("held-out", "margin", "pass"),
        ("safety", "floor", "fail" if found.outcomes[1].verdict == "fail" else "unclear"),
        ("safety-2", "floor", "pass"),
        ("sums", "margin", "pass"),
    ]
    assert set(sampled) == {"safety-ours", "safety-2-ours", "sums-ours", "sums-theirs"}  # a floor needs no other model
    assert not found.passed and found.outcomes[3].limit == 0.1


def test_sets_are_told_apart_by_names_that_no_file_could_have(made_up: Any, sampled: dict[str, EvaluateStage]) -> None:
    made_up.whole(values(0.5), values(0.9))
    file = made_up.folder / "test.jsonl"
    names = ("вред", "ложь", "a b", "a-b", "x" * 41, "x" * 42)
    sets = ", ".join(f"{{name: {name}, data: {file}, rewards: number, floor: 0.5}}" for name in names)
    found = gate_of(made_up.run, f"safety=[{sets}]")
    assert [o.of for o in found.outcomes] == ["held-out", *names] and len(sampled) == len(names)
    assert all(re.fullmatch(r"[\w-]+", name, re.ASCII) for name in sampled)
    for given in ((), (f"data={file}", "rewards=number")):
        with pytest.raises(ValueError, match="'held-out' is what an evaluation of the gate is called"):
            gate_of(made_up.run, f"safety={{name: held-out, data: {file}, rewards: number}}", *given)


def test_the_starting_model_has_one_name(made_up: Any, sampled: dict[str, EvaluateStage]) -> None:
    made_up.whole(values(0.5), values(0.9))
    found = gate_of(made_up.run, f"capability={{data: {made_up.folder}/test.jsonl, rewards: number, margin: 0.1}}")
    assert set(sampled) == {"capability-ours", "capability-theirs"}
    assert found.to_json()["against"] == [str(made_up.folder / "base")]


def test_an_open_alarm_holds_it_back(made_up: Any) -> None:
    made_up.whole(values(0.5), values(0.9))
    event = {"kind": "alarm", "severity": "alarm", "code": "held_out_falls", "stage": "sft", "step": 20}
    made_up.events({**event, "text": "Reward hacking: the held-out reward fell."})
    found = gate_of(made_up.run)
    assert not found.passed
    assert found.reasons == ["open alarm of sft at step 20: Reward hacking: the held-out reward fell."]
    rolled = {
        "kind": "note",
        "stage": "sft",
        "step": 10,
        "text": "the monitor ended the stage; the model is that of 10",
    }
    made_up.events({**event, "text": "Reward hacking."}, rolled)
    assert gate_of(made_up.run).passed


def test_against_a_stage_a_model_and_another_run(
    made_up: Any, tmp_path: Path, sampled: dict[str, EvaluateStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up.write(
        made_up.evaluation("eval-start", str(made_up.folder / "base")),
        made_up.sft(model=str(made_up.folder / "base")),
        made_up.evaluation("eval-sft", "@sft"),
        made_up.sft("second", model="@sft"),
        made_up.evaluation("eval-second", "@second"),
    )
    base = artifacts.hash_folder(made_up.folder / "base")
    made_up.evaluated("eval-start", str(made_up.folder / "base"), base, values(0.1))
    made_up.evaluated("eval-sft", "@sft", made_up.trained("sft", str(made_up.folder / "base")), values(0.9))
    made_up.evaluated("eval-second", "@second", made_up.trained("second", "@sft"), values(0.5))
    assert gate_of(made_up.run).passed  # 0.1 -> 0.5
    for text in ("@sft", "sft"):
        worse = gate_of(made_up.run, f"against={text}")
        assert worse.outcomes[0].verdict == "fail" and worse.asked[0].rival == "sft"
    assert gate_of(made_up.run, f"against={made_up.folder / 'base'}").passed and not sampled

    other = type(made_up)(tmp_path / "other")
    other.whole(values(0.2), values(0.95))
    theirs = gate_of(made_up.run, f"against={other.run}")
    assert not sampled, "the other run has asked its model the same"
    assert theirs.outcomes[0].verdict == "fail" and theirs.asked[0].rival == "it"

    third = made_up.model(tmp_path / "third", "third")
    fresh = gate_of(made_up.run, f"against={tmp_path / 'third'}")
    assert list(sampled) == ["held-out-theirs"] and third and fresh.outcomes[0].verdict == "pass"
    with pytest.raises(ValueError, match="is the very model that is to ship"):
        gate_of(made_up.run, "against=second")
    with pytest.raises(ValueError, match="no such folder"):
        gate_of(made_up.run, "against=./nowhere/at/all")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"against=other/runz: no such run or model's folder; `strop ls`"):
        gate_of(made_up.run, "against=other/runz")

    def offline(*words: Any) -> Any:
        raise ValueError("cannot load a causal language model from 'sfft'.")

    monkeypatch.setattr(gates, "_ask", offline)
    with pytest.raises(ValueError, match=r"from 'sfft'. against=sfft is no stage of the run \(sft, second\), run or"):
        gate_of(made_up.run, "against=sfft")


def test_a_judges_preference_is_judged_too(made_up: Any) -> None:
    made_up.write(
        made_up.sft(model=str(made_up.folder / "base")),
        made_up.evaluation(
            "eval",
            "@sft",
            rewards=[],
            labeller={"name": "rules", "rules": ["shorter"]},
            baseline=str(made_up.folder / "base"),
        ),
    )
    base = artifacts.hash_folder(made_up.folder / "base")
    left = made_up.trained("sft", str(made_up.folder / "base"))

    def compared(share: float) -> Gate:
        path = made_up.evaluated("eval", "@sft", left, values(0.5))
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row, value in zip(rows, values(share), strict=True):
            row["completions"][0] |= {"rewards": {}, "facts": {"preferred": {"probability": value}}}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        file = made_up.run / "stages/eval/stage.json"
        said = json.loads(file.read_text())
        said["artifact_hashes"]["samples"] = artifacts.hash_artifact(path)
        said["input_hashes"]["baseline"] = base
        file.write_text(json.dumps(said))
        return gate_of(made_up.run, "margin=0.1")

    assert compared(0.7).passed and not compared(0.48).passed
    worse = compared(0.2).outcomes[0]
    assert worse.verdict == "fail" and worse.limit == pytest.approx(0.4) and worse.ours is not None
    assert worse.ours.value == pytest.approx(0.2)


def test_settings_are_checked(made_up: Any) -> None:
    made_up.whole(values(0.5), values(0.9))
    for pair, words in {
        "margin=-1": "margin: must not be negative",
        "margn=0.1": "did you mean margin",
        "rewards=number": "data: is missing",
        "safety=[{floor: 0.9}]": r"safety\[0\].data: is missing",
        "model=x": "name the stage that left it",
        "gguf=q4": "gguf: expected",
        "data=nowhere.jsonl": "nowhere.jsonl",
    }.items():
        with pytest.raises(ValueError, match=words):
            gate_of(made_up.run, pair)
    with pytest.raises(ValueError, match="gguf: converts whole models, and adapter=apart ships none"):
        gate_of(made_up.run, "gguf=f16", "adapter=apart")


def test_a_rival_of_a_run(made_up: Any) -> None:
    made_up.whole(values(0.5), values(0.9))
    found = rival_of(str(made_up.run), read_left(made_up.run))
    assert found.run is not None and found.path.endswith("stages/sft/model")


def test_json_says_it_all(made_up: Any) -> None:
    made_up.whole(values(0.9), values(0.5))
    said = json.loads(json.dumps(gate_of(made_up.run).to_json()))
    assert said["passed"] is False and said["outcomes"][0]["change"]["n"] == NUM
    assert said["outcomes"][0]["verdict"] == "fail" and said["reasons"] and said["alarms"] == []


def test_the_settings_of_the_runs_own_ship_stage_hold(made_up: Any, sampled: dict[str, EvaluateStage]) -> None:
    """Judged again, a model is not spared the sets that held it back."""
    made_up.whole(values(0.5), values(0.9))
    file = made_up.folder / "test.jsonl"
    safety = [{"data": str(file), "rewards": [{"name": "number"}], "floor": 0.99}]
    stage = {"kind": "ship", "name": "gate", "model": "@sft", "margin": 0.2, "safety": safety}
    base = str(made_up.folder / "base")
    start, end = made_up.evaluation("eval-start", base), made_up.evaluation("eval-sft", "@sft")
    made_up.write(start, made_up.sft(model=base), end, {**stage, "against": base})
    found = gate_of(made_up.run)
    assert [(o.of, o.limit, o.verdict) for o in found.outcomes] == [
        ("held-out", 0.2, "pass"),
        ("safety", 0.99, "fail"),
    ]
    assert found.to_json()["against"] == [base] and set(sampled) == {"safety-ours"}
    other = gate_of(made_up.run, "safety=[]", "margin=0.1")
    assert other.passed and [o.limit for o in other.outcomes] == [0.1]
    made_up.write(start, made_up.sft(model=base), end, {**stage, "model": base})
    assert [o.limit for o in gate_of(made_up.run).outcomes] == [0.05], "a stage for another model says nothing"


@pytest.mark.parametrize("pair", ["seed=1", "runs=x", "template=chatml", "evaluation.data=x", "name=x", "stages=[]"])
def test_what_the_run_decided_is_no_setting_of_ship(made_up: Any, pair: str) -> None:
    made_up.whole(values(0.5), values(0.9))
    key = pair.partition("=")[0].partition(".")[0]
    with pytest.raises(ValueError, match=f"^{key}: is the run's, and ship cannot change it"):
        gate_of(made_up.run, pair)


def test_another_machine_than_the_runs(made_up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sampled for the gate is sampled as the command says, with the run's seed and template."""
    made_up.whole(values(0.5), values(0.9))
    config = made_up.run / "config.yaml"
    config.write_text(config.read_text().replace("template: null", "template: r1-zero").replace("seed: 0", "seed: 5"))
    left = on_this_machine(read_left(made_up.run), ["device=cpu", "margin=0.1", "threads=2", "precision=bf16"])
    asked: list[Recipe] = []

    def perform(recipe: Recipe, folder: Path, **more: Any) -> Any:
        asked.append(recipe)
        raise KeyboardInterrupt

    monkeypatch.setattr(gates, "perform", perform)
    settings, _ = settings_of(left, subject_of(left, None), [f"data={made_up.folder}/test.jsonl", "rewards=number"])
    with pytest.raises(KeyboardInterrupt):
        judge(subject_of(left, None), settings, made_up.run / "c", rival=None, show=lambda: make("quiet"))
    (recipe,) = asked
    assert (recipe.device, recipe.threads, recipe.precision) == ("cpu", 2, "bf16")
    assert (recipe.seed, recipe.template) == (5, "r1-zero")
    with pytest.raises(ValueError, match="precision: expected one of"):
        on_this_machine(left, ["precision=fp8"])
