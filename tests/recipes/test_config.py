from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from strop.objectives import DPO, IPO
from strop.recipes import config
from strop.recipes.config import difference, dump, load_recipe, resolve
from strop.recipes.settings import (
    AverageStage,
    EvaluateStage,
    PreferenceStage,
    Recipe,
    Repeat,
    RLStage,
    SFTStage,
    Written,
)
from strop.recipes.sources import RecipeError, builtin_names
from strop.rewards import Custom
from strop.train.optim import AdamW, Muon

GIVEN = ["model=m", "data=pairs.jsonl"]

THREE = """\
name: three
model: base
stages:
  - kind: sft
    name: sft
    data: chats.jsonl
  - kind: preference
    name: dpo
    model: @sft
    data: {path: pairs.jsonl}
    objective: {name: dpo, beta: 0.3}
  - kind: evaluate
    name: eval
    model: @dpo
    data: test.jsonl
    rewards: number
"""


def write(folder: Path, text: str, name: str = "r.yaml") -> str:
    path = folder / name
    path.write_text(text, "utf-8")
    return str(path)


def problems(ref: Any, overrides: Any = ()) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(ref, overrides)
    return [f"{p.path}: {p.text}" for p in caught.value.problems]


def polite(completion: str, row: dict[str, Any]) -> float:
    return 1.0


def dpo(overrides: Any = (), ref: Any = "dpo") -> PreferenceStage:
    pairs = overrides if isinstance(overrides, dict) else [*GIVEN, *overrides]
    stage = load_recipe(ref, pairs).stages[0]
    assert isinstance(stage, PreferenceStage)
    return stage


def rl(*overrides: str) -> RLStage:
    stage = load_recipe("grpo", ["model=m", "data=q.jsonl", *overrides]).stages[0]
    assert isinstance(stage, RLStage)
    return stage


# Reading.


def test_a_flat_recipe_is_one_stage_named_as_the_recipe() -> None:
    recipe = load_recipe("dpo", GIVEN)
    assert (recipe.name, recipe.model, len(recipe.stages)) == ("dpo", "m", 1)
    assert (recipe.stages[0].name, recipe.stages[0].model) == ("dpo", None)


def test_stages_keep_their_order_and_what_they_refer_to(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, THREE))
    assert [stage.name for stage in recipe.stages] == ["sft", "dpo", "eval"]
    assert [stage.model for stage in recipe.stages] == [None, "@sft", "@dpo"]


def test_partial_settings_keep_the_stage_kinds_own_defaults(tmp_path: Path) -> None:
    """An RL stage's max_length is 4096, and naming another training setting must not make it 2048."""
    text = "kind: rl\nmodel: m\ndata: q\nrewards: number\ntraining: {steps: 5}\noptimizer: {weight_decay: 0.1}\n"
    stage = load_recipe(write(tmp_path, text)).stages[0]
    assert isinstance(stage, RLStage)
    assert (stage.training.steps, stage.training.max_length) == (5, 4096)
    assert stage.optimizer == AdamW(lr=1e-6, weight_decay=0.1)


def test_later_files_and_then_overrides_are_laid_over_earlier_ones(tmp_path: Path) -> None:
    mine = write(tmp_path, "objective: {beta: 0.5}\ntraining: {steps: 7}\ndata: mine.jsonl\n", "mine.yaml")
    recipe = load_recipe(["dpo", mine], ["model=m", "training.steps=9"])
    stage = recipe.stages[0]
    assert isinstance(stage, PreferenceStage) and stage.data is not None
    assert (stage.objective, stage.training.steps, stage.data.path) == (DPO(beta=0.5), 9, "mine.jsonl")
    assert stage.training.eval_fraction == 0.05  # from dpo.yaml


def test_a_recipe_may_be_a_mapping_with_settings_objects() -> None:
    recipe = load_recipe({"kind": "preference", "model": "m", "data": Path("p.jsonl"), "objective": IPO(tau=0.2)})
    assert isinstance(recipe.stages[0], PreferenceStage)
    assert recipe.stages[0].objective == IPO(tau=0.2)


@pytest.mark.parametrize("name", builtin_names())
def test_every_built_in_recipe_is_sound(name: str) -> None:
    recipe = resolve(name)
    assert recipe.description
    loaded = load_recipe(name, missing(config._written(name, ())))
    names = [[s.name for s in found.stages if s.kind != "evaluate"] for found in (loaded, recipe)]
    assert names[0] == names[1]


def missing(recipe: Written) -> list[str]:
    """What only the user can know: the model or models, each stage's data, its rewards, and what to evaluate on."""
    pairs = ["model=m"] if recipe.model is None else []
    pairs += [f"{text}=m" for text in recipe.optional if "." in text]
    stages = [s for entry in recipe.stages for s in (entry.stages if isinstance(entry, Repeat) else (entry,))]
    for stage in stages:
        before = f"{stage.name}." if len(recipe.stages) > 1 else ""
        if "data" in stage.datasets and getattr(stage, "data", None) is None:
            pairs.append(f"{before}data=rows.jsonl")
        if ("rewards",) in [path for path, _ in stage.problems()]:
            pairs.append(f"{before}rewards=number")
        if isinstance(stage, AverageStage) and not stage.members:
            pairs.append(f"{before}members=[a, b]")
        if stage.kind == "refresh":
            pairs += [
                f"{before}{key}" for key in ("policy=p", "old=pairs.jsonl") if getattr(stage, key.split("=")[0]) is None
            ]
        if stage.kind in ("ship", "best"):
            pairs += ["evaluation.data=rows.jsonl", "evaluation.rewards=number"]
    return list(dict.fromkeys(pairs))


# Shorthands and overrides.


def test_shorthands_mean_the_long_forms() -> None:
    short = load_recipe("grpo", ["model=m", "data=q.jsonl", "rewards=number", "sampling.stop=END", "optimizer=muon"])
    long = load_recipe(
        "grpo",
        {
            "model": "m",
            "data": {"path": "q.jsonl"},
            "rewards": [{"name": "number"}],
            "sampling.stop": ["END"],
            "optimizer.name": "muon",
        },
    )
    assert short == long
    assert isinstance(short.stages[0], RLStage)
    assert short.stages[0].sampling.stop == ("END",)


def test_rewards_may_be_mixed_and_reached_by_place() -> None:
    stage = rl("rewards=[number, {name: tags}, mine.py:polite]", "rewards.1.weight=2")
    assert [r.name for r in stage.rewards] == ["number", "tags", "custom"]
    assert [r.weight for r in stage.rewards] == [1.0, 2.0, 1.0]
    assert stage.rewards[2] == Custom(function="mine.py:polite", label="polite")


def test_a_function_stands_in_a_recipe_by_its_importable_name() -> None:
    recipe = load_recipe("grpo", {"model": "m", "data": "q", "rewards": [polite]})
    assert isinstance(recipe.stages[0], RLStage)
    assert recipe.stages[0].rewards == (Custom(function=f"{__name__}:polite", label="polite"),)


def test_lambdas_and_closures_are_refused() -> None:
    def inner(completion: str, row: dict[str, Any]) -> float:
        return 0.0

    for function, word in ((lambda c, r: 0.0, "lambda"), (inner, "inside another function")):
        with pytest.raises(ValueError, match=word):
            load_recipe("grpo", {"model": "m", "data": "q", "rewards": [function]})


def test_overrides_reach_stages_by_name_by_place_and_the_recipe(tmp_path: Path) -> None:
    ref = write(tmp_path, THREE)
    pairs = ["dpo.objective.beta=0.7", "stages.0.training.steps=5", "seed=3", "eval.data.limit=10", "model=other"]
    recipe = load_recipe(ref, pairs)
    sft, preference, evaluation = recipe.stages
    assert isinstance(sft, SFTStage) and isinstance(preference, PreferenceStage)
    assert isinstance(evaluation, EvaluateStage) and evaluation.data is not None
    assert (recipe.seed, recipe.model, sft.training.steps, evaluation.data.limit) == (3, "other", 5, 10)
    assert preference.objective == DPO(beta=0.7)


def test_a_later_file_may_name_stages_as_the_recipe_does(tmp_path: Path) -> None:
    mine = write(tmp_path, "model: m\nsft: {data: mine.jsonl, training: {steps: 5}}\neval: {data: t.jsonl}\n", "m.yaml")
    sft, _, evaluation = load_recipe([write(tmp_path, THREE), mine], ["sft.training.batch_size=4"]).stages
    assert isinstance(sft, SFTStage) and sft.data is not None
    assert (sft.data.path, sft.training.steps, sft.training.batch_size) == ("mine.jsonl", 5, 4)
    assert isinstance(evaluation, EvaluateStage) and evaluation.data is not None and evaluation.rewards
    assert problems(write(tmp_path, THREE), ["sft=x"])[0].startswith("sft: is a stage; say which setting")


def test_another_variant_drops_what_only_the_recipe_said() -> None:
    assert dpo(["objective=ipo"]).objective == IPO()
    assert dpo(["objective.tau=0.4", "objective=ipo"]).objective == IPO(tau=0.4)
    assert dpo(["optimizer=muon", "optimizer.lr=0.02"]).optimizer == Muon(lr=0.02)


def test_another_variant_does_not_drop_what_the_user_said() -> None:
    for pairs in (["objective.beta=0.2", "objective=ipo"], ["objective=ipo", "objective.beta=0.2"]):
        [found] = problems("dpo", [*GIVEN, *pairs])
        assert found.startswith("objective.beta: unknown to ipo, a setting of dpo")


def test_values_of_overrides_are_yaml_1_2() -> None:
    stage = dpo(["optimizer.lr=1e-5", "data.columns={chosen: no}", "data.system=on"])
    assert stage.optimizer == AdamW(lr=1e-5)
    assert stage.data is not None and (stage.data.columns, stage.data.system) == ({"chosen": "no"}, "on")


# Errors.


def test_an_unknown_key_is_said_with_file_line_path_and_the_nearest(tmp_path: Path) -> None:
    ref = write(tmp_path, THREE.replace("beta: 0.3", "betta: 0.3"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(ref)
    assert str(caught.value) == (
        f"{ref}:11: stages[1].objective.betta: unknown; did you mean beta? "
        "allowed: beta, label_smoothing, margin, mask_formatting, name, nll_weight, soft_labels"
    )


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("steps=1", "training.steps"),
        ("beta=1", "objective.beta"),
        ("lr=1", "optimizer.lr"),
        ("warmup=1", "schedule.warmup"),
        ("learning_rate=1", "optimizer.lr"),
        ("num_train_epochs=1", "training.epochs"),
        ("modle=x", "model"),
        ("sed=1", "seed"),
        ("training.lr=1", "optimizer.lr"),
        ("batchsize=1", "training.batch_size"),
    ],
)
def test_a_key_at_the_wrong_place_is_led_to_the_right_one(key: str, suggestion: str) -> None:
    [found] = problems("dpo", [*GIVEN, key])
    assert found.startswith(f"{key.partition('=')[0]}: unknown; did you mean {suggestion}?")


def test_a_setting_of_sampling_is_found_from_a_stage_that_samples() -> None:
    [found] = problems("grpo", ["model=m", "data=q", "rewards=number", "temperature=0.7"])
    assert found.startswith("temperature: unknown; did you mean sampling.temperature?")


def test_an_unknown_stage_or_variant_names_those_there_are(tmp_path: Path) -> None:
    ref = write(tmp_path, THREE)
    [found] = problems(ref, ["dpoo.objective.beta=1"])
    assert found.startswith("dpoo: unknown; did you mean dpo? known: sft, dpo, ")
    [found] = problems(ref, ["rewards=number"])
    assert found.startswith("rewards: unknown; begin with a stage's name, as eval.rewards; known: sft, dpo, ")
    [found] = problems(ref, ["eval=null"])
    assert found == "eval: is a stage; say which setting, as eval.data=FILE"
    [found] = problems(ref, ["colour=red"])
    assert found.startswith("colour: unknown; known: sft, dpo, ")
    [found] = problems("dpo", [*GIVEN, "objective=dpoo"])
    assert found.startswith("objective.name: no such name: dpoo; did you mean dpo? allowed: dpo, robust, ")


def test_all_errors_are_said_at_once_and_none_twice(tmp_path: Path) -> None:
    text = """\
name: bad
stages:
  - kind: sft
    name: model
    trainin: {steps: 5}
  - kind: rl
    name: a/b
    model: @nope
    data: q.jsonl
    rewards: [{name: number, weight: 0}]
    num_generations: 1
    training: {batch_size: many, steps: 0}
"""
    found = problems(write(tmp_path, text), ["stages.9.name=x", "oops"])
    starts = {line.partition(":")[0] for line in found}
    assert starts == {
        "",
        "stages",
        "stages[0].trainin",
        "stages[0].name",
        "stages[0].model",
        "stages[0].data",
        "stages[1].name",
        "stages[1].model",
        "stages[1].rewards",
        "stages[1].num_generations",
        "stages[1].training.batch_size",
        "stages[1].training.steps",
    }
    assert len(found) == len(starts)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.steps=abc", "training.steps: expected a whole number or null, got abc (a text)"),
        ("training.steps=1e3", "training.steps: expected a whole number or null, got 1000.0"),
        ("training.batch_size=true", "training.batch_size: expected a whole number, got true"),
        ("training.max_grad_norm=no", "training.max_grad_norm: expected a number, got no (a text)"),
        ("training.max_grad_norm=.nan", "training.max_grad_norm: expected a number, got nan"),
        ("precision=fp8", "precision: expected one of auto, fp32, bf16, got fp8 (a text)"),
        ("objective=3", "objective: expected a mapping or one of dpo, robust, "),
        ("data.columns=x", "data.columns: expected a mapping, got x (a text)"),
        ("training=5", "training: expected a mapping, got 5"),
        ("objective.beta=-1", "objective.beta: beta must be positive, got -1.0"),
    ],
)
def test_a_wrong_type_says_what_was_expected_and_given(override: str, words: str) -> None:
    [found] = problems("dpo", [*GIVEN, override])
    assert found.startswith(words)


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("training.steps=0", "training.steps"),
        ("training.batch_size=0", "training.batch_size"),
        ("training.eval_fraction=1", "training.eval_fraction"),
        ("training.eval_fraction=-0.1", "training.eval_fraction"),
        ("training.epochs=0", "training.epochs"),
        ("num_generations=1", "num_generations"),
        ("minibatches=33", "minibatches"),
        ("rewards=[]", "rewards"),
        ("rewards.0.weight=0", "rewards"),
        ("rewards=[number, number]", "rewards[1]"),
        ("sampling.temperature=0", "sampling.temperature"),
        ("sampling.top_p=0.9", "sampling.top_p"),
        ("sampling.stop=''", "sampling.stop"),
        ("model=@sft", "model"),
        ("reference=@sft", "reference"),
        ("data=@sft", "data.path"),
        ("data=null", "data"),
        ("data=''", "data.path"),
        ("seed=-1", "seed"),
        ("threads=0", "threads"),
        ("device=tpu", "device"),
        ("name=../up", "name"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(override: str, path: str) -> None:
    found = problems("grpo", ["model=m", "data=q.jsonl", "rewards=number", "objective.beta=0.1", override])
    assert [line.partition(":")[0] for line in found] == [path]


@pytest.mark.parametrize("recipe", ["dpo", "online-dpo"])
def test_a_reference_that_the_loss_does_not_read_is_refused(recipe: str) -> None:
    given = ["model=m", "data=q.jsonl", *(["rewards=number"] if recipe == "online-dpo" else [])]
    found = problems(recipe, [*given, "objective=simpo", "reference=other"])
    assert found == ["reference: nothing reads it: simpo has no reference in its loss"]
    load_recipe(recipe, [*given, "reference=other"])


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        ("@dpo", "@sf", "stages[2].model", "no earlier stage of that name; earlier stages: sft, dpo"),
        ("model: @sft", "model: @dpo", "stages[1].model", "no earlier stage of that name; earlier stages: sft"),
        ("model: @sft\n", "reference: @sft\n", "stages[1].model", "is missing; name it, as model: @sft"),
        ("data: test.jsonl", "data: @dpo", "stages[2].data.path", "leaves no samples"),
        ("name: dpo\n    model", "name: SFT\n    model", "stages[1].name", "is the name of stages[0] already"),
        ("name: sft", "name: ..", "stages[0].name", "names a folder"),
        ("name: sft", "name: a/../b", "stages[0].name", "names a folder"),
        ("name: sft", "name: seed", "stages[0].name", "is a setting of the whole recipe"),
    ],
)
def test_names_and_references_are_checked(tmp_path: Path, old: str, new: str, path: str, words: str) -> None:
    found = problems(write(tmp_path, THREE.replace(old, new)))
    assert any(line.startswith(f"{path}: ") and words in line for line in found), found


def test_what_is_no_recipe_is_said(tmp_path: Path) -> None:
    cases = [
        ("grpoo", "did you mean grpo?"),
        (str(tmp_path), "no run directory"),
        (write(tmp_path, "[1]", "1.yaml"), "a recipe is a mapping"),
        (write(tmp_path, "name: x", "2.yaml"), "a one-stage recipe has a kind: sft, preference, "),
        (write(tmp_path, "a: 1\na: 2", "3.yaml"), "stands twice"),
        (write(tmp_path, "name: x\nstages: []", "4.yaml"), "a recipe has at least one"),
        (write(tmp_path, "stages: {sft: {kind: sft}}", "5.yaml"), "5.yaml:1: stages: expected a list"),
    ]
    for ref, words in cases:
        with pytest.raises(RecipeError, match=words.replace("?", r"\?")):
            load_recipe(ref)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(tmp_path / "latin.yaml")


# Back to YAML.


def recipes(folder: Path) -> list[Recipe]:
    return [
        load_recipe("dpo", [*GIVEN, "objective=ipo", "data.columns={chosen: good}"]),
        load_recipe("dpo", [*GIVEN, "name=other"]),
        load_recipe("grpo", ["model='1e-5'", "data=[a, b]", "rewards=[number, m.py:f]", "sampling.stop=[no, '1']"]),
        load_recipe(write(folder, THREE)),
    ]


def test_a_dumped_recipe_loads_back_equal(tmp_path: Path) -> None:
    for recipe in recipes(tmp_path):
        assert load_recipe(write(tmp_path, dump(recipe), "dump.yaml")) == recipe


def test_the_difference_is_what_the_overrides_changed() -> None:
    pairs = [*GIVEN, "objective=ipo", "objective.tau=0.2", "training.batch_size=32", "training.steps=7"]
    assert difference("dpo", pairs) == [
        "model: null -> m",
        "data.path: unset -> pairs.jsonl",
        "objective: dpo -> ipo",
        "objective.tau: 0.1 -> 0.2",
        "training.steps: null -> 7",
    ]


@pytest.mark.parametrize("annotation", [int, float, bool, str, int | None, float | Literal["all"], tuple[float, int]])
@pytest.mark.parametrize("value", [1, 0, 1.5, -2.0, True, "all", "x", float("inf"), [1, 2], [1.5, 2], [1, "x"], [1]])
def test_plain_values_are_judged_as_pydantic_would(annotation: Any, value: Any) -> None:
    ours = config._plainly(annotation, value)
    if ours is not config._INVALID:
        theirs = config._adapter(annotation).validate_python(tuple(value) if isinstance(value, list) else value)
        assert (ours, str(ours), type(ours)) == (theirs, str(theirs), type(theirs))
