"""Stages under an adapter: what they leave, what their reference is, and what they go on from."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import strop
from strop.model.adapter import LoRA
from strop.recipes.artifacts import hash_model
from strop.recipes.preflight import check_model
from strop.recipes.settings import PreferenceStage, RLStage
from strop.recipes.stages import common
from strop.recipes.validate import memory_of

peft = pytest.importorskip("peft")

METHODS = ("sft", "dpo", "grpo")
PROMPT = torch.tensor([[5, 6, 7, 8]])


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs small stages under an adapter, each kind once."""

    tiny: Any
    helpers: Any
    folder: Path
    loaded: list[str] = field(default_factory=list)

    def stage(self, method: str, adapter: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        stage = getattr(self.tiny, method)(steps=8, save_every=3)
        settings = {"name": "lora", "r": 4, **(adapter or {})}
        return {**stage, "optimizer": {"name": "adamw", "lr": 0.02}, "adapter": settings, **more}

    def run(self, runs: Path, *stages: dict[str, Any], **more: Any) -> Path:
        path: Path = strop.run({**self.tiny.recipe(runs, *stages), **more}, display="quiet").path
        return path

    def done(self, method: str) -> Path:
        """The finished run of a method."""
        runs = self.folder / method
        if not runs.exists():
            self.run(runs, self.stage(method))
        run: Path = self.helpers.only_run(runs)
        return run


@pytest.fixture(scope="module")
def bench(tiny: Any, small_runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny, small_runs, tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the language models that stages load."""
    seen: list[str] = []
    original = common.load

    def load(path: str, **settings: Any) -> Any:
        seen.append(path)
        return original(path, **settings)

    monkeypatch.setattr(common, "load", load)
    return seen


def greedy(module: Any) -> list[int]:
    out = module.eval().generate(PROMPT, max_new_tokens=16, do_sample=False, use_cache=True)
    return [int(i) for i in out[0]]


@torch.no_grad()
def logits(module: Any) -> torch.Tensor:
    return module(input_ids=PROMPT).logits


@pytest.mark.parametrize("method", METHODS)
def test_a_stage_leaves_a_plain_model_and_its_adapter(method: str, bench: Bench) -> None:
    run = bench.done(method)
    (stage,) = bench.helpers.summary(run)["stages"]
    folder = run / "stages" / method
    assert stage["artifacts"] == {"adapter": f"stages/{method}/adapter", "model": f"stages/{method}/model"}
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    beside = peft.AutoPeftModelForCausalLM.from_pretrained(folder / "adapter")
    base = transformers.AutoModelForCausalLM.from_pretrained(bench.tiny.path("base"))
    assert type(plain) is type(base) and not (folder / "model" / "adapter_config.json").exists()
    torch.testing.assert_close(logits(plain), logits(beside), rtol=0, atol=1e-5 * float(logits(base).abs().max()))
    assert greedy(plain) == greedy(beside)
    assert float((logits(plain) - logits(base)).abs().max()) > 1e-3, "nothing was learned"
    assert transformers.AutoTokenizer.from_pretrained(folder / "adapter").chat_template
    said = [event["text"] for event in bench.helpers.events(run, "note")]
    assert any("the adapter is in adapter/, and folded into the model (largest difference" in text for text in said)


def test_at_the_first_step_the_dpo_loss_is_log_2(bench: Bench) -> None:
    first = bench.helpers.numbers(bench.done("dpo"))[0]
    assert first["loss"] == torch.tensor(math.log(2)).item()
    assert (first["rewards/chosen"], first["rewards/rejected"], first["rewards/margins"]) == (0, 0, 0)


def test_at_the_first_step_the_kl_of_grpo_is_0(bench: Bench, tmp_path: Path) -> None:
    rows = bench.helpers.numbers(bench.run(tmp_path, bench.stage("grpo", passes=1, minibatches=1)))
    assert abs(rows[0]["kl"]) < 1e-9 < 1e-6 < rows[-1]["kl"]
    assert all(row["sampling/sampling_logp_difference/max"] < 1e-4 for row in rows)


def test_a_reference_that_is_not_the_start_is_noticed(bench: Bench, tmp_path: Path, monkeypatch) -> None:
    """As where the adapter could not be switched off."""
    monkeypatch.setattr(
        common.WithoutAdapter, "__call__", lambda self, batch, **more: _louder(self.policy, batch, more)
    )
    for method in ("dpo", "grpo"):
        with pytest.raises(Exception, match="the reference's log-probs differ from the policy's before the first step"):
            bench.run(tmp_path / method, bench.stage(method))


def _louder(policy: Any, batch: Any, more: dict[str, Any]) -> Any:
    out = policy(batch, **more)
    return dataclasses.replace(out, logprobs=out.logprobs * 1.1)


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_no_second_model_is_loaded_even_after_a_kill(
    method: str, bench: Bench, loads: list[str], tmp_path: Path
) -> None:
    recipe = bench.tiny.recipe(tmp_path, bench.stage(method))
    at = ["step", method, 4]
    assert bench.helpers.Child()(recipe, at=at, signal=int(signal.SIGKILL)) == -signal.SIGKILL
    run = bench.helpers.only_run(tmp_path)
    shutil.rmtree(tmp_path / ".cache", ignore_errors=True)
    strop.run(run, display="quiet")
    assert loads == [bench.tiny.path("base")]
    assert [event["step"] for event in bench.helpers.events(run, "resume")] == [3]
    assert bench.helpers.numbers(run) == bench.helpers.numbers(bench.done(method))
    assert bench.helpers.weights(run, method) == bench.helpers.weights(bench.done(method), method)


def test_a_checkpoint_holds_the_adapter_alone(bench: Bench) -> None:
    (path,) = sorted((bench.done("dpo") / "stages" / "dpo" / "checkpoints").glob("step-000006"))
    held = load_file(path / "model.safetensors")
    assert held and all(".lora_" in name for name in held)
    moments = load_file(path / "optimizer.safetensors")
    assert len(moments) == 3 * len(held)  # step and two moments


def test_the_cached_reference_serves_runs_with_and_without_an_adapter(
    bench: Bench, loads: list[str], tmp_path: Path
) -> None:
    """In fp32 the base model under a switched-off adapter is the base model bit for bit."""
    bench.run(tmp_path, bench.stage("dpo"))
    file = next((tmp_path / ".cache").glob("*.bin"))
    before = file.stat().st_size
    bench.run(tmp_path, {**bench.stage("dpo"), "adapter": None})
    assert [path.name for path in (tmp_path / ".cache").glob("*.bin")] == [file.name]
    assert file.stat().st_size == before


@pytest.mark.parametrize("adapter", [{"use_dora": True}, {"use_rslora": True}, {"targets": ["q_proj", "v_proj"]}])
def test_other_adapters_begin_at_the_reference_too(adapter: dict[str, Any], bench: Bench, tmp_path: Path) -> None:
    stage = bench.stage("dpo", adapter)
    stage["training"]["steps"] = 2
    rows = bench.helpers.numbers(bench.run(tmp_path, stage))
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[1]["loss"] != rows[0]["loss"]


def test_in_bf16_only_the_adapter_is_fp32(bench: Bench, tmp_path: Path) -> None:
    stage = bench.stage("dpo")
    run = bench.run(tmp_path, stage, precision="bf16")
    rows = bench.helpers.numbers(run)
    assert rows[0]["loss"] == torch.tensor(math.log(2)).item()
    assert rows[-1]["loss"] < rows[0]["loss"]
    held = load_file(run / "stages" / "dpo" / "checkpoints" / "step-000006" / "model.safetensors")
    assert {tensor.dtype for tensor in held.values()} == {torch.float32}
    left = load_file(run / "stages" / "dpo" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in left.values()} == {torch.float32}
    assert [path.name.endswith("-bf16-weights.bin") for path in (tmp_path / ".cache").glob("*.bin")] == [True]


# Other kinds.


def other(bench: Bench, kind: str) -> dict[str, Any]:
    """A stage of another kind, three steps."""
    short = bench.tiny.training(steps=3, batch_size=3)
    letters = bench.tiny.grpo()["rewards"]
    data = bench.tiny.folder / "steps.jsonl"
    row = {"prompt": "2+2=", "completions": ["two", "and two", "is 5"], "labels": [True, True, False]}
    data.write_text("".join(json.dumps({**row, "prompt": f"{i}+2="}) + "\n" for i in range(8)))
    stages: dict[str, dict[str, Any]] = {
        "online": {
            "data": bench.tiny.data("prompts"),
            "rewards": letters,
            "num_generations": 4,
            "sampling": {"max_completion_length": 12},
        },
        "unpaired": {"data": bench.tiny.data("pairs")},
        "process": {"data": str(data)},
        "reward": {"data": bench.tiny.data("pairs")},
        "ppo": {**bench.tiny.ppo(), "passes": 1, "minibatches": 1},
    }
    settings = {"name": "lora", "r": 4}
    return {
        **stages[kind],
        "kind": kind,
        "name": kind,
        "training": short,
        "adapter": settings,
        "optimizer": {"name": "adamw", "lr": 0.01},
    }


@pytest.mark.parametrize(("kind", "first", "value"), [("online", "loss", math.log(2)), ("unpaired", "loss", 0.5)])
def test_other_losses_begin_where_the_policy_is_its_reference(
    kind: str, first: str, value: float, bench: Bench, loads: list[str], tmp_path: Path
) -> None:
    run = bench.run(tmp_path, other(bench, kind))
    rows = bench.helpers.numbers(run)
    assert rows[0][first] == pytest.approx(value, abs=1e-6) and rows[-1][first] != rows[0][first]
    assert loads == [bench.tiny.path("base")]


@pytest.mark.parametrize("kind", ["reward", "process"])
def test_a_reward_model_keeps_its_head_with_the_adapter(kind: str, bench: Bench, tmp_path: Path) -> None:
    folder = bench.run(tmp_path, other(bench, kind)) / "stages" / kind
    auto = {
        "reward": transformers.AutoModelForSequenceClassification,
        "process": transformers.AutoModelForTokenClassification,
    }[kind]
    plain = auto.from_pretrained(folder / "model")
    held = load_file(folder / "adapter/adapter_model.safetensors")
    heads = {name: tensor for name, tensor in held.items() if ".lora_" not in name}
    assert {name.removeprefix("base_model.model."): tensor.shape for name, tensor in heads.items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items() if name.startswith("score")
    }
    fresh = auto.from_pretrained(bench.tiny.path("base"), num_labels=1)
    wrapped = peft.PeftModel.from_pretrained(fresh, folder / "adapter")
    torch.testing.assert_close(logits(wrapped), logits(plain), rtol=0, atol=1e-5)
    assert float(logits(plain).abs().max()) > 1e-4, "the head is still 0"


@pytest.mark.parametrize("critic", [None, "shared"])
def test_policy_and_critic_each_have_an_adapter_or_share_one(
    critic: str | None, bench: Bench, loads: list[str], tmp_path: Path
) -> None:
    run = bench.run(tmp_path, {**other(bench, "ppo"), "critic": critic})
    (stage,) = bench.helpers.summary(run)["stages"]
    own = {"critic-adapter"} if critic is None else set()
    assert set(stage["artifacts"]) == {"model", "adapter", "critic", *own}
    folder = run / "stages/ppo"
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    beside = peft.AutoPeftModelForCausalLM.from_pretrained(folder / "adapter")
    assert not [name for name in load_file(folder / "adapter/adapter_model.safetensors") if ".lora_" not in name]
    torch.testing.assert_close(logits(plain), logits(beside), rtol=0, atol=1e-4)
    judge = transformers.AutoModelForTokenClassification.from_pretrained(folder / "critic")
    assert float(logits(judge).abs().max()) > 1e-4, "the critic still says 0"
    assert loads == [bench.tiny.path("base")]
    first = bench.helpers.numbers(run)[0]
    assert abs(first["objective/kl"]) < 1e-5


# Going on.


def test_the_next_stage_takes_the_folded_model(bench: Bench, loads: list[str], tmp_path: Path) -> None:
    first = {**bench.stage("sft"), "model": bench.tiny.path("base")}
    run = bench.run(tmp_path, first, {**bench.stage("dpo"), "model": "@sft"})
    assert loads == [bench.tiny.path("base"), str(run / "stages/sft/model")]
    rows = [row for row in bench.helpers.numbers(run) if row["stage"] == "dpo"]
    assert rows[0]["loss"] == torch.tensor(math.log(2)).item()
    base = json.loads((run / "stages/dpo/adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == str(run / "stages/sft/model")


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_an_adapter_is_not_trained_on_without_naming_the_reference(method: str, bench: Bench, tmp_path: Path) -> None:
    adapter = str(bench.done("sft") / "stages/sft/adapter")
    said = "is an adapter, so with the adapter off the policy is its base model and not the one that training starts"
    with pytest.raises(ValueError, match=said):
        bench.run(tmp_path, bench.stage(method, model=adapter))


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_an_adapter_is_trained_on_against_its_base_without_a_second_model(
    method: str, bench: Bench, loads: list[str], tmp_path: Path
) -> None:
    adapter = str(bench.done("sft") / "stages/sft/adapter")
    run = bench.run(tmp_path, bench.stage(method, model=adapter, reference=bench.tiny.path("base")))
    assert loads == [adapter]
    first = bench.helpers.numbers(run)[0]
    assert (abs(first["rewards/chosen"]) if method == "dpo" else first["kl"]) > 1e-3


def test_an_adapter_is_trained_on_against_itself(bench: Bench, loads: list[str], tmp_path: Path) -> None:
    adapter = str(bench.done("sft") / "stages/sft/adapter")
    run = bench.run(tmp_path, bench.stage("dpo", model=adapter, reference=adapter))
    assert loads == [adapter, adapter]
    assert bench.helpers.numbers(run)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_sft_goes_on_with_an_adapter_and_a_full_stage_folds_it_in(bench: Bench, tmp_path: Path) -> None:
    folder = bench.done("sft") / "stages/sft"
    on = bench.run(tmp_path / "on", bench.stage("sft", model=str(folder / "adapter")))
    full = bench.run(tmp_path / "full", {**bench.stage("sft", model=str(folder / "adapter")), "adapter": None})
    merged = bench.run(tmp_path / "merged", {**bench.stage("sft", model=str(folder / "model")), "adapter": None})
    first = [bench.helpers.numbers(run)[0]["loss"] for run in (on, full, merged)]
    assert first[0] == pytest.approx(first[2], abs=1e-5) and first[1] == pytest.approx(first[2], abs=1e-5)
    assert bench.helpers.numbers(bench.done("sft"))[0]["loss"] > first[0] + 0.1
    ours, theirs = (bench.helpers.numbers(run)[-1]["loss"] for run in (full, merged))
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_an_adapter_is_hashed_with_its_base_and_looked_at_before_a_run(bench: Bench, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(bench.done("sft") / "stages/sft/adapter", adapter)
    base = tmp_path / "base"
    shutil.copytree(bench.tiny.path("base"), base)
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(base)}))
    before = hash_model(str(adapter), 0)
    assert before == hash_model(str(adapter), 0) and check_model(str(adapter)) == ""
    settings = base / "config.json"
    settings.write_text(settings.read_text() + "\n")
    assert hash_model(str(adapter), 0) != before
    shutil.rmtree(base)
    assert "an adapter whose base model, by its adapter_config.json, is no use" in check_model(str(adapter))


def test_a_learning_rate_for_full_training_is_pointed_out(bench: Bench, tmp_path: Path) -> None:
    said = "optimizer.lr=5e-07 is for training in full; an adapter takes about ten times as much"
    stage = bench.stage("dpo", optimizer={"name": "adamw"}, training=bench.tiny.training(steps=1))
    texts = [
        [e["text"] for e in bench.helpers.events(bench.run(tmp_path / n, s), "note")]
        for n, s in (
            ("adapter", stage),
            ("full", {**stage, "adapter": None}),
            ("higher", {**stage, "optimizer": {"lr": 5e-6}}),
        )
    ]
    assert [said in found for found in texts] == [True, False, False]
    assert not any("an adapter takes" in text for found in texts[1:] for text in found)


def test_the_memory_estimate_counts_what_trains(bench: Bench) -> None:
    """By the shapes in the config, as many as the checkpoint of a run holds."""
    held = load_file(bench.done("dpo") / "stages/dpo/checkpoints/step-000006/model.safetensors")
    base = Path(bench.tiny.path("base"))
    found = memory_of(PreferenceStage(adapter=LoRA(r=4)), base)
    assert found["trained"] == sum(tensor.numel() for tensor in held.values())
    assert found["bytes"] == 4 * found["parameters"] + 16 * found["trained"]
    some = memory_of(RLStage(adapter=LoRA(r=4, targets=("q_proj",)), reference="other"), base)
    trained = sum(tensor.numel() for name, tensor in held.items() if "q_proj" in name)
    assert (some["trained"], some["bytes"]) == (trained, 8 * found["parameters"] + 16 * trained)


def test_four_bits_on_a_cpu_are_refused_before_anything_is_loaded(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Any] = []
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: reads.append(a))
    with pytest.raises(ValueError, match="adapter.quantize=nf4 needs a GPU"):
        bench.run(tmp_path, bench.stage("sft", {"quantize": "nf4"}))
    assert reads == []
