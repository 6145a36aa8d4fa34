from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import strop
from strop.cli import app, main

SRC = str(Path(__file__).parents[1] / "src")
runner = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"q{i}", "chosen": "good", "rejected": "bad"} for i in range(40)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def call(*arguments: str, code: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, `code` after it."""
    script = f"""
import sys
from strop.cli import main
sys.argv = ["strop", *{list(arguments)!r}]
try:
    main()
finally:
    pass
    {code}
"""
    env = {**os.environ, "PYTHONPATH": SRC, "NO_COLOR": "1"}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, cwd=cwd, timeout=120)


def failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Any, str]:
    """Exit code and error text of `main`."""
    monkeypatch.setattr(sys, "argv", ["strop", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code, capsys.readouterr().err


def test_every_verb_has_help() -> None:
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert set(verbs) == {
        *("run", "quickstart", "eval", "validate", "inspect", "methods", "advise", "sample", "chat"),
        *("report", "export", "ls", "cp", "doctor", "schema", "lint-tasks", "verify", "judge", "monitor", "ship"),
        "plan",
    }
    for verb in verbs:
        result = runner.invoke(app, [verb, "--help"])
        assert result.exit_code == 0 and verb in result.output


NO_TORCH = "print('heavy:', sorted({'torch', 'transformers', 'datasets', 'numpy.random'} & set(sys.modules)))"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["ls"],
        ["validate", "dpo", "model=x", "data=pairs.jsonl"],
        ["inspect", "pairs.jsonl"],
        ["doctor"],
        ["schema"],
    ],
    ids=" ".join,
)
def test_what_only_looks_imports_no_torch(folder: Path, arguments: list[str]) -> None:
    result = call(*arguments, code=NO_TORCH, cwd=folder)
    assert "heavy: []" in result.stdout, result.stderr


def test_import_strop_and_report_are_torch_free(folder: Path) -> None:
    run = folder / "runs/x-1"
    (run / "stages").mkdir(parents=True)
    (run / "config.yaml").write_text("name: x\nkind: sft\n")
    result = call("report", str(run), code="print('heavy:', 'torch' in sys.modules)", cwd=folder)
    assert "heavy: False" in result.stdout, result.stderr
    assert (run / "report.html").is_file()


def test_validate_says_what_a_run_would_do(folder: Path) -> None:
    result = runner.invoke(app, ["validate", "dpo", "model=x", "data=pairs.jsonl", "objective=ipo"])
    assert result.exit_code == 0
    assert "changed  objective: dpo -> ipo" in result.output
    assert "38 rows (2 held out) x 1 passes / 32 = 2 steps" in result.output
    found = runner.invoke(app, ["validate", "dpo", "model=x", "data=pairs.jsonl", "--json"])
    value = json.loads(found.output)
    assert value["recipe"]["model"] == "x"
    assert value["stages"][0]["data"]["data"]["rows"] == 40


def test_the_version_is_told() -> None:
    assert runner.invoke(app, ["--version"]).output == f"{strop.__version__}\n"


def test_mistakes_are_one_block_on_stderr_and_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = failure(capsys, monkeypatch, "validate", "dpo", "model=x", "objective.betta=1")
    assert code == 2
    assert text.splitlines()[0].startswith("error: override objective.betta=1: objective.betta: unknown; did you mean")
    assert "data: is missing" in text and "Traceback" not in text
    for arguments, words in (
        (["run", "grop"], "did you mean grpo?"),
        (["run", "dpo", "model=x", "data=pears.jsonl"], "did you mean pairs.jsonl?"),
        (["run", "dpo", "model=x", "data=pairs.jsonl", "--display", "loud"], "expected one of auto, live"),
        (["inspect", "pairs.jsonl", "modle=x"], "modle: unknown; allowed: "),
        (["inspect", "pairs.jsonl", "rows=x"], "rows: expected a whole number"),
        (["report", "nowhere"], "no such run directory"),
        (["export", "nowhere"], "no run directory"),
        (["sample", "m", "temperature=x", "hello"], "sampling.temperature: expected a number"),
        (["sample", "m", "temperature=1"], "no prompt given"),
        (["chat", "m", "hello"], "a setting is key=value"),
        (["frobnicate"], "No such command"),
        (["dpo", "model=x"], "dpo is a recipe, not a verb; run it as strop run dpo"),
        (["run", "runs/x"], "no such recipe, file or run directory"),
        (["eval", "model=./m", "data=pairs.jsonl"], "eval.model: ./m: no such folder"),
        (["chat", "model=./m"], "./m: no such folder"),
        (["run"], "Missing argument"),
    ):
        code, text = failure(capsys, monkeypatch, *arguments)
        assert code == 2 and words in text, (arguments, text)


def test_ls_lists_recipes_and_runs(folder: Path) -> None:
    run = folder / "runs/dpo-20260101-000000-abcd"
    (run / "stages").mkdir(parents=True)
    (run / "config.yaml").write_text("kind: sft\n")
    status = {"state": "interrupted", "stage": "dpo", "step": 3, "steps": 9, "updated": 1.7e9}
    (run / "status.json").write_text(json.dumps(status))
    text = runner.invoke(app, ["ls"]).output
    assert "grpo" in text and "interrupted  dpo 3/9" in text
    value = json.loads(runner.invoke(app, ["ls", "--json"]).output)
    assert {"sft", "dpo", "grpo"} <= set(value["recipes"])
    assert value["runs"][0]["state"] == "interrupted"


def test_cp_copies_with_comments_and_never_over_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runner.invoke(app, ["cp", "dpo", "mine.yaml"]).exit_code == 0
    assert "# Direct preference optimisation" in Path("mine.yaml").read_text()
    assert runner.invoke(app, ["cp", "mine.yaml", str(folder / "sub.yaml")]).exit_code == 0
    code, text = failure(capsys, monkeypatch, "cp", "dpo", "mine.yaml")
    assert code == 2 and "mine.yaml exists" in text
    assert runner.invoke(app, ["validate", "mine.yaml", "model=x", "data=pairs.jsonl"]).exit_code == 0


def test_inspect_counts_rows_and_takes_data_settings(folder: Path) -> None:
    value = json.loads(runner.invoke(app, ["inspect", "pairs.jsonl", "limit=7", "rows=1", "--json"]).output)
    assert (value["groups"], len(value["samples"]), value["kind"]) == (7, 1, "preference")


def test_doctor_names_what_is_wrong_with_the_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    value = json.loads(runner.invoke(app, ["doctor", "--json"]).output)
    assert value["cores"] >= 1 and value["packages"]["numpy"]
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 1 and "OMP_NUM_THREADS=4096" in result.output


def test_schema_is_json_schema() -> None:
    assert json.loads(runner.invoke(app, ["schema"]).output)["title"] == "strop recipe"


# Choosing a method.


def test_methods_and_advice_are_printed_and_need_no_torch(folder: Path) -> None:
    done = call("methods", code='assert "torch" not in sys.modules', cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("method ") and "arXiv:2305.18290" in done.stdout
    done = call("advise", "pairs.jsonl", code='assert "torch" not in sys.modules', cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "\n  strop run dpo-norm model=MODEL data=pairs.jsonl\n" in done.stdout


def test_methods_and_advice_as_json(folder: Path) -> None:
    result = runner.invoke(app, ["methods", "--json"])
    assert {row["name"] for row in json.loads(result.output)} >= {"sft", "dpo", "grpo", "ppo", "raft"}
    result = runner.invoke(app, ["advise", "pairs.jsonl", "--parameters", "7B", "--gpu-memory", "24", "--json"])
    found = json.loads(result.output)
    assert found["advice"]["method"] == "dpo-norm" and found["data"]["comparisons"]["num"] == 40
    assert "adapter.r=16" in found["advice"]["settings"]


def test_advice_on_what_cannot_be_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, words in (
        (("nowhere.jsonl",), "nowhere.jsonl"),
        (("pairs.jsonl", "columsn.prompt=q"), "unknown; allowed: columns, kind, limit"),
        (("pairs.jsonl", "--verifier", "number"), "compares with a column 'answer' that no row has"),
        (("pairs.jsonl", "--parameters", "large"), "expected a number of weights, as 7B"),
    ):
        code, text = failure(capsys, monkeypatch, "advise", *arguments)
        assert code == 2 and words in text, text
