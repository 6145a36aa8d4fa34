"""Comparing runs: paired differences, one curve a run in its own style, and what the configs differ in."""

import json
import shutil
import subprocess
import sys

import pytest
from tests.report.pages import EVIL, Page, check_safe

from strop.report import told, write_comparison
from strop.report.compare import answers_of, charts_of, judged_of, shortened, sides_of
from strop.report.page import LADDER, MAX_BYTES
from strop.report.records import Run
from strop.report.settings import differences, flat_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make):
    """Three runs of the same recipe; the second with another beta, the third with another seed as well."""
    root = tmp_path_factory.mktemp("runs")
    for place, seed in enumerate((7, 7, 8)):
        make(root / f"run-{place}", seed=seed)
    for name, beta in (("run-1", "0.5"), ("run-2", "0.9")):
        path = root / name / "config.yaml"
        path.write_text(path.read_text().replace("beta: 0.2", f"beta: {beta}"))
    return [root / f"run-{place}" for place in range(3)]


@pytest.fixture(scope="module")
def page(folders):
    path = write_comparison(folders)
    assert path.parent == folders[0].parent and path.name == "compare-run-0-vs-run-1-vs-run-2.html"
    assert path.stat().st_size < MAX_BYTES
    found = Page(path.read_text())
    check_safe(found)
    return found


def test_each_run_has_its_verdict_and_the_settings_that_differ_stand_side_by_side(page):
    assert page.text.count("above models/base-135m on the same prompts") == 3
    assert "stages.dpo.objective.beta 0.2 0.5 0.9" in page.text
    assert "stages.sft.training.steps" not in page.text


def test_differences_are_paired_by_prompt(folders):
    same, other = judged_of(sides_of(folders))[-1].paired.rows[0].figures
    assert (same.value, same.n) == (0.0, 120)  # the same samples
    scores = [
        [json.loads(line)["completions"][0]["score"] for line in (f / "stages/eval-grpo/samples.jsonl").open()]
        for f in (folders[0], folders[2])
    ]
    assert other.value == pytest.approx(sum(b - a for a, b in zip(*scores, strict=True)) / 120)
    assert other.low < other.value < other.high and other.n == 120


def test_prompts_of_other_runs_are_not_paired(folders, tmp_path, make):
    strange = make(tmp_path / "strange", seed=3)
    for path in strange.glob("stages/*/samples.jsonl"):
        rows = [{**json.loads(line), "prompt": f"other {i}"} for i, line in enumerate(path.read_text().splitlines())]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = judged_of(sides_of([folders[0], strange]))[-1]
    assert judged.paired.rows == () and judged.plain.rows
    assert answers_of(judged, 50)[1] == ()


def test_every_curve_is_a_run_in_its_own_colour_and_dashes(folders):
    stages = charts_of(sides_of(folders), LADDER[0])
    assert [s.name for s in stages] == ["sft", "dpo", "grpo"]
    margins = next(c for c in stages[1].charts if c.title == "Reward margin")
    assert margins.legend == ("A 0", "B 1", "C 2") and margins.styles == (0, 1, 2)
    logps = [c.title for c in stages[1].charts if c.title.startswith("Log-probabilities")]
    assert logps == ["Log-probabilities: logps/chosen", "Log-probabilities: logps/rejected"]


def test_a_run_without_the_stage_leaves_the_others_their_colours(folders, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    stages = charts_of(sides_of([bare, *folders[1:]]), LADDER[0])
    assert {c.styles for s in stages for c in s.charts} == {(1, 2)}


def test_prompts_stand_first_where_the_runs_differ_most(folders):
    sides = sides_of([folders[0], folders[2]])
    names, rows = answers_of(judged_of(sides)[-1], 50)
    spreads = [abs(r.cells[0].mean - r.cells[1].mean) for r in rows]
    assert names == ["A 0", "B 2"]
    assert len(rows) == 50 and spreads == sorted(spreads, reverse=True) and spreads[0] > 0


def test_eight_runs_fit_and_nine_do_not(folders, tmp_path):
    eight = [tmp_path / f"a-run-with-a-rather-long-name-{i}" for i in range(8)]
    for path in eight:
        shutil.copytree(folders[2], path)
    path = write_comparison(eight)
    assert path.stat().st_size < MAX_BYTES and len(path.name) <= 130
    check_safe(Page(path.read_text()))
    with pytest.raises(ValueError, match="9 runs; a comparison is of 2 to 8"):
        write_comparison([*eight, folders[0]])
    with pytest.raises(ValueError, match="named twice"):
        write_comparison([folders[0], folders[0]])
    with pytest.raises(ValueError, match="no such run"):
        write_comparison([folders[0], tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="is no folder"):
        write_comparison(folders, tmp_path / "nowhere" / "page.html")
    with pytest.raises(ValueError, match="a folder; name a file in it, as"):
        write_comparison(folders, tmp_path)
    assert not list(tmp_path.parent.glob("*.part"))


def test_runs_that_died_and_runs_with_hostile_names_are_compared_too(tmp_path, put):
    for place in range(2):
        folder = tmp_path / f"{place}"
        stage = {
            "name": EVIL, "kind": "evaluate", "metrics": {EVIL: {"value": 0.1 * place, "n": 3}},
            "inputs": {"model": EVIL, "data": EVIL}, "data": {"sha256": EVIL, "rows": 3},
        }  # fmt: skip
        folder.mkdir()
        put(
            folder / "summary.json",
            {"name": EVIL, "command": EVIL, "stages": [stage], "lineage": [{"name": EVIL, "hash": EVIL}]},
        )
        put(folder / "status.json", {"state": "failed", "error": EVIL})
        put(folder / "metrics.jsonl", [{"stage": EVIL, "step": t, "loss": 1.0, EVIL: 2.0} for t in range(3)])
        (folder / "config.yaml").write_text(f"{EVIL!r}: {place}\nstages: [{EVIL!r}, 1]\n")
    page = Page(write_comparison([tmp_path / "0", tmp_path / "1"]).read_text())
    check_safe(page)
    assert page.text.count(EVIL) > 6


def test_a_stage_that_one_run_lacks_is_one_row_of_the_settings():
    one = Run("a", config="stages:\n- {name: sft, lr: 1e-5}\n- {name: dpo, beta: 0.1, betas: [0.9, 0.95]}\n")
    two = Run("b", config="seed: 3\nstages:\n- {name: sft, lr: 1e-4}\n")
    assert differences([one, two]) == [
        ("stages that not all have", ("dpo", "–")), ("seed", ("–", "3")), ("stages.sft.lr", ("1e-5", "1e-4")),
    ]  # fmt: skip


def test_a_config_that_cannot_be_read_has_no_settings():
    assert flat_of("a: [") == {} and flat_of("") == {} and flat_of("a: {b: [1, 2]}") == {"a.b": "1, 2"}
    assert differences([Run("a", config="a: ["), Run("b", config="a: [")]) == []


def test_what_a_program_reads_is_what_the_page_says(folders):
    value = json.loads(json.dumps(told(folders[:2], folders[0] / "x.html")))
    assert value["runs"][0]["verdict"]["tone"] == "better" and value["runs"][0]["state"] == "finished"
    assert value["runs"][1]["evaluation"]["eval-grpo"]["reward"]["n"] == 120
    assert [a["kind"] for a in value["runs"][0]["alerts"]] == ["alarm", "nonfinite"]


def test_the_command_writes_and_prints_and_imports_no_torch(folders, tmp_path):
    code = (
        "import sys; from strop.cli import main; sys.argv[0] = 'strop'\ntry:\n    main()\nexcept SystemExit as end:\n"
    )
    code += "    assert not end.code, end.code\nassert 'torch' not in sys.modules"
    words = ["report", *map(str, folders[:2]), "--to", str(tmp_path / "both.html"), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["report"] == str(tmp_path / "both.html") and (tmp_path / "both.html").is_file()


def test_labels_leave_out_what_all_names_begin_with():
    assert shortened(["dpo-20260101-a1", "dpo-20260101-b2"]) == ["a1", "b2"]
    assert shortened(["dpo-1", "sft-1"]) == ["dpo-1", "sft-1"] and shortened(["run", "run-2"]) == ["run", "run-2"]


def test_a_setting_that_is_empty_is_one_that_is_not_there():
    runs = [Run("a", config="seed: null\nlr: 1"), Run("b", config="lr: 1"), Run("c", config="lr: null")]
    assert differences(runs) == [("lr", ("1", "1", "null"))]


def test_runs_of_other_lengths_are_compared_by_where_each_ended(folders, tmp_path):
    short = tmp_path / "short"
    shutil.copytree(folders[2], short)
    summary = json.loads((short / "summary.json").read_text())
    summary["stages"] = [s for s in summary["stages"] if "grpo" not in s["name"]]
    (short / "summary.json").write_text(json.dumps(summary))
    shutil.rmtree(short / "stages" / "eval-grpo")
    shutil.rmtree(short / "stages" / "grpo")
    judged = judged_of(sides_of([folders[0], short]))
    assert [j.stage for j in judged] == ["eval-base", "eval-sft", "eval-dpo", "the last evaluation of each"]
    assert judged[-1].stages == ("eval-grpo", "eval-dpo") and judged[-1].paired.rows


def test_what_all_rounds_differ_in_is_said_once():
    configs = [
        f"stages: [{{name: dpo-1, beta: {b}}}, {{name: dpo-2, beta: {b}}}, {{name: dpo-3, beta: 1}}]" for b in (1, 2)
    ]
    assert differences([Run("r", config=config) for config in configs]) == [("stages.dpo-*.beta", ("1", "2"))]


def test_figures_of_other_rows_are_called_not_comparable(folders, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folders[2], other)
    summary = json.loads((other / "summary.json").read_text())
    for stage in summary["stages"]:
        if stage["name"] == "eval-grpo":
            stage["data"]["kept"] -= 1
    (other / "summary.json").write_text(json.dumps(summary))
    warning = "Not all were evaluated on the same rows"
    assert Page(write_comparison([folders[0], other], tmp_path / "a.html").read_text()).text.count(warning) == 1
    assert warning not in Page(write_comparison(folders, tmp_path / "b.html").read_text()).text
