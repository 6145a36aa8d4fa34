"""What `optional`, `evaluation` and `repeat` become, and what is said where they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop import objectives
from strop.recipes import config
from strop.recipes.config import difference, dump, load_recipe, read_recipe, resolve
from strop.recipes.leaving import without
from strop.recipes.settings import BestStage, EvaluateStage, PreferenceStage, Recipe, ScoreStage, SFTStage, Stage
from strop.recipes.sources import RecipeError
from strop.recipes.yaml12 import dump as write_yaml
from strop.rewards import RewardModel

Values = dict[str, Any]

SFT: Values = {"kind": "sft", "name": "sft", "data": "chats.jsonl"}
DPO: Values = {"kind": "preference", "name": "dpo", "model": "@sft", "data": "pairs.jsonl"}
GRPO: Values = {"kind": "rl", "name": "grpo", "model": "@dpo", "data": "q.jsonl", "rewards": "number"}
SAMPLE: Values = {"kind": "sample", "name": "sample", "model": "@sft", "data": "q.jsonl"}
LABEL: Values = {
    "kind": "label",
    "name": "label",
    "data": "@sample",
    "labeller": {"name": "rules", "rules": ["shorter"]},
}
EVALUATION: Values = {"data": "test.jsonl", "rewards": "number"}


def recipe(*stages: Values, **more: Any) -> Values:
    return {"name": "r", "model": "base", "stages": list(stages), **more}


def unset(stage: Values) -> Values:
    return {key: value for key, value in stage.items() if key != "data"}


def problems(ref: Any, overrides: Any = ()) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(ref, overrides)
    return [f"{p.path}: {p.text}" for p in caught.value.problems]


def names(found: Recipe) -> list[str]:
    return [stage.name for stage in found.stages]


def models(found: Recipe) -> dict[str, str | None]:
    return {stage.name: stage.model for stage in found.stages if "model" in stage.models}  # type: ignore[union-attr]


def paths(found: Recipe) -> dict[str, Any]:
    data = {s.name: getattr(s, s.datasets[0]) for s in found.stages if s.datasets}
    return {name: None if value is None else value.path for name, value in data.items()}


def stage(found: Recipe, name: str) -> Stage:
    return next(s for s in found.stages if s.name == name)


# Optional stages.


def test_a_stage_without_data_is_left_out_and_its_name_is_that_of_what_it_would_have_started_from() -> None:
    reading = read_recipe(recipe(SFT, unset(DPO), GRPO, optional=["sft", "dpo", "grpo"]))
    assert models(reading.recipe) == {"sft": None, "grpo": "@sft"}
    assert reading.left_out == ("dpo (no dpo.data)",)


def test_at_the_beginning_that_is_the_recipes_own_model() -> None:
    found = load_recipe(recipe(unset(SFT), {**DPO, "reference": "@sft"}, optional=["sft"]))
    dpo = stage(found, "dpo")
    assert isinstance(dpo, PreferenceStage)
    assert (names(found), dpo.model, dpo.reference) == (["dpo"], "base", "base")


def test_as_data_a_stage_that_is_left_out_vanishes() -> None:
    both = {**DPO, "data": ["@label", "mine.jsonl"]}
    found = load_recipe(recipe(SFT, unset(SAMPLE), LABEL, both, optional=["sample", "label"]))
    assert (names(found), paths(found)["dpo"]) == (["sft", "dpo"], ("mine.jsonl",))


def test_what_reads_only_such_data_goes_with_it_if_it_is_optional() -> None:
    rest = {**DPO, "data": "@label"}
    reading = read_recipe(recipe(SFT, unset(SAMPLE), LABEL, rest, optional=["sample", "label", "dpo"]))
    assert names(reading.recipe) == ["sft"]
    assert reading.left_out[-1] == "dpo (no dpo.data or label.data or sample.data)"
    [found] = problems(recipe(SFT, unset(SAMPLE), LABEL, rest, optional=["sample", "label"]))
    assert found == (
        "stages[3].data: @label: left out, for it has no data; give label.data=FILE, or sample.data, or dpo.data"
    )


def test_data_bring_a_chain_back() -> None:
    whole = recipe(SFT, unset(SAMPLE), LABEL, {**DPO, "data": "@label"}, optional=["sample", "label", "dpo"])
    assert names(load_recipe(whole, ["sample.data=q.jsonl"])) == ["sft", "sample", "label", "dpo"]
    assert names(load_recipe(whole, ["dpo.data=pairs.jsonl"])) == ["sft", "dpo"]


def test_a_setting_of_a_stage_that_is_left_out_is_refused() -> None:
    ref = recipe(SFT, unset(SAMPLE), LABEL, optional=["sample", "label"])
    assert problems(ref, ["label.ties=keep"]) == [
        "stages[2].ties: label is left out, for it has no data, so nothing reads this; "
        "give label.data=FILE, or sample.data"
    ]


def test_what_ships_is_left_out_where_it_could_judge_by_nothing() -> None:
    ship = {"kind": "ship", "name": "ship", "model": "@sft"}
    reading = read_recipe(recipe(SFT, ship, optional=["ship"]))
    assert (names(reading.recipe), reading.left_out) == (["sft"], ("ship (no evaluation.data or ship.data)",))
    assert names(load_recipe(recipe(SFT, ship))) == ["sft", "ship"]
    for more in ({"evaluation": EVALUATION}, {"optional": ["ship"]}):
        given = {**ship, **(EVALUATION if "optional" in more else {})}
        assert names(load_recipe(recipe(SFT, given, **{"optional": ["ship"], **more})))[-1] == "ship"


def test_something_must_be_left_to_do() -> None:
    end = {"kind": "evaluate", "name": "eval", "model": "@sft", "data": "t.jsonl", "rewards": "number"}
    [found] = problems(recipe(unset(SFT), unset(DPO), end, optional=["sft", "dpo"]))
    assert found == "stages: nothing is left to do, for no stage has data; give sft.data or dpo.data"


def test_what_only_judges_would_leave_nothing_to_do_either() -> None:
    ship = {"kind": "ship", "name": "ship", "model": "@sft"}
    said = "stages: nothing is left to do, for no stage has data; give sft.data"
    optional = recipe(unset(SFT), ship, optional=["sft", "ship"])
    assert problems(optional) == [said]
    assert problems({**optional, "evaluation": EVALUATION}) == [said]


def test_optional_names_stages() -> None:
    [found] = problems(recipe(SFT, DPO, optional=["sfd"]))
    assert found == "optional[0]: sfd: no stage of that name; there are: sft, dpo"


def test_no_language_model_stands_for_a_reward_model() -> None:
    reward = {"kind": "reward", "name": "reward"}
    ppo = {"kind": "ppo", "name": "ppo", "data": "q.jsonl", "rewards": [{"name": "model", "path": "@reward"}]}
    [found] = problems(recipe(reward, ppo, optional=["reward"]))
    assert found.startswith("stages[1].rewards[0].path: @reward: reward is left out, and no other model can stand for")


def test_a_recipe_is_resolved_whole_before_its_data_are_known() -> None:
    assert names(resolve(recipe(unset(SFT), unset(DPO), optional=["sft", "dpo"]))) == ["sft", "dpo"]


# Evaluations.


def test_an_evaluation_before_and_behind_each_stage_that_leaves_a_model() -> None:
    found = load_recipe(recipe(SFT, SAMPLE, LABEL, {**DPO, "data": "@label"}, GRPO, evaluation=EVALUATION))
    assert names(found) == [
        "eval-start", "sft", "eval-sft", "sample", "label", "dpo", "eval-dpo", "grpo", "eval-grpo",
    ]  # fmt: skip
    evaluations = [s for s in found.stages if isinstance(s, EvaluateStage)]
    assert [(s.model, s.against and s.against.path) for s in evaluations] == [
        (None, None),
        ("@sft", "@eval-start"),
        ("@dpo", "@eval-sft"),
        ("@grpo", "@eval-dpo"),
    ]
    assert all(s.data is not None and s.data.path == "test.jsonl" and len(s.rewards) == 1 for s in evaluations)


def test_a_flat_recipe_has_one_too() -> None:
    given = ["model=m", "data=pairs.jsonl", "evaluation.data=test.jsonl", "evaluation.rewards=number"]
    assert names(load_recipe("dpo", given)) == ["eval-start", "dpo", "eval-dpo"]
    short = load_recipe("dpo", ["model=m", "data=pairs.jsonl", "evaluation=test.jsonl", "evaluation.rewards=number"])
    assert short == load_recipe("dpo", given)


def test_a_reward_model_is_not_evaluated_as_a_writer() -> None:
    reward = {"kind": "reward", "name": "reward", "data": "pairs.jsonl"}
    found = load_recipe(recipe(reward, SFT, evaluation=EVALUATION))
    assert names(found) == ["eval-start", "reward", "sft", "eval-sft"]
    [said] = problems(recipe(reward, evaluation=EVALUATION))
    assert said == "evaluation: no stage leaves a model that writes text, so there is nothing to evaluate"


def test_a_stage_that_starts_anew_is_compared_with_the_start_and_another_model_with_none() -> None:
    again = {**DPO, "name": "again", "model": "base"}
    other = {**DPO, "name": "other", "model": "elsewhere"}
    average = {"kind": "average", "name": "mean", "members": ["@sft", "@again"]}
    found = load_recipe(recipe(SFT, again, other, average, evaluation=EVALUATION))
    against = {s.name: s.against and s.against.path for s in found.stages if isinstance(s, EvaluateStage)}
    assert (against["eval-again"], against["eval-other"], against["eval-mean"]) == ("@eval-start", None, "@eval-sft")


def test_without_a_model_of_the_recipe_the_first_writers_is_the_start() -> None:
    found = load_recipe({**recipe({**SFT, "model": "mine"}, evaluation=EVALUATION), "model": None})
    assert (models(found)["eval-start"], names(found)) == ("mine", ["eval-start", "sft", "eval-sft"])


def test_an_evaluation_without_data_is_said_and_one_that_is_asked_for_refused() -> None:
    reading = read_recipe(recipe(SFT, evaluation={"num_samples": 4, "sampling": {"temperature": 1.0}}))
    assert (names(reading.recipe), reading.left_out) == (["sft"], ("evaluation (no evaluation.data)",))
    assert read_recipe(recipe(SFT)).left_out == ()
    [found] = problems("dpo", ["model=m", "data=p.jsonl", "evaluation.rewards=number"])
    assert found.startswith("evaluation.rewards: the evaluation is left out, for it has no data")


def test_a_labeller_has_nothing_to_compare_the_first_answers_with() -> None:
    rules = {"name": "rules", "rules": ["shorter"]}
    both = load_recipe(recipe(SFT, evaluation={**EVALUATION, "labeller": rules}))
    first, last = both.stages[0], both.stages[-1]
    assert isinstance(first, EvaluateStage) and isinstance(last, EvaluateStage)
    assert first.labeller is None and last.labeller is not None and last.against is not None
    alone = load_recipe(recipe(SFT, evaluation={"data": "test.jsonl", "labeller": rules}))
    assert [s.kind for s in alone.stages] == ["sample", "sft", "evaluate"]
    assert (names(alone), paths(alone)["eval-start"]) == (["eval-start", "sft", "eval-sft"], "test.jsonl")


def test_a_reference_is_one_once_it_is_there() -> None:
    sampling = {"temperature": 1.0}
    found = load_recipe(recipe(SFT, DPO, evaluation={**EVALUATION, "reference": "@sft", "sampling": sampling}))
    references = {s.name: s.reference for s in found.stages if isinstance(s, EvaluateStage)}
    assert references == {"eval-start": None, "eval-sft": "@sft", "eval-dpo": "@sft"}
    alone = {**EVALUATION, "rewards": [], "reference": "@sft", "sampling": sampling}
    assert [s.kind for s in load_recipe(recipe(SFT, evaluation=alone)).stages] == ["sample", "sft", "evaluate"]
    said = problems(recipe(SFT, evaluation={**EVALUATION, "reference": "@sfd", "sampling": sampling}))
    assert said[0].startswith("evaluation.reference: @sfd: no earlier stage of that name")


def test_wrong_settings_of_an_evaluation_are_said_once_and_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("""\
kind: sft
model: m
data: c.jsonl
evaluation:
  data: t.jsonl
  num_samples: 0
  model: x
  rewards: number
""")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert [str(p) for p in caught.value.problems] == [
        f"{path}:7: evaluation.model: follows from the stage that is evaluated; for another evaluation write a stage "
        "of kind evaluate",
        f"{path}:6: evaluation.num_samples: must be at least 1, got 0",
    ]


def test_a_stage_may_not_have_an_evaluations_name() -> None:
    mine = {"kind": "evaluate", "name": "eval-sft", "model": "@sft", **EVALUATION}
    found = problems(recipe(SFT, mine, evaluation=EVALUATION))
    assert found == [
        "stages[1].name: two stages would be called 'eval-sft'; give the one that is written so another name"
    ]


# Rounds.


def block(*stages: Values, **more: Any) -> Values:
    return {"kind": "repeat", "name": "rounds", "times": 3, "stages": list(stages), **more}


def test_rounds_are_written_out_one_after_the_other() -> None:
    found = load_recipe(
        recipe(
            SFT,
            block(
                {**SAMPLE, "model": "@dpo"}, LABEL, {**DPO, "model": "@dpo", "data": "@label"}, first={"dpo": "@sft"}
            ),
            {**GRPO},
        )
    )
    assert names(found) == [
        "sft", "sample-1", "label-1", "dpo-1", "sample-2", "label-2", "dpo-2", "sample-3", "label-3", "dpo-3", "grpo",
    ]  # fmt: skip
    assert models(found) == {
        "sft": None, "sample-1": "@sft", "dpo-1": "@sft", "sample-2": "@dpo-1", "dpo-2": "@dpo-1",
        "sample-3": "@dpo-2", "dpo-3": "@dpo-2", "grpo": "@dpo-3",
    }  # fmt: skip
    assert [paths(found)[f"label-{i}"] for i in (1, 2, 3)] == ["@sample-1", "@sample-2", "@sample-3"]


def test_without_first_the_first_round_starts_from_the_recipes_model() -> None:
    found = load_recipe(recipe(block({**DPO, "model": "@dpo"}, times=2)))
    assert models(found) == {"dpo-1": "base", "dpo-2": "@dpo-1"}


def test_the_data_of_all_rounds_so_far() -> None:
    sample = {**SAMPLE, "model": "@dpo"}
    dpo = {**DPO, "model": "@dpo", "data": ["old.jsonl", "@label*"]}
    late = {**SFT, "name": "late", "model": "@dpo", "data": ["chats.jsonl", "@late-pick*"]}
    pick = {"kind": "select", "name": "late-pick", "data": "@sample", "keep": ["best"]}
    after = {**SFT, "name": "end", "model": "@dpo", "data": "@late-pick*"}
    found = paths(load_recipe(recipe(block(sample, LABEL, dpo, late, pick, times=2), after)))
    assert (found["dpo-1"], found["dpo-2"]) == (("old.jsonl", "@label-1"), ("old.jsonl", "@label-1", "@label-2"))
    assert (found["late-1"], found["late-2"]) == (("chats.jsonl",), ("chats.jsonl", "@late-pick-1"))
    assert found["end"] == ("@late-pick-1", "@late-pick-2")


def test_a_reward_model_of_the_round_before_needs_one_to_begin_with() -> None:
    scored = {
        **SAMPLE,
        "kind": "score",
        "name": "score",
        "data": "s.jsonl",
        "rewards": [{"name": "model", "path": "@reward"}],
    }
    del scored["model"]
    reward = {"kind": "reward", "name": "reward", "data": "pairs.jsonl", "model": "@reward"}
    [said] = problems(recipe(block(scored, reward, times=2)))
    assert said == (
        "stages[0].stages[0].rewards[0].path: @reward: in the first round there is no reward yet, and no other model "
        "can stand for it; say which, as first: {reward: MODEL} of the block"
    )
    found = load_recipe(recipe(block(scored, reward, times=2, first={"reward": "rm"})))
    asked = [s.rewards[0] for s in found.stages if isinstance(s, ScoreStage)]
    assert [r.path for r in asked if isinstance(r, RewardModel)] == ["rm", "@reward-1"]
    assert models(found) == {"reward-1": "rm", "reward-2": "@reward-1"}


def test_a_block_may_go_on_from_another() -> None:
    second = {**DPO, "name": "more", "model": "@more"}
    found = load_recipe(
        recipe(block({**DPO, "model": "@dpo"}, times=2), block(second, name="again", first={"more": "@dpo"}, times=2))
    )
    assert models(found) == {"dpo-1": "base", "dpo-2": "@dpo-1", "more-1": "@dpo-2", "more-2": "@more-1"}


def test_overrides_name_the_block_and_its_stages() -> None:
    ref = recipe(SFT, block({**DPO, "model": "@dpo"}, first={"dpo": "@sft"}))
    pairs = ["rounds.times=2", "dpo.objective.beta=0.4", "sft.training.steps=3"]
    found = load_recipe(ref, pairs)
    assert names(found) == ["sft", "dpo-1", "dpo-2"]
    assert [s.objective for s in found.stages if isinstance(s, PreferenceStage)] == [objectives.DPO(beta=0.4)] * 2
    assert difference(ref, pairs) == [
        "sft.training.steps: null -> 3",
        "rounds.times: 3 -> 2",
        "dpo.objective.beta: 0.1 -> 0.4",
    ]
    [said] = problems(ref, ["dpo-2.objective.beta=0.4"])
    assert said.startswith("dpo-2: unknown; did you mean dpo?")


def test_mistakes_in_a_block_are_said_with_their_line(tmp_path: Path) -> None:
    text = """\
name: r
model: m
stages:
  - kind: repeat
    name: rounds
    times: 0
    first: {pdo: x}
    stages:
      - {kind: preference, name: dpo, model: "@dpo", data: p.jsonl, objective: {name: dpo, betta: 1}}
      - {kind: sft, name: rounds, model: "@dpo"}
"""
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    found = [str(p).removeprefix(f"{path}:") for p in caught.value.problems]
    assert found[0].startswith("9: stages[0].stages[0].objective.betta: unknown; did you mean beta?")
    assert "6: stages[0].times: must be at least 1, got 0" in found
    assert "7: stages[0].first.pdo: no stage of the block is called so; there are: dpo, rounds" in found
    assert any(
        line.startswith("10: stages[0].stages[1].name: 'rounds' is the name of stages[0] already") for line in found
    )


def test_a_wrong_setting_is_said_once_for_all_rounds() -> None:
    [found] = problems(recipe(block({**DPO, "model": "@dpo", "training": {"batch_size": 0}})))
    assert found == "stages[0].stages[0].training.batch_size: must be at least 1, got 0"


def test_a_name_that_no_stage_has_is_said_once_for_all_rounds() -> None:
    [found] = problems(recipe(block({**SAMPLE, "model": "@dop"}, {**DPO, "data": "@sample", "model": "@dpo"})))
    assert found == (
        "stages[0].stages[0].model: @dop: no stage of that name; did you mean @dpo? there are: sample, dpo"
    )
    [found] = problems(recipe(SFT, block({**DPO, "model": "@dpo"}), {**GRPO, "model": "@sft-1"}))
    assert found == "stages[2].model: @sft-1: no earlier stage of that name; earlier stages: sft, dpo-1, dpo-2, dpo-3"


def test_without_stages_no_more_is_said() -> None:
    assert problems(recipe(optional=["sft"], evaluation=EVALUATION)) == ["stages: no stages; a recipe has at least one"]


def test_rounds_do_not_nest_and_need_their_number() -> None:
    [found] = problems(recipe(block(block(SFT, name="inner"))))
    assert found.startswith("stages[0].stages[0].kind: rounds hold no rounds; allowed: sft")
    bare = {key: value for key, value in block(SFT).items() if key != "times"}
    assert problems(recipe(bare)) == ["stages[0].times: is required: a whole number"]


@pytest.mark.parametrize("times", [0, -1, 1.5])
def test_a_wrong_number_of_rounds_is_all_that_is_said(times: float) -> None:
    block = {"kind": "repeat", "name": "rounds", "times": times, "stages": [SFT]}
    (found,) = problems(recipe(unset({**SFT, "name": "warm"}), block, optional=["warm"], evaluation=EVALUATION))
    assert found.startswith("stages[1].times: ")


def test_optional_stages_of_a_block() -> None:
    dpo = {**DPO, "model": "@grpo", "data": "@label"}
    ref = recipe(
        SFT, block(unset({**SAMPLE, "model": "@grpo"}), LABEL, dpo, GRPO, times=2, first={"grpo": "@sft"}),
        optional=["sample", "label", "dpo"],
    )  # fmt: skip
    assert models(load_recipe(ref)) == {"sft": None, "grpo-1": "@sft", "grpo-2": "@grpo-1"}
    whole = load_recipe(ref, ["sample.data=q.jsonl"])
    assert models(whole)["grpo-2"] == "@dpo-2" and models(whole)["dpo-2"] == "@grpo-1"


def test_a_left_out_stage_of_a_block_that_goes_on_from_itself_is_what_it_would_have_begun_with() -> None:
    again = {"kind": "online", "name": "again", "model": "@again", "rewards": "number"}
    dpo = {**DPO, "model": "@dpo", "reference": "@again"}
    ref = recipe(SFT, block(again, dpo, times=2, first={"again": "@sft", "dpo": "@sft"}), optional=["again"])
    found = load_recipe(ref)
    assert [stage(found, f"dpo-{i}").reference for i in (1, 2)] == ["@sft", "@sft"]  # type: ignore[union-attr]


# The best of them.

PEAK: Values = {"kind": "best", "name": "peak", "among": "@eval*", "metric": "number"}


def rounds(**more: Any) -> Recipe:
    dpo = {**DPO, "model": "@dpo"}
    peak = {**PEAK, **more}
    return load_recipe(recipe(SFT, block(dpo, peak, first={"dpo": "@sft"}), evaluation=EVALUATION))


def test_each_rounds_best_is_of_all_evaluations_so_far_and_may_end_the_rounds() -> None:
    found = rounds(patience=1)
    assert names(found) == [
        "eval-start", "sft", "eval-sft", "dpo-1", "eval-dpo-1", "peak-1", "dpo-2", "eval-dpo-2", "peak-2",
        "dpo-3", "eval-dpo-3", "peak-3", "eval-peak-3",
    ]  # fmt: skip
    peaks = [s for s in found.stages if isinstance(s, BestStage)]
    before = ("@eval-start", "@eval-sft")
    assert peaks[0].among == (before, ("@eval-dpo-1",))
    assert peaks[2].among == (before, ("@eval-dpo-1",), ("@eval-dpo-2",), ("@eval-dpo-3",))
    assert [s.skips for s in peaks] == [("dpo-2", "eval-dpo-2", "dpo-3", "eval-dpo-3"), ("dpo-3", "eval-dpo-3"), ()]
    assert all(s.skips == () for s in rounds().stages if isinstance(s, BestStage))


def test_an_evaluation_of_a_block_stands_for_its_rounds_so_far() -> None:
    peaks = [s for s in rounds(among="@eval-dpo").stages if isinstance(s, BestStage)]
    assert [s.among for s in peaks[:2]] == [(("@eval-dpo-1",),), (("@eval-dpo-1",), ("@eval-dpo-2",))]


def test_what_may_be_compared() -> None:
    [found] = problems(recipe(SFT, {**PEAK, "among": "@test*"}, evaluation=EVALUATION))
    assert found == (
        "stages[1].among[0]: @test*: no evaluation that stands before is called so; there are: @eval-start, @eval-sft"
    )
    [found] = problems(recipe(SFT, PEAK))
    assert found.endswith("there are: none; give evaluation.data=FILE")
    [found] = problems(recipe(SFT, {"kind": "best", "name": "peak"}))
    assert found.endswith("there are: none; give evaluation.data=FILE")
    other = {"kind": "evaluate", "name": "eval-hard", "model": "@sft", "data": "hard.jsonl", "rewards": "number"}
    [found] = problems(recipe(SFT, other, PEAK, evaluation=EVALUATION))
    assert found == (
        "stages[2].among: evaluations of different rows or rewards: eval-start, eval-sft, eval-hard; name those alike"
    )
    several = problems(recipe(SFT, {"kind": "best", "name": "peak", "skips": ["x"]}, evaluation=EVALUATION))
    assert [line.partition(":")[0] for line in several] == ["stages[1].skips", "stages[1].skips[0]"]
    unscored = {"kind": "best", "name": "peak"}
    [found] = problems(recipe(SFT, unscored, evaluation={"data": "pairs.jsonl"}))
    assert found == (
        "stages[1].metric: is missing, and no evaluation has a reward that counts; name one of their figures, "
        "as peak.metric=eval_loss"
    )


def test_the_best_goes_by_the_first_reward_that_counts() -> None:
    watched = [{"name": "regex", "pattern": "x", "weight": 0}, {"name": "number", "label": "right"}]
    unnamed = {"kind": "best", "name": "peak"}
    found = load_recipe(recipe(SFT, unnamed, evaluation={"data": "test.jsonl", "rewards": watched}))
    peak = stage(found, "peak")
    assert isinstance(peak, BestStage) and peak.metric == "right"


def test_a_skipped_rounds_names_are_those_of_the_last_that_was_run() -> None:
    end = {**SFT, "name": "end", "model": "@dpo", "data": ["x.jsonl", "@label*"]}
    sample = {**SAMPLE, "model": "@dpo"}
    dpo = {**DPO, "model": "@dpo", "data": "@label"}
    whole = recipe(
        SFT, block(sample, LABEL, dpo, {**PEAK, "patience": 1}, first={"dpo": "@sft"}), end, evaluation=EVALUATION
    )
    found = load_recipe(whole)
    (second,) = (s for s in found.stages if s.name == "peak-2")
    assert isinstance(second, BestStage)
    left = without(found, second.skips)
    assert models(left)["end"] == "@dpo-2"
    assert paths(left)["end"] == ("x.jsonl", "@label-1", "@label-2")
    assert stage(left, "peak-3").among == second.among  # type: ignore[union-attr]
    (first,) = (s for s in found.stages if s.name == "peak-1")
    assert isinstance(first, BestStage)
    assert models(without(found, first.skips))["end"] == "@dpo-1"


def test_data_that_may_be_skipped_and_have_no_stand_in_are_refused() -> None:
    peak = {**PEAK, "patience": 1, "skips": ["sample", "dpo"]}
    end = {**SFT, "name": "end", "model": "@dpo", "data": "@sample"}
    found = problems(recipe(SFT, peak, SAMPLE, DPO, end, evaluation=EVALUATION))
    assert "stages[4].data: @sample: may be skipped, by peak; name what is always there too" in found


# The whole.


@pytest.mark.parametrize(
    "ref",
    [
        recipe(SFT, DPO, evaluation=EVALUATION),
        recipe(SFT, block({**DPO, "model": "@dpo"}, {**PEAK, "patience": 2}), evaluation=EVALUATION),
        recipe(unset(SFT), {**DPO, "data": ["@sft", "x"]}, GRPO, optional=["sft"]),
    ],
)  # fmt: skip
def test_what_was_expanded_loads_back_equal(ref: Values, tmp_path: Path) -> None:
    found = load_recipe(ref)
    path = tmp_path / "config.yaml"
    path.write_text(dump(found))
    assert load_recipe(str(path)) == found
    assert load_recipe(write(tmp_path, ref)) == found


def write(folder: Path, ref: Values) -> str:
    path = folder / "written.yaml"
    path.write_text(write_yaml(ref))
    return str(path)


def test_stages_with_wrong_types_are_expanded_around() -> None:
    wrong = recipe({**SFT, "training": 5}, block({"kind": "preference", "objective": []}), evaluation=[1, {}])
    found = problems(wrong)
    assert any(line.startswith("stages[0].training:") for line in found)
    assert any(line.startswith("evaluation.data.path") for line in found)
    assert config.RecipeError is RecipeError and SFTStage().name == "sft"


def test_a_recipe_without_a_model_is_told_so_once_and_not_of_its_evaluation() -> None:
    given = {
        "name": "sft",
        "kind": "sft",
        "data": "chats.jsonl",
        "evaluation": {"data": "t.jsonl", "rewards": "number"},
    }
    with pytest.raises(ValueError, match=r"^recipe: model: is missing; name it[^\n]*$"):
        load_recipe(given)
