"""`strop ship` end to end on tiny runs: exports, adapters, what is written, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import strop
from strop.cli import app
from strop.recipes.shipping import unaided
from strop.recipes.shipping.folder import parameters_in

pytestmark = pytest.mark.slow

FAKE = """
import pathlib, sys
out = sys.argv[sys.argv.index("--outfile") + 1]
assert any(pathlib.Path(sys.argv[1]).glob("*.safetensors"))
pathlib.Path(out).write_bytes(b"GGUF" + sys.argv[-1].encode())
"""


@pytest.fixture(scope="module")
def trained(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SFT, then DPO under an adapter, evaluated before and after."""
    asked = {"data": tiny.data("test"), "rewards": [{"name": "number"}], "sampling": {"max_completion_length": 12}}
    recipe = tiny.recipe(
        tmp_path_factory.mktemp("ship"),
        {"kind": "evaluate", "name": "eval-start", **asked},
        tiny.sft(steps=3),
        {**tiny.dpo(steps=6), "model": "@sft", "adapter": {"name": "lora", "r": 4}, "optimizer": {"lr": 1e-2}},
        {"kind": "evaluate", "name": "eval-dpo", "model": "@dpo", **asked},
    )
    return strop.run(recipe, display="quiet").path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLAMA_CPP", raising=False)


def ship(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["ship", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def greedy(folder: Path, question: str, num_tokens: int = 20) -> list[int]:
    """By transformers, as anybody would."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    turns = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=num_tokens)
    return list(out[0, ids.shape[1] :].tolist())


def test_whole_merged_with_gguf(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_runs: Any
) -> None:
    (tmp_path / "convert_hf_to_gguf.py").write_text(FAKE)
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    code, text = ship(trained, "--to", "My Model", "margin=0.4", "gguf=q8_0")
    assert code == 0, text
    folder = tmp_path / "My Model"
    assert "gate of dpo against" in text and "passed" in text
    assert "merged against adapter: largest difference in a logit" in text
    assert (folder / "My Model-q8_0.gguf").read_bytes() == b"GGUFq8_0"
    for line in ("vllm serve 'My Model'", "ollama create my-model -f 'My Model'/Modelfile", "transformers chat"):
        assert line in text
    # The weights are the run's, and transformers says with them what strop's sampler says.
    ours = load_file(trained / "stages/dpo/model/model.safetensors")
    theirs = load_file(folder / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) and ours.keys() == theirs.keys()
    own = unaided.own_answers(str(trained / "stages/dpo/model"), [], strop.load_recipe(trained))
    assert greedy(folder, "What is 17 + 25?", 48) == own.answers[0]
    said = json.loads((folder / "ship.json").read_text())
    assert said["gate"]["passed"] and said["compared"]["same"] == 4 and said["compared"]["folded"] < 1e-3
    assert [entry["name"] for entry in said["lineage"]] == ["sft", "dpo"]
    assert json.loads((trained / "ship/gate.json").read_text())["passed"]
    assert "FROM ./My Model-q8_0.gguf" in (folder / "Modelfile").read_text()
    check_card(folder, trained, small_runs)
    with pytest.raises(ValueError, match="My Model exists; name a new folder"):
        ship(trained, "--to", "My Model")


def check_card(folder: Path, run: Path, small_runs: Any) -> None:
    """Hugging Face reads its front matter; the text has hashes, intervals and the command."""
    card = ModelCard.load(folder / "README.md")
    head = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert (head["library_name"], head["pipeline_tag"]) == ("transformers", "text-generation")
    assert head["tags"] == ["strop", "sft", "dpo"] and "base_model" not in head, "a path is no name of the hub"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.dataset_name) == ("number", "held-out: test.jsonl")
    text = card.text
    hash_ = json.loads((run / "stages/dpo/stage.json").read_text())["artifact_hashes"]["model"]
    assert hash_[:12] in text and small_runs.summary(run)["stages"][1]["data"]["sha256"][:12] in text
    assert small_runs.summary(run)["command"] in text and "Safety was not evaluated." in text
    (row,) = [line for line in text.splitlines() if line.startswith("| held-out |")]
    assert row.count("[") == 3 and "| 12 |" in row and "| pass |" in row


def test_the_adapter_apart(trained: Path, tmp_path: Path) -> None:
    code, text = ship(trained, "--to", "apart", "margin=0.4", "adapter=apart")
    assert code == 0, text
    assert {f.name for f in (tmp_path / "apart").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (tmp_path / "apart/config.json").exists()
    assert "--enable-lora" in text and "merged against adapter" in text
    head = ModelCard.load(tmp_path / "apart/README.md").data.to_dict()
    assert head["library_name"] == "peft"
    merged = trained / "stages/dpo/model"
    assert greedy(tmp_path / "apart", "Compute 2+2.") == greedy(merged, "Compute 2+2.")


def test_only_an_adapter_is_left(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    shutil.rmtree(run / "stages/dpo/model")
    code, text = ship(run, "--to", "merged", "margin=0.4")
    assert code == 0, text
    ours, theirs = (load_file(f / "model.safetensors") for f in (trained / "stages/dpo/model", tmp_path / "merged"))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)
    assert "merged against adapter" in text


def test_other_weights_than_the_run_judged_do_not_ship(trained: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A folder that says something else than strop is found out: here its weights are spoiled on the way."""
    real = shutil.copytree

    def spoiled(source: Path, target: Path, **more: Any) -> Any:
        out = real(source, target, **more)
        tensors = load_file(target / "model.safetensors")
        tensors["model.norm.weight"] = -tensors["model.norm.weight"]
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        return out

    monkeypatch.setattr(shutil, "copytree", spoiled)
    with pytest.raises(ValueError, match="gives another greedy answer than strop to prompt 1, from token 1 on"):
        ship(trained, "--to", "bad", "margin=0.4", "--stage", "sft", "against=dpo")
    assert list(tmp_path.iterdir()) == []  # nothing half-made is left


def test_force_ships_and_says_so(trained: Path, tmp_path: Path, tiny: Any) -> None:
    floor = (
        f"safety={{data: {tiny.data('test')}, rewards: number, floor: 0.99, sampling: {{max_completion_length: 8}}}}"
    )
    code, text = ship(trained, "margin=0.4", floor, "--to", "no", "--display", "quiet")
    assert code == 3 and "NOT passed" in text and "fail     safety" in text and not (tmp_path / "no").exists()
    assert "nothing was exported" in text
    code, text = ship(trained, "margin=0.4", floor, "--to", "no", "--force", "--display", "quiet")
    assert code == 0 and "shipped by force" in text
    card = (tmp_path / "no/README.md").read_text()
    assert "did not pass its gate and was shipped by force" in card and "at least 0.99" in card
    assert json.loads((tmp_path / "no/ship.json").read_text())["forced"] is True
    checks = trained / "ship/checks"
    events = [json.loads(line) for line in (checks / "events.jsonl").read_text().splitlines()]
    assert [e["kind"] for e in events if e["kind"] == "skip"], "the second call took up the first one's answers"


def test_gate_only_and_json(trained: Path, tmp_path: Path) -> None:
    code, text = ship(trained, "margin=0.4", "--gate-only", "--json")
    said = json.loads(text)
    assert (
        code == said["exit_code"] == 0 and said["folder"] is None and said["gate"]["outcomes"][0]["change"]["n"] == 12
    )
    assert list(tmp_path.iterdir()) == []
    code, text = ship(trained, "margin=0.01", "--json")
    said = json.loads(text)
    assert code == 3 and said["gate"]["outcomes"][0]["verdict"] == "unclear" and said["folder"] is None


def test_refusals_come_before_the_work(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for words, told in {
        ("gguf=f16",): "neither at LLAMA_CPP nor on PATH",
        ("adapter=apart", "--stage", "sft"): "stage sft trained no adapter",
        ("--stage", "eval-dpo"): "left no model; those that did: sft, dpo",
    }.items():
        with pytest.raises(ValueError, match=told):
            ship(trained, "--to", "x", *words)


def test_as_the_last_stage_of_a_recipe(tiny: Any, tmp_path: Path, small_runs: Any) -> None:
    def recipe(**gate: Any) -> dict[str, Any]:
        asked = {"data": tiny.data("test"), "rewards": "number", "sampling": {"max_completion_length": 8}}
        last = {"kind": "ship", "name": "ship", "model": "@sft", **asked, **gate}
        return tiny.recipe(tmp_path / "runs", {**tiny.sft(steps=2)}, last)

    good = strop.run(recipe(margin=0.4), display="quiet")
    assert good.exit_code == 0 and good.model == good.path / "stages/ship/model"
    assert good.metrics["ship"]["gate/passed"]["value"] == 1.0
    assert good.metrics["ship"]["delta/held-out/number"]["n"] == 12
    assert parameters_in(good.path / "stages/ship/model") > 300_000 and (good.model / "README.md").is_file()
    again = strop.run(good.path, display="quiet")
    assert small_runs.events(good.path, "skip")[-1]["stage"] == "ship" and again.exit_code == 0

    held = strop.run(recipe(margin=0.01), display="quiet")
    assert (held.state, held.exit_code, held.error) == ("finished", 3, None)
    assert held.model == held.path / "stages/sft/model"
    assert "not shipped: held-out" in small_runs.events(held.path, "alarm")[0]["text"]


def test_the_program_has_nothing_of_strop(trained: Path, tmp_path: Path, subprocess_env: Callable[[], Any]) -> None:
    """It runs with an environment in which strop cannot be imported at all."""
    own = unaided.own_answers(str(trained / "stages/sft/model"), [], strop.load_recipe(trained))
    asked = {"folder": str(trained / "stages/sft/model"), "prompts": own.prompts, "answers": own.answers}
    more = {"num_tokens": 8, "device": "cpu", "dtype": "float32", "threads": 1, "other": None}
    (tmp_path / "q.json").write_text(json.dumps({**asked, **more}))
    command = [sys.executable, "-P", str(unaided.PROGRAM), "q.json", "a.json"]
    subprocess.run(command, check=True, cwd=tmp_path, env=subprocess_env())
    assert json.loads((tmp_path / "a.json").read_text())["prompts"] == own.ids


@pytest.fixture
def subprocess_env(tmp_path: Path) -> Callable[[], dict[str, str]]:
    blocked = tmp_path / "blocked"
    (blocked / "strop").mkdir(parents=True)
    (blocked / "strop/__init__.py").write_text("raise ImportError('strop is not here')")
    return lambda: {**os.environ, "PYTHONPATH": str(blocked)}
