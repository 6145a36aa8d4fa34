"""What stages leave beside the summary: held-out figures among the events, monitors' answers, calibration, gates."""

from tests.report.pages import Page, check_safe

from strop.report import write_report
from strop.report.calibration import reliability_chart
from strop.report.goals import goals_of
from strop.report.read import read_run
from strop.report.records import Answer, Bin, Sampled
from strop.report.traces import spread


def evaluated(step, **metrics):
    return {"kind": "evaluate", "stage": "rm", "step": step, "text": "held out", "metrics": metrics}


def test_what_was_measured_between_steps_joins_the_curves(tmp_path, put):
    put(tmp_path / "metrics.jsonl", [{"stage": "rm", "step": t, "accuracy": 0.5} for t in range(4)])
    events = [
        evaluated(0, eval_accuracy=0.4),
        evaluated(4, eval_accuracy=0.8, letters=2.0),
        evaluated(4, eval_accuracy=0.9),
    ]
    put(tmp_path / "events.jsonl", events)
    curves = read_run(tmp_path).curves["rm"]
    assert curves["eval_accuracy"] == ((0, 0.4), (4, 0.9))  # said again after a resume: the last counts
    assert curves["eval/letters"] == ((4, 2.0),) and len(curves["accuracy"]) == 4


def test_the_plots_of_a_process_reward_model_begin_with_the_first_error(tmp_path, put):
    put(tmp_path / "summary.json", {"stages": [{"name": "rm", "kind": "process", "state": "finished"}]})
    put(tmp_path / "metrics.jsonl", [{"stage": "rm", "step": t, "loss": 0.5, "accuracy": 0.5} for t in range(4)])
    put(tmp_path / "events.jsonl", [evaluated(t, eval_first_error_accuracy=0.1 * t, eval_ece=0.2) for t in (0, 4)])
    page = Page(write_report(tmp_path).read_text())
    titles = [a["aria-label"] for tag, a in page.tags if tag == "svg" and "aria-label" in a]
    assert titles[0].startswith("First error found by step. eval_first_error_accuracy: 0 at step 0, 0.4000 at step 4")
    assert any(title.startswith("Calibration error") for title in titles)


def group(prompt, text, score):
    return {"prompt": prompt, "completions": [{"content": text, "score": score, "rewards": {"letters": score}}]}


def test_where_nothing_was_evaluated_the_monitors_answers_stand_side_by_side(tmp_path, put):
    for step in (0, 3, 12):
        rows = [group(f"prompt {i}", f"answer at {step}", float(step)) for i in range(3)]
        put(tmp_path / "stages" / "rl" / "monitor" / f"step-{step:06d}.jsonl", rows)
    run = read_run(tmp_path)
    assert list(run.samples) == ["rl step 0", "rl step 3", "rl step 12"]
    page = Page(write_report(tmp_path).read_text())
    check_safe(page)
    assert "3 of 3 prompts, each as answered at 3 checkpoints." in page.text
    assert "The worst 3 of rl step 12" in page.text


def test_samples_of_evaluate_stages_stand_alone_and_in_the_order_of_the_run(tmp_path, put):
    for name, kind in (("eval-b", "evaluate"), ("eval-a", "evaluate"), ("sample", "sample")):
        put(tmp_path / "stages" / name / "samples.jsonl", [group("p", name, 1.0)])
        put(tmp_path / "stages" / name / "stage.json", {"name": name, "kind": kind})
    stages = [{"name": n, "kind": "evaluate"} for n in ("eval-b", "eval-a")] + [{"name": "sample", "kind": "sample"}]
    put(tmp_path / "summary.json", {"stages": stages})
    assert sorted(read_run(tmp_path).samples) == ["eval-a", "eval-b"]
    assert "Scores stand in the order eval-b → eval-a ." in Page(write_report(tmp_path).read_text()).text


def test_spread_keeps_the_first_and_the_last():
    assert spread(list(range(20)), 4) == [0, 6, 13, 19] and spread([1, 2], 4) == [1, 2] and spread([], 3) == []


def test_rewards_that_count_for_nothing_are_no_goal():
    rewards = "{name: number}, {name: custom, label: rude, weight: -0.5}, {name: x, weight: 0}"
    config = f"stages:\n- {{name: e, rewards: [{rewards}]}}\n"
    samples = {"e": (Sampled("p", (Answer("t", 1.0, {"number": 1.0, "rude": 0.0, "x": 1.0}, {}, ""),)),)}
    assert goals_of(config, samples) == {"e": ("number",)}
    assert goals_of("", samples) == {"e": ("number", "rude", "x")} and goals_of(config, {}) == {}


def test_calibration_is_drawn_with_its_intervals_and_numbers(tmp_path, put):
    bins = [
        {"confidence": c, "right": r, "low": r - 0.1, "high": r + 0.1, "n": 40} for c, r in ((0.6, 0.5), (0.9, 0.7))
    ]
    put(tmp_path / "summary.json", {"stages": [{"name": "rm", "kind": "reward"}]})
    put(tmp_path / "metrics.jsonl", [{"stage": "rm", "step": 0, "loss": 0.7}])
    (tmp_path / "stages" / "rm").mkdir(parents=True)
    put(tmp_path / "stages" / "rm" / "calibration.json", {"curves": {"as trained": [*bins, {"right": 1}], "none": 3}})
    page = Page(write_report(tmp_path).read_text())
    check_safe(page)
    (label,) = [a["aria-label"] for _, a in page.tags if a.get("aria-label", "").startswith("Calibration")]
    assert label == "Calibration. as trained: 0.600 sure, 0.500 right; 0.900 sure, 0.700 right."


def test_a_calibration_without_bins_is_no_plot():
    assert reliability_chart({}, "rm") is None and reliability_chart({"x": ()}, "rm") is None
    chart = reliability_chart({"x": (Bin(1.0, 1.0, None, None, 3),)}, "rm")
    assert chart.table.rows == (("x", 1.0, 1.0, None, None, 3),)


def test_a_gate_says_what_held_the_model_back(tmp_path, put):
    outcome = {"set": "held-out", "metric": "accuracy", "verdict": "fail", "why": "0.1 below the base"}
    gate = {
        "passed": False,
        "outcomes": [outcome],
        "alarms": [{"stage": "rl", "step": 3, "open": True, "text": "longer"}],
    }
    (tmp_path / "ship").mkdir()
    put(tmp_path / "ship" / "gate.json", gate)
    text = Page(write_report(tmp_path).read_text()).text
    assert "Gate of strop ship not passed fail held-out · accuracy 0.1 below the base" in text
    assert "fail alarm of rl at step 3 longer" in text


def test_overlap_and_licences_are_shown_and_unknown_where_nobody_said(tmp_path, put):
    overlap = [{"stage": "sft", "path": "a.jsonl", "words": 13, "prompts": 50, "rows": 900, "same": 1, "shared": 4}]
    stages = [
        {"name": "sft", "kind": "sft", "inputs": {"model": "hub/base", "data": "a.jsonl"}},
        {
            "name": "e",
            "kind": "evaluate",
            "inputs": {"model": "@sft", "data": "t.jsonl"},
            "data": {"rows": 50, "overlap": overlap},
        },
    ]
    licences = {"hub/base": {"licence": "mit", "source": "LICENSE"}, "a.jsonl": {"licence": None, "source": None}}
    put(tmp_path / "summary.json", {"stages": stages, "licences": licences})
    text = Page(write_report(tmp_path).read_text()).text
    assert "e sft a.jsonl 900 50 1 4" in text and "13 words in a row" in text
    assert "hub/base mit LICENSE" in text and "a.jsonl unknown –" in text and "t.jsonl unknown –" in text


def test_a_run_of_no_steps_and_a_run_that_died_before_its_summary_have_reports(tmp_path, put):
    put(tmp_path / "a" / "metrics.jsonl", [])
    put(tmp_path / "a" / "events.jsonl", [{"kind": "start", "stage": "sft", "text": "sft begins", "time": 1.0}])
    (tmp_path / "a" / "stages" / "sft").mkdir(parents=True)
    put(
        tmp_path / "a" / "stages" / "sft" / "stage.json",
        {"name": "sft", "kind": "sft", "state": "running", "inputs": {"model": "hub/base"}},
    )
    text = Page(write_report(tmp_path / "a").read_text()).text
    assert "No training step was recorded." in text and "sft sft · running from hub/base" in text


def test_hostile_traces_stay_text(tmp_path, put):
    evil = "<script>1</script>\"'>"
    (tmp_path / "stages" / "rm").mkdir(parents=True)
    (tmp_path / "ship").mkdir()
    put(tmp_path / "stages" / "rm" / "calibration.json", {"curves": {evil: [{"confidence": 0.6, "right": 0.5}]}})
    put(tmp_path / "ship" / "gate.json", {"passed": evil, "outcomes": [{"set": evil, "verdict": evil, "why": evil}, 3]})
    overlap = {"stage": evil, "path": evil, "examples": [{"judged": evil, "words": evil}]}
    stage = {
        "name": "rm",
        "kind": "reward",
        "data": {"overlap": [overlap]},
        "metrics": {f"win_rate/{evil}": 0.5, f"{evil}/wins": 1},
    }
    put(
        tmp_path / "summary.json",
        {"stages": [stage, {**stage, "name": "e", "kind": "evaluate"}], "licences": {evil: evil}, "left_out": [evil]},
    )
    put(tmp_path / "metrics.jsonl", [{"stage": "rm", "step": 0, "loss": 0.7}])
    page = Page(write_report(tmp_path).read_text())
    check_safe(page)
    assert page.text.count(evil) > 8
