"""Plans of recipes on the embedded world's model: which phase is fullest, what follows what, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig
from typer.testing import CliRunner

from strop.cli import app
from strop.data.pack import pack
from strop.recipes.config import RecipeError, load_recipe
from strop.recipes.planning import command, loads, microstep
from strop.recipes.planning.exact import counts_of
from strop.recipes.planning.fits import USUAL, Cards, Verdict
from strop.recipes.planning.loads import Load
from strop.recipes.planning.place import GIB, MIB, Place
from strop.recipes.planning.plan import StagePlan, plan
from strop.recipes.planning.text import as_text
from strop.recipes.planning.work import step_work
from strop.recipes.settings import Recipe, SFTStage, TrainingStage

Planned = Callable[..., StagePlan]
SMALL = ("rewards=number", "training.batch_size=4", "training.steps=4")


@pytest.fixture
def planned(tiny: Any) -> Planned:
    """The plan of a built-in recipe of one stage on the world's model, with no measurement."""

    def made(name: str, *pairs: str, rows: str = "sft") -> StagePlan:
        named = [f"model={tiny.path('base')}", f"data={tiny.data(rows)}", "device=cpu", *pairs]
        (found,) = plan(command.asked([name], named), (), measuring=False)
        return found

    return made


def test_a_config_alone_is_enough(tiny: Any, tmp_path: Path) -> None:
    """No weights and no tokenizer: rows of the largest length stand in, and no step is measured."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text((Path(tiny.path("base")) / "config.json").read_text())
    pairs = [f"model={tmp_path / 'model'}", f"data={tiny.data('sft')}", "device=cpu"]
    (found,) = plan(command.asked(["sft"], pairs), ())
    (other,) = plan(command.asked(["sft"], [f"model={tiny.path('base')}", *pairs[1:]]), (), measuring=False)
    assert found.counts == other.counts and found.measured is None
    assert found.load is not None and found.load.said == "no tokenizer.json: reckoned with rows of 2048 tokens"
    assert found.notes[-1] == "not measured: the model's folder has no tokenizer.json"


def test_states_are_sixteen_bytes_a_parameter_at_the_end_of_a_backward(planned: Planned) -> None:
    found = planned("sft", "training.micro_batch_tokens=512")
    assert found.load is not None and found.load.micro_batches > 1 and found.counts is not None
    phase = next(p for p in found.phases if p.name == "the update")
    states = sum(phase.parts[name] for name in ("weights", "gradients", "optimizer"))
    assert states == 16 * found.counts.parameters
    assert phase.parts["process"] == Place("cpu", False).process


@pytest.mark.parametrize(
    ("name", "rows", "setting", "values"),
    [
        ("sft", "sft", "training.micro_batch_tokens", (128, 256, 512, 1024)),
        ("dpo", "pairs", "training.micro_batch_tokens", (256, 512, 1024)),
        ("sft", "sft", "training.batch_size", (1, 2, 8, 32)),
        ("grpo", "prompts", "num_generations", (2, 4, 8, 16)),
        ("grpo", "prompts", "sampling.max_completion_length", (16, 64, 200)),
        ("ppo", "prompts", "training.batch_size", (2, 8, 24)),
    ],
)
def test_more_never_takes_less(planned: Planned, name: str, rows: str, setting: str, values: tuple[int, ...]) -> None:
    rewards = SMALL if rows == "prompts" else ()
    peaks = [planned(name, *rewards, f"{setting}={value}", rows=rows).peak.total for value in values]
    assert peaks == sorted(peaks) and peaks[0] < peaks[-1]


def test_a_larger_vocabulary_takes_more(tiny: Any, tmp_path: Path) -> None:
    peaks = []
    for vocabulary in (300, 3_000, 30_000, 300_000):
        folder = tmp_path / str(vocabulary)
        microstep.write_model(Path(tiny.path("base")), folder, None)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "vocab_size": vocabulary}))
        recipe = command.asked(["sft"], [f"model={folder}", f"data={tiny.data('sft')}", "device=cpu"])
        peaks.append(plan(recipe, (), measuring=False)[0].peak.total)
    assert peaks == sorted(peaks) and peaks[-1] > peaks[0] + 16 * 299_000 * 128


def test_models_that_are_held_are_counted(planned: Planned) -> None:
    base = planned("grpo", *SMALL, "objective.beta=0", rows="prompts")
    reference = planned("grpo", *SMALL, "objective.beta=0.1", rows="prompts")
    assert reference.peak.parts["reference"] == 4 * 393_984 and "reference" not in base.peak.parts
    adapted = planned("grpo", *SMALL, "objective.beta=0.1", "adapter.r=4", rows="prompts")
    assert "reference" not in adapted.peak.parts, "with the adapter off the policy is its own reference"
    ppo = planned("ppo", *SMALL, rows="prompts")
    update = next(p for p in ppo.phases if p.name == "the update")
    scalar = 393_984 + 128
    assert update.parts["critic"] == 12 * scalar and update.parts["reference"] == 4 * 393_984
    shared = planned("ppo", *SMALL, "critic=shared", rows="prompts")
    assert "critic" not in shared.peak.parts


def test_a_critic_of_another_size_is_counted_as_what_it_is(planned: Planned, tmp_path: Path) -> None:
    critic = bare(tmp_path / "critic", num_hidden_layers=1)
    update = next(
        p for p in planned("ppo", *SMALL, f"critic={critic}", rows="prompts").phases if p.name == "the update"
    )
    assert update.parts["critic"] == 12 * counts_of(str(critic)).scalar.parameters
    with pytest.raises(ValueError, match="no-such/critic: no folder here, and a plan fetches nothing"):
        planned("ppo", *SMALL, "critic=no-such/critic", rows="prompts")


def bare(folder: Path, **more: int) -> Path:
    """A folder with the config of a Llama, and nothing else."""
    shape = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 16, "num_attention_heads": 16}
    LlamaConfig(**{**shape, "num_key_value_heads": 8, "vocab_size": 32_000, **more}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["sft", "dpo", "grpo objective.beta=0.1", "ppo", "ppo critic=shared", "reward"])
@pytest.mark.parametrize("gib", [4, 8, 16])
def test_what_is_said_to_fit_with_changes_does(name: str, gib: float, tmp_path: Path) -> None:
    """An adapter is its own reference, so that with it one model less is held."""
    recipe, *more = name.split()
    words = [f"model={bare(tmp_path / 'model')}", "device=cpu", *more]
    (first,) = plan(command.asked([recipe], words), (Cards(gib),), measuring=False)
    (before,) = first.verdicts
    assert before.changes and not before.fits
    (then,) = plan(command.asked([recipe], [*words, *before.changes]), (Cards(gib),), measuring=False)
    assert then.verdicts[0].needed == pytest.approx(before.after)
    assert then.verdicts[0].fits == before.would_fit


def test_a_card_runs_in_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    words = [f"model={bare(tmp_path / 'model')}", "device=cpu"]
    needed = [
        plan(command.asked(["sft"], [*words, f"precision={name}"]), (Cards(80),), measuring=False)[0].verdicts[0].needed
        for name in ("auto", "bf16", "fp32")
    ]
    assert needed[0] == needed[1] < needed[2]


def test_of_rows_that_are_all_alike_one_step_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of hundreds of long answers takes a while to pack; sixteen of them took minutes."""
    packed: list[int] = []

    def counting(groups: Any, **more: Any) -> Any:
        packed.append(len(groups))
        return pack(groups, **more)

    monkeypatch.setattr(loads, "pack", counting)
    words = [f"model={bare(tmp_path / 'model')}", "device=cpu"]
    (found,) = plan(command.asked(["grpo"], [*words, "training.batch_size=16"]), (), measuring=False)
    assert packed == [16] and found.load is not None
    assert found.load.step_tokens > 16 * found.load.completion


def test_what_a_stage_that_only_samples_assumes_is_said(tmp_path: Path) -> None:
    (found,) = plan(command.asked(["sample"], [f"model={bare(tmp_path / 'model')}"]), (), measuring=False)
    assert found.notes == ("no data yet: reckoned with rows of 1024 tokens",)


def test_a_reward_model_has_no_logits(planned: Planned) -> None:
    assert planned("reward", rows="pairs").peak.parts.get("logits", 0.0) == 0


def test_checkpointing_and_adapters_take_less_of_what_they_are_for(planned: Planned) -> None:
    plain = planned("sft", "training.micro_batch_tokens=4096")
    again = planned("sft", "training.micro_batch_tokens=4096", "training.gradient_checkpointing=true")
    adapter = planned("sft", "adapter.r=4")
    assert again.peak.parts["activations"] < plain.peak.parts["activations"]
    assert adapter.peak.parts["optimizer"] < 0.2 * plain.peak.parts["optimizer"]


def test_without_data_rows_of_the_largest_length_stand_in(tiny: Any) -> None:
    recipe = command.asked(["dpo"], [f"model={tiny.path('base')}", "training.max_length=512"])
    (found,) = plan(recipe, (Cards(24),), measuring=False)
    assert "no data yet: reckoned with rows of 512 tokens" in as_text([found])
    assert found.load is not None and found.load.steps is None and found.verdicts[0].fits


def test_of_a_recipe_without_any_data_all_stages_are_planned(tiny: Any) -> None:
    model = f"model={tiny.path('base')}"
    kinds = [stage.kind for stage in command.asked(["align"], [model]).stages]
    assert kinds == ["sft", "sample", "label", "preference", "rl", "ship"]
    some = command.asked(["align"], [model, f"dpo.data={tiny.data('pairs')}"])
    assert [stage.name for stage in some.stages] == ["dpo"], "as strop run leaves them out"
    with pytest.raises(RecipeError, match="model: is missing"):
        command.asked(["align"], [])
    with pytest.raises(RecipeError, match="stages"):
        command.asked(["align"], [model, "stages=[]"])


def test_other_mistakes_are_told(tiny: Any) -> None:
    with pytest.raises(RecipeError, match="betta"):
        command.asked(["dpo"], [f"model={tiny.path('base')}", "objective.betta=1"])
    with pytest.raises(RecipeError, match="model") as raised:
        command.asked(["dpo"], [])
    assert "data" not in str(raised.value), "which a plan can do without"


def test_numbers_behind_gpu_are_cards() -> None:
    assert command.cards_of(["24"], ["80", "model=M"]) == ((Cards(24), Cards(80)), ["model=M"])
    assert command.cards_of([], ["model=M"]) == (USUAL, ["model=M"])
    with pytest.raises(ValueError, match="--gpu 24 80"):
        command.cards_of([], ["80"])


def test_operations_of_a_step(planned: Planned) -> None:
    """6 a weight and token, 6 a pair of tokens, layer and width, 6 a weight of the head and read position."""
    found = planned("sft")
    load, counts = found.load, found.counts
    assert load is not None and counts is not None
    attention = 12 * counts.layers * counts.query * load.step_attended
    wanted = 6 * counts.active * load.step_tokens + attention + 6 * 300 * 128 * load.step_read
    assert found.flops["training"] == pytest.approx(wanted * counts.embedding / (300 * 128), rel=0.5)
    again = step_work(checkpointed(), counts, load, scalar=False)["training"]
    assert again == pytest.approx(found.flops["training"] * 4 / 3)


def checkpointed() -> TrainingStage:
    return replace(SFTStage(), training=replace(SFTStage().training, gradient_checkpointing=True))


def test_the_measured_step_asks_nobody_and_reads_no_other_model(tiny: Any, tmp_path: Path) -> None:
    pairs = [f"model={tiny.path('base')}", f"data={tiny.data('prompts')}", "rewards=[{name: model, path: RM}]"]
    from strop.recipes.config import load_recipe

    recipe = load_recipe("ppo", [*pairs, "reference=OTHER", "critic=RM"])
    cut: Recipe = microstep.small(recipe, recipe.stages[0], 4, tmp_path / "model")  # type: ignore[arg-type]
    stage: Any = cut.stages[0]
    assert (stage.reference, stage.critic, stage.monitor, stage.training.steps) == (None, None, None, 2)
    assert [reward.name for reward in stage.rewards] == ["custom"]


def test_a_shallower_copy_of_a_model_has_no_weights(tiny: Any, tmp_path: Path) -> None:
    microstep.write_model(Path(tiny.path("base")), tmp_path / "cut", 1)
    assert json.loads((tmp_path / "cut/config.json").read_text())["num_hidden_layers"] == 1
    assert not list((tmp_path / "cut").glob("*.safetensors")) and (tmp_path / "cut/tokenizer.json").is_file()


def test_the_verb_prints_json(tiny: Any) -> None:
    words = ["plan", "sft", f"model={tiny.path('base')}", f"data={tiny.data('sft')}", "--no-measure", "--json"]
    done = CliRunner().invoke(app, [*words, "--gpu", "24"])
    (found,) = json.loads(done.output)
    assert found["parameters"] == 393_984 and found["exact"] is True and found["cards"][0]["fits"] is True
    assert sum(found["bytes"].values()) == pytest.approx(found["peak_memory_mb"] * MIB)


def test_steps_and_tokens_are_those_of_the_run(tiny: Any, planned: Planned) -> None:
    """The rows of the file's 96, four a step; the tokens that the first steps really pack."""
    load = planned("sft", "training.batch_size=4", "training.epochs=1", "training.eval_fraction=0").load
    assert isinstance(load, Load) and load.steps == 24 and load.micro_batches == 1
    from strop.data.chat import Chat
    from strop.data.encoded import EncodedGroup
    from strop.data.formats import load_dataset
    from strop.model.load import load_tokenizer

    groups = load_dataset([tiny.data("sft")]).groups
    found = Chat(load_tokenizer(tiny.path("base"))).encode_many(groups, 2048)
    mean = sum(g.num_tokens - 1 for g in found if isinstance(g, EncodedGroup)) / len(groups)
    assert load.step_tokens == pytest.approx(4 * mean, rel=0.1)
    several = planned("sft", "training.batch_size=16", "training.micro_batch_tokens=256").load
    assert several is not None and several.tokens == 256 and several.micro_batches > 1


def test_a_step_that_would_not_fit_is_not_measured(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from strop.recipes.planning import plan as module

    def measure(*arguments: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(microstep, "measure", measure)
    monkeypatch.setattr(module, "free_memory", lambda: 100 * MIB)
    recipe = command.asked(["sft"], [f"model={tiny.path('base')}", f"data={tiny.data('sft')}", "device=cpu"])
    (found,) = plan(recipe, ())
    assert found.time is None and "0.1 GiB are free here" in found.notes[-1]


def test_what_is_measured_corrects_only_what_it_contradicts(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 10 % the arithmetic stands; beyond it the allocator's part becomes what the step showed."""
    recipe = command.asked(
        ["sft"], [f"model={tiny.path('base')}", f"data={tiny.data('sft')}", "device=cpu", "training.batch_size=64"]
    )
    (alone,) = plan(recipe, (), measuring=False)
    peaks = []
    for factor in (1.05, 1.3):
        took = microstep.Measured(factor * alone.peak.total, 335 * MIB, {"training": 2.0}, 5.0)
        monkeypatch.setattr(microstep, "measure", lambda *arguments, took=took: took)
        (found,) = plan(recipe, ())
        assert found.measured == took.peak and found.time is not None
        assert found.time.step == pytest.approx({"training": 2.0}, rel=0.1)
        peaks.append(found.peak.total)
    assert peaks[0] == alone.peak.total and peaks[0] < peaks[1] <= 1.3 * alone.peak.total * 1.02


def test_what_was_not_measured_goes_at_the_rate_of_what_was(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage whose rows are still to be made, and evaluations; not where nobody did the same work."""
    took = microstep.Measured(peak=500 * MIB, process=300 * MIB, seconds={"training": 2.0}, loading=1.0)
    monkeypatch.setattr(microstep, "measure", lambda *_: took)
    stages: list[dict[str, Any]] = [
        {**tiny.sft(steps=4), "model": tiny.path("base")},
        {"kind": "sample", "name": "sample", "model": "@sft", "data": tiny.data("prompts"), "num_prompts": 8},
        {**tiny.sft(steps=4), "name": "again", "model": "@sft", "data": "@sample"},
    ]
    sft, sample, again = plan(load_recipe(tiny.recipe(tmp_path, *stages)), ())
    assert sft.time is not None and again.time is not None and again.measured is None
    assert sample.time is None, "no measured stage sampled"
    rate = sum(sft.flops.values()) / sum(sft.time.step.values())
    assert sum(again.flops.values()) / sum(again.time.step.values()) == pytest.approx(rate)
    assert again.time.stage == pytest.approx(4 * sum(again.time.step.values()))
    assert again.time.said == "at the rate of sft's measured step"
    both = replace(took, seconds={"training": 2.0, "sampling": 4.0, "annotating": 0.5})
    monkeypatch.setattr(microstep, "measure", lambda *_: both)
    rl = {"kind": "rl", "name": "rl", "model": "@sft", "data": tiny.data("prompts"), "rewards": "number"}
    measured = plan(load_recipe(tiny.recipe(tmp_path, *stages[:2], rl)), ())
    sample, lender = measured[1], measured[2]
    assert sample.time is not None and lender.time is not None
    assert sample.time.stage == pytest.approx(sum(sample.flops.values()) / lender.time.rates["sampling"])


def test_a_refresh_is_planned_as_the_reward_model_that_it_trains(tiny: Any) -> None:
    given = [f"model={tiny.path('base')}", f"pairs.data={tiny.data('pairs')}", "refresh.rewards=number"]
    pairs = [*given, f"refresh.data={tiny.data('prompts')}", f"ppo.data={tiny.data('prompts')}", "device=cpu"]
    plans = {found.name: found for found in plan(command.asked(["rlhf"], pairs), (), measuring=False)}
    refresh, reward = plans["refresh-1"], plans["reward"]
    assert refresh.kind == "refresh" and refresh.peak.total == reward.peak.total
    assert refresh.load is not None and refresh.load.said.startswith("@pairs still to be made: reckoned with rows of")


def test_of_several_cards_a_run_takes_one(planned: Planned) -> None:
    """`strop run` refuses several processes, so nothing is said to be shared."""
    found = replace(planned("sft"), verdicts=(Verdict(Cards(80, 8), 2 * GIB, GIB, (), 2 * GIB),))
    assert "8 x 80 GB  fits: 2 GiB a card; strop run takes one of them" in as_text([found])


@pytest.mark.parametrize("text", ["x80", "2x", "80x", "0", "-5", "abc", "1e9"])
def test_cards_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="give GB of a card, as 24, or several cards, as 4x24"):
        Cards.of(text)
