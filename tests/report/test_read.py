import json
import math

import pytest

from strop.report.read import read_run
from strop.report.records import Figure


def test_a_finished_run_is_read_as_written(run_dir):
    run = read_run(run_dir)
    told = json.loads((run_dir / "summary.json").read_text())
    assert (run.name, run.state, run.seed, run.version, run.problems) == ("word-problems", "finished", "7", "0.1.0", ())
    assert [s.name for s in run.stages] == [s["name"] for s in told["stages"]]
    for stage, entry in zip(run.stages, told["stages"], strict=True):
        assert stage.metrics == {k: Figure(**v) for k, v in entry["metrics"].items()}
        assert stage.phases == entry["phases"]
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "rewards/margins", "logps/chosen"):
        assert run.curves["dpo"][name] == tuple((x["step"], x[name]) for x in lines if x["stage"] == "dpo")
    assert run.stages[1].data.examples["longer than max_length"].startswith("train.jsonl:1204:")
    assert sum(len(groups) for groups in run.samples.values()) == 480


def test_a_null_is_a_gap(finished_run):
    (step,) = [t for t, v in read_run(finished_run).curves["grpo"]["grad_norm"] if math.isnan(v)]
    assert step == 211


def test_a_step_written_again_after_a_resume_counts_once(tmp_path, put):
    lines = [{"stage": "sft", "step": s, "loss": v} for s, v in ((0, 3.0), (1, 2.0), (2, 9.0), (1, 2.5), (2, 1.0))]
    put(tmp_path / "metrics.jsonl", lines)
    assert read_run(tmp_path).curves["sft"]["loss"] == ((0, 3.0), (1, 2.5), (2, 1.0))


def test_torn_lines_are_left_out_and_said(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"stage": "sft", "step": 0, "loss": 1.0}\n[1]\n{"stage": "sft", "st')
    (tmp_path / "summary.json").write_text('{"name": "x", "sta')
    (tmp_path / "status.json").write_text("")
    run = read_run(tmp_path)
    assert run.curves["sft"]["loss"] == ((0, 1.0),)
    words = " ".join(run.problems)
    assert "metrics.jsonl: 2 line(s) torn or not JSON objects, left out; the first is line 2" in words
    assert "summary.json is torn" in words and "status.json is torn" in words and "events.jsonl is missing" in words


def test_a_run_killed_before_its_summary_is_read_from_its_stages(run_dir):
    (run_dir / "summary.json").unlink()
    run = read_run(run_dir)
    by_name = {s.name: s for s in run.stages}
    assert list(by_name)[:3] == ["sft", "dpo", "grpo"] and by_name["dpo"].kind == "preference"
    assert by_name["dpo"].seconds == 99.0
    assert "summary.json is missing" in run.problems


@pytest.mark.parametrize(
    "value",
    [
        [],
        "text",
        7,
        None,
        {"stages": 3},
        {"stages": [None, 5, {}]},
        {"name": {"a": 1}, "seconds": "x", "lineage": [3, {}]},
    ],
)
def test_a_summary_of_any_shape_is_survived(tmp_path, put, value):
    put(tmp_path / "summary.json", value)
    assert read_run(tmp_path).name == tmp_path.name


def test_stage_entries_of_any_shape_are_survived(tmp_path, put):
    stage = {
        "name": "sft",
        "metrics": {"a": "x", "b": True, "c": {"value": None, "n": 0}, "d": {"value": 1, "low": "x"}, "e": 2},
        "phases": {"train": None, "data": math.inf},
        "data": {"dropped": [1], "rows": "many"},
        "inputs": {"model": ["x"]},
    }
    put(tmp_path / "summary.json", {"stages": [stage]})
    (read,) = read_run(tmp_path).stages
    assert list(read.metrics) == ["c", "d", "e"] and math.isnan(read.metrics["c"].value)
    assert read.metrics["d"] == Figure(1.0) and read.phases == {} and read.data.rows is None


def test_bad_sample_lines_are_counted_with_the_reason(tmp_path, put):
    good = {"prompt": "p", "completions": [{"content": "c", "score": None, "rewards": {"a": None}}]}
    bad = [
        {"prompt": "p"},
        {"prompt": "p", "completions": [{"content": "c", "score": "high"}]},
        {"prompt": 3, "completions": []},
        {"prompt": "p", "completions": [{"content": "x", "colour": 1}]},
    ]
    put(tmp_path / "stages" / "eval" / "samples.jsonl", [good, *bad])
    run = read_run(tmp_path)
    assert len(run.samples["eval"]) == 1 and run.samples["eval"][0].answers[0].score is None
    assert any("stages/eval/samples.jsonl: 4 line(s) left out; the first: a group needs" in p for p in run.problems)


def test_stage_names_are_never_joined_to_paths(tmp_path, put):
    run_dir = tmp_path / "run"
    put(tmp_path / "outside" / "stage.jsonl", [])
    (tmp_path / "outside" / "stage.json").write_text('{"kind": "secret"}')
    put(run_dir / "metrics.jsonl", [{"stage": "../../outside", "step": 0, "loss": 1.0}])
    assert read_run(run_dir).stages[0].kind == ""


def test_no_directory_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such run directory"):
        read_run(tmp_path / "nowhere")
