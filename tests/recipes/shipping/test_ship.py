"""The export behind the gate, with the models' answers made up: what is written, forced, refused and left undone.

The same with real models stands in tests/integration/test_ship.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner

import strop
from strop.cli import app
from strop.evaluate.statistics import Measure
from strop.recipes.artifacts import hash_folder, hash_model
from strop.recipes.context import StageResult
from strop.recipes.kinds.ship import PASSED
from strop.recipes.rundir import locked
from strop.recipes.shipping import folder, unaided
from strop.recipes.shipping.unaided import Own, compare
from strop.types import Group

OWN = Own([{"text": "q"}], [[1]], [[5, 6, 3]], frozenset({3, 7}), ("</s>", "<|end|>"), None, "cpu", "float32")
TOLD = {
    "versions": {"transformers": "5.0"},
    "prompts": [[1]],
    "answers": [[5, 6, 3]],
    "short": [[0.0, 0.0, 0.0]],
    "scale": 20.0,
}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What transformers alone says; the test may change it."""
    found: dict[str, Any] = json.loads(json.dumps(TOLD))
    found["asked"] = []

    def own_answers(model: str, groups: list[Group], recipe: Any) -> Own:
        found["groups"] = len(groups)
        return OWN

    def ask(part: Path, own: Own, other: str | None, recipe: Any) -> dict[str, Any]:
        found["asked"].append((part.name, other))
        return found

    monkeypatch.setattr(folder, "own_answers", own_answers)
    monkeypatch.setattr(unaided, "_ask", ask)
    monkeypatch.chdir(tmp_path)
    return found


def ship(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["ship", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def values(num_right: int) -> list[float]:
    return [float(i < num_right) for i in range(100)]


def test_a_better_model_ships_with_a_card(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    (made_up.folder / "base/README.md").write_text("---\nlicense: llama3.1\n---\n")
    (made_up.folder / "base/LICENSE").write_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT")
    made_up.whole(values(50), values(90))
    code, text = ship(made_up.run, "--to", "out")
    assert code == 0, text
    assert "number 0.50 -> 0.90, +0.400 [" in text and "(n=100)" in text
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names >= {"model.safetensors", "README.md", "ship.json", "Modelfile", "LICENSE", "generation_config.json"}
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["eos_token_id"] == [3, 7]
    card = ModelCard.load(tmp_path / "out/README.md")
    head = card.data.to_dict()
    assert (head["license"], head["library_name"]) == ("llama3.1", "transformers")
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.9
    row = "| held-out | number | 0.500 [0.404, 0.596] | 0.900 [0.826, 0.945] | +0.400 [+0.310, +0.500] |"
    assert row in card.text and "| held-out | exact |" in card.text, "watched rewards are shown, too"
    assert "- Safety was not evaluated." in card.text and "in transformers 5.0 alone" in card.text
    assert "    strop run recipe.yaml\n" in card.text
    assert (tmp_path / "out/recipe.yaml").read_text() == (made_up.run / "config.yaml").read_text()
    assert told["groups"] == 100 and told["asked"] == [(f".out.{folder.os.getpid()}.part", None)]


def test_a_worse_model_does_not_unless_forced(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    made_up.whole(values(90), values(50))
    code, text = ship(made_up.run, "--to", "out")
    assert code == 3 and "NOT passed" in text and "-0.400 [-0.500, -0.310]" in text
    assert not (tmp_path / "out").exists() and told["asked"] == [] and "nothing was exported" in text
    code, text = ship(made_up.run, "--to", "out", "--force", "--json")
    said = json.loads(text)
    assert (code, said["exit_code"], said["forced"], said["gate"]["passed"]) == (0, 0, True, False)
    card = (tmp_path / "out/README.md").read_text()
    assert "**It did not pass its gate and was shipped by force**" in card
    assert "worse, and beyond the margin" in card


def test_what_nothing_scored_is_no_figure(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    made_up.whole([None] * 100, [None] * 100)
    code, text = ship(made_up.run, "--to", "out", "--force")
    assert code == 0 and "number unscored, margin 0.05: only 0 of 100 prompts have a score on both sides" in text
    card = (tmp_path / "out/README.md").read_text()
    assert "nan |" not in card and "model-index" not in card and "| held-out | number | unscored | unscored |" in card
    assert "- Its answers were never scored on held-out prompts" in card


def test_what_transformers_says_otherwise_is_an_error(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    made_up.whole(values(50), values(90))
    told["answers"] = [[5, 9, 3]]
    told["short"] = [[0.0, 1.0, 0.0]]
    with pytest.raises(
        ValueError, match=r"another greedy answer .* to prompt 1, from token 2 on .* 1 below the largest"
    ):
        ship(made_up.run, "--to", "out")
    told["short"] = [[0.0, 1e-4, 0.0]]
    told["prompts"] = [[1, 1]]
    with pytest.raises(ValueError, match="writes a prompt in other tokens"):
        ship(made_up.run, "--to", "out")
    assert [p for p in tmp_path.iterdir() if "out" in p.name] == []
    told["prompts"] = [[1]]
    code, text = ship(made_up.run, "--to", "out")
    assert code == 0 and "1 part where two tokens are equally likely" in text


@pytest.mark.parametrize(
    ("answer", "short", "same"),
    [
        ([5, 6, 3], [0, 0, 0], True),
        ([5, 6, 7], [0, 0, 0], True),  # another token that ends an answer
        ([5, 6, 8, 8], [0, 0, 2.0], False),  # it does not stop
        ([5, 3], [0, 2.0, 0], False),  # it stops early
        ([5, 6], [0, 0, 0], True),  # cut at the limit of tokens
    ],
)
def test_where_answers_end(answer: list[int], short: list[float], same: bool, told: dict[str, Any]) -> None:
    told["answers"], told["short"] = [answer], [short]
    if same:
        assert compare(Path("x"), OWN, other=None, recipe=None).same == 1  # type: ignore[arg-type]
        return
    with pytest.raises(ValueError, match="another greedy answer"):
        compare(Path("x"), OWN, other=None, recipe=None)  # type: ignore[arg-type]


def test_a_merged_model_that_differs_from_its_adapter(told: dict[str, Any]) -> None:
    told["difference"] = 0.01  # of logits up to 20
    assert compare(Path("x"), OWN, other="y", recipe=None).folded == 0.01  # type: ignore[arg-type]
    told["difference"] = 0.03
    with pytest.raises(ValueError, match="differ by 0.03 from those of the adapter"):
        compare(Path("x"), OWN, other="y", recipe=None)  # type: ignore[arg-type]


def test_a_card_of_an_adapter_has_its_rank_and_its_stops(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    """The card is written before the folder is in its place, so the rank is not read from there."""
    made_up.whole(values(50), values(90))
    adapter = made_up.run / "stages/sft/adapter"
    adapter.mkdir()
    config = {"base_model_name_or_path": str(made_up.folder / "base"), "task_type": "CAUSAL_LM", "r": 40}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    file = made_up.run / "stages/sft/stage.json"
    entry = json.loads(file.read_text())
    file.write_text(json.dumps({**entry, "artifacts": {**entry["artifacts"], "adapter": "stages/sft/adapter"}}))
    code, text = ship(made_up.run, "--to", "deep/out", "adapter=apart")
    assert code == 0 and "--max-lora-rank 64 --lora-modules out=deep/out --generation-config deep/out" in text
    card = (tmp_path / "deep/out/README.md").read_text()
    assert "--max-lora-rank 64 --lora-modules out=out --generation-config out" in card
    assert 'model.generation_config = GenerationConfig.from_pretrained("out")' in card


def test_an_existing_folder_and_a_run_at_work(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    made_up.whole(values(50), values(90))
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="out exists; name a new folder"):
        ship(made_up.run, "--to", "out")
    with locked(made_up.run), pytest.raises(ValueError, match="is at this run; wait for it"):
        ship(made_up.run, "--to", "other")


def test_the_hubs_names_go_into_the_front_matter(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    made_up.whole(values(50), values(90))
    config = made_up.run / "config.yaml"
    config.write_text(config.read_text().replace(str(made_up.folder / "base"), "Qwen/Qwen3-0.6B"))
    file = made_up.run / "stages/sft/stage.json"
    told_ = file.read_text().replace(str(made_up.folder / "base"), "Qwen/Qwen3-0.6B")
    file.write_text(told_.replace('"?"', json.dumps(hash_model("Qwen/Qwen3-0.6B", 0))))
    assert ship(made_up.run, "--to", "out")[0] == 0
    head = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---\n")[1])
    assert (head["base_model"], head["base_model_relation"]) == ("Qwen/Qwen3-0.6B", "finetune")
    assert head["license"] == "unknown"
    assert "No licence of `Qwen/Qwen3-0.6B` was found" in (tmp_path / "out/README.md").read_text()


def test_a_folder_that_is_none_from_here_is_no_name_of_the_hub(
    made_up: Any, told: dict[str, Any], tmp_path: Path
) -> None:
    """The run was started elsewhere, with relative paths that look like somebody's models and data sets."""
    made_up.whole(values(50), values(90))
    for file in (made_up.run / "config.yaml", made_up.run / "stages/sft/stage.json"):
        text = file.read_text().replace(str(made_up.folder / "base"), "models/base")
        file.write_text(text.replace(str(made_up.folder / "chats.jsonl"), "data/chats"))
    assert ship(made_up.run, "--to", "out")[0] == 0
    text = (tmp_path / "out/README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert "base_model" not in head and "datasets" not in head
    assert "`models/base` was not at hand when this was exported: its licence files are not in this folder." in text
    asked = (f"data={made_up.folder}/test.jsonl", "rewards=number")
    with pytest.raises(ValueError, match="models/base: training began with this folder, and there is none from here"):
        ship(made_up.run, "--gate-only", *asked)


def test_licences_are_those_that_the_run_wrote_down(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    made_up.whole(values(50), values(90))
    base, data = str(made_up.folder / "base"), str(made_up.folder / "chats.jsonl")
    known = {base: {"licence": "gemma", "source": "x"}, data: {"licence": "cc-by-nc-4.0", "source": "y"}}
    (made_up.run / "summary.json").write_text(json.dumps({"command": "strop run mine", "licences": known}))
    assert ship(made_up.run, "--to", "out")[0] == 0
    text = (tmp_path / "out/README.md").read_text()
    assert text.startswith("---\nlicense: gemma\n") and "    strop run mine\n" in text
    (row,) = [line for line in text.splitlines() if line.startswith(f"| sft | {data} |")]
    assert row.endswith("| cc-by-nc-4.0 |")
    assert json.loads((tmp_path / "out/ship.json").read_text())["licences"] == known


def test_a_model_of_plain_texts_is_asked_by_texts(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    made_up.whole(values(50), values(90))
    assert ship(made_up.run, "--to", "out")[0] == 0
    assert 'print(ask("Hello", max_new_tokens=100)' in (tmp_path / "out/README.md").read_text()
    turns = replace(OWN, prompts=[{"messages": [{"role": "user", "content": "q"}], "variables": {}}])
    assert OWN.plain and not turns.plain


def test_generation_config_keeps_what_it_says(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    made_up.whole(values(50), values(90))
    folder_ = made_up.run / "stages/sft/model"
    said = {"eos_token_id": [7, 9], "temperature": 0.6, "_from_model_config": True}
    (folder_ / "generation_config.json").write_text(json.dumps(said))
    file = made_up.run / "stages/sft/stage.json"
    entry = json.loads(file.read_text())
    old, new = entry["artifact_hashes"]["model"], hash_folder(folder_)
    file.write_text(json.dumps({**entry, "artifact_hashes": {"model": new}}))
    evaluation = made_up.run / "stages/eval-sft/stage.json"
    evaluation.write_text(evaluation.read_text().replace(old, new))
    assert ship(made_up.run, "--to", "out")[0] == 0
    config = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert config == {"eos_token_id": [7, 9, 3], "temperature": 0.6}


def test_texts_cannot_break_the_card(made_up: Any, told: dict[str, Any], tmp_path: Path) -> None:
    made_up.whole(values(50), values(90))
    event = {"kind": "alarm", "severity": "alarm", "code": "phrase", "stage": "sft", "step": 5}
    made_up.events({**event, "text": "| x |\n---\n<script>alert(1)</script> `code`"})
    assert ship(made_up.run, "--to", "out", "--force")[0] == 0
    text = (tmp_path / "out/README.md").read_text()
    assert "<script" not in text and "&lt;script>alert(1)&lt;/script>" in text
    assert text.count("\n---\n") == 1, "only the front matter's own end"


@pytest.mark.parametrize("passed", [True, False])
def test_a_gate_that_does_not_pass_ends_the_run_with_3(
    passed: bool, stages: Any, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stages.execute

    def execute(stage: Any, context: Any) -> StageResult:
        if stage.kind != "ship":
            return real(stage, context)  # type: ignore[no-any-return]
        (context.stage_dir / "gate.json").write_text("{}")
        return StageResult({PASSED: Measure(float(passed), None, None, 1)}, {"gate": "gate.json"})

    monkeypatch.setattr(sys.modules["strop.recipes.stages"], "execute", execute)
    recipe["stages"].append({"kind": "ship", "name": "ship", "model": "@dpo"})
    result = strop.run({**recipe, "reuse": True}, display="quiet")
    assert (result.state, result.exit_code, result.error) == ("finished", 0 if passed else 3, None)
    again = strop.run({**recipe, "reuse": True}, display="quiet")
    states = {s["name"]: s["state"] for s in json.loads((again.path / "summary.json").read_text())["stages"]}
    assert states["dpo"] == "reused" and states["ship"] == "finished", "a gate is never taken from another run"


def test_help_and_parsing_import_no_torch() -> None:
    code = "import sys, strop.recipes.shipping.ship; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
