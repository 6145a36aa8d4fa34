import json
import math
import random
import re
import subprocess
import sys

import pytest
from tests.report.pages import EVIL, EVIL_NAME, Page, check_safe

from strop.report import write_report
from strop.report.page import MAX_BYTES


def report(run_dir):
    path = write_report(run_dir)
    assert path == run_dir / "report.html" and not list(run_dir.glob("*.part"))
    raw = path.read_bytes()
    assert len(raw) < MAX_BYTES
    page = Page(raw.decode("utf-8"))
    check_safe(page)
    return page


@pytest.fixture(scope="module")
def page(finished_run):
    """The report of the finished run."""
    return report(finished_run)


def test_a_finished_run_says_what_it_found(page):
    assert "Better: reward in eval-grpo is 0.783, 0.748 above models/base-135m on the same prompts" in page.text
    assert "(95 % interval 0.649 to 0.848, n = 120)." in page.text.replace("\u00a0", " ")
    for words in (
        "Finished after 36 min 36 s.",
        "2 alerts were raised",
        "strop run align model=models/base-135m",
        "0.1.0",
    ):
        assert words in page.text
    for words in ("117 longer than max_length first: train.jsonl:1204: 3,310 tokens", "stages.dpo.objective.beta: 0.2"):
        assert words in page.text
    assert "This record is incomplete" not in page.text


def test_numbers_in_tables_equal_the_inputs(page, finished_run):
    shown = [float(attrs["value"]) for tag, attrs in page.tags if tag == "data"]
    stages = json.loads((finished_run / "summary.json").read_text())["stages"]
    metrics = [s["metrics"] for s in stages if s["kind"] == "evaluate"]
    names = ["reward", "rewards/exact/mean", "rewards/tags/mean", "completions/mean_length", "delta/reward"]
    assert shown == [m[name]["value"] for name in names for m in metrics if name in m]


def test_every_plot_has_a_label_a_table_and_a_csv(page):
    pictures = [attrs for tag, attrs in page.tags if tag == "svg" and "aria-hidden" not in attrs]
    assert all(p["role"] == "img" and len(p["aria-label"]) > 20 for p in pictures)
    downloads = [attrs for tag, attrs in page.tags if tag == "a" and "download" in attrs]
    assert len(downloads) == len(pictures) == [tag for tag, _ in page.tags].count("figure")
    assert all(a["href"].startswith("data:text/csv") for a in downloads)


def test_curves_are_those_of_the_method(page):
    text = page.text
    for title in (
        "Token accuracy",
        "Reward margin",
        "Preference accuracy",
        "Log-probabilities",
        "Reward parts",
        "Entropy",
    ):
        assert title in text
    assert "logps/chosen logps/rejected" in text and "Not finite at 1 step (211)" in text


def test_headings_step_down_one_level_at_a_time(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))


def test_the_same_directory_gives_the_same_bytes(run_dir):
    first = write_report(run_dir).read_bytes()
    assert write_report(run_dir).read_bytes() == first


def test_a_script_in_every_text_stays_text(tmp_path, put):
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    stages = [
        {
            "name": EVIL_NAME + kind, "kind": kind, "state": EVIL, "hash": EVIL, "seconds": 3.0, "phases": {EVIL: 2.0},
            "metrics": dict.fromkeys(("reward", "rewards/" + EVIL, EVIL, "delta/reward", "delta/" + EVIL), figure),
            "inputs": {"model": EVIL, "data": EVIL, "baseline": EVIL}, "artifacts": {"model": EVIL},
            "data": {"rows": 3, "dropped": {EVIL: 1}, "examples": {EVIL: EVIL}, "kind": EVIL, "sha256": EVIL},
        }
        for kind in ("sft", "evaluate", EVIL)
    ]  # fmt: skip
    texts = dict.fromkeys(("name", "command", "seed", "version"), EVIL)
    lineage = [{"name": EVIL, "kind": EVIL, "hash": EVIL}, EVIL]
    put(tmp_path / "summary.json", {**texts, "stages": stages, "difference": ["+" + EVIL, EVIL], "lineage": lineage})
    put(tmp_path / "status.json", {"state": EVIL, "stage": EVIL, "step": 1, "error": EVIL})
    (tmp_path / "config.yaml").write_text(EVIL)
    put(
        tmp_path / "metrics.jsonl",
        [{"stage": EVIL_NAME + "sft", "step": t, "loss": 1.0, f"rewards/{EVIL}/mean": t, EVIL: t} for t in range(60)]
        + [
            {"stage": EVIL_NAME + EVIL, "step": t, "reward": 1.0, f"rewards/{EVIL}/mean": t, "tokens_per_s": 9.0}
            for t in (0, 1)
        ],
    )
    event = {"time": 1.0, "stage": EVIL_NAME + "sft", "step": 3, "text": EVIL, "traceback": EVIL, "reason": EVIL}
    put(tmp_path / "events.jsonl", [{**event, "kind": kind} for kind in ("alarm", "drop", EVIL)])
    answer = {"content": EVIL, "score": 0.5, "rewards": {EVIL: 1.0}, "reasons": {EVIL: EVIL}, "finish": EVIL}
    lines = [
        {"prompt": EVIL, "completions": [answer, answer]},
        {
            "prompt": [{"role": EVIL, "content": EVIL}],
            "completions": [{**answer, "content": [{"role": "assistant", "content": EVIL}]}],
        },
    ]
    put(tmp_path / "stages" / (EVIL_NAME + "evaluate") / "samples.jsonl", lines)
    page = report(tmp_path)
    assert page.text.count(EVIL) > 40 and "49" not in page.text.split("{{ 7*7 }}")[1][:4]


@pytest.mark.parametrize(
    "gone", ["summary.json", "status.json", "config.yaml", "metrics.jsonl", "events.jsonl", "stages"]
)
def test_any_missing_file_is_said_and_the_rest_is_shown(run_dir, gone):
    (run_dir / gone).rename(run_dir.parent / gone)
    page = report(run_dir)
    if gone != "stages":
        assert f"This record is incomplete {gone} is missing" in page.text
    else:
        assert "No stage left samples." in page.text


def test_an_empty_directory_gives_a_report_too(tmp_path):
    text = report(tmp_path).text
    assert "How this run ended is not recorded." in text and "nothing is claimed about quality" in text
    assert "No training step was recorded." in text and "The command was not recorded." in text


def test_a_failed_run_shows_its_error_and_its_traceback(run_dir, put):
    put(
        run_dir / "status.json",
        {"state": "failed", "stage": "dpo", "step": 140, "steps": 300, "error": "out of memory <&>"},
    )
    with (run_dir / "events.jsonl").open("a") as file:
        file.write(
            json.dumps({"kind": "error", "text": "out of memory <&>", "traceback": "Traceback (most recent)"}) + "\n"
        )
    text = report(run_dir).text
    assert "Failed in stage dpo at step 140 of 300" in text and "Error out of memory <&>" in text
    assert "Traceback (most recent)" in text and "The run did not finish" in text and "2 alerts were raised" in text


def test_an_interrupted_run_says_how_to_go_on(run_dir, put):
    put(run_dir / "status.json", {"state": "interrupted", "stage": "grpo", "step": 9, "steps": 500})
    assert "Interrupted in stage grpo at step 9 of 500" in report(run_dir).text


def test_a_long_run_with_long_texts_stays_under_the_limit(run_dir, put):
    rng = random.Random(0)
    names = [f"series {i}" for i in range(24)] + [f"rewards/part {i}/mean" for i in range(12)] + ["reward"]
    put(
        run_dir / "metrics.jsonl",
        [{"stage": f"rl-{s}", "step": t, **{n: rng.random() for n in names}} for s in range(3) for t in range(420)],
    )
    for stage in ("eval-base", "eval-grpo"):
        answers = [{"content": "<&" * 20_000, "score": 0.0, "rewards": {"a": 0.0}, "reasons": {"a": "<" * 5000}}]
        put(
            run_dir / "stages" / stage / "samples.jsonl",
            [{"prompt": f"{i} " + "'<" * 9000, "completions": answers} for i in range(80)],
        )
    (run_dir / "config.yaml").write_text("<" * 500_000)
    put(
        run_dir / "events.jsonl",
        [{"kind": "alarm", "text": "<" * 5000, "stage": "rl-0", "step": t} for t in range(900)],
    )
    assert "more characters in samples.jsonl" in report(run_dir).text


def test_samples_are_capped_and_the_worst_ten_come_from_the_last_stage(page):
    assert "50 of 120 prompts, each as answered at 4 checkpoints." in page.text
    assert len([a for tag, a in page.tags if tag == "details" and a.get("class") == "sample"]) == 50
    assert "The worst 10 of eval-grpo" in page.text
    assert "cut at the length limit" in page.text and "no <answer> tag" in page.text


def test_characters_that_no_file_can_hold_are_replaced(tmp_path):
    line = '{"prompt": "p\\ud800", "completions": [{"content": "\\u0000 \\u202e \\udfff", "score": 1.0}]}\n'
    (tmp_path / "stages" / "eval").mkdir(parents=True)
    (tmp_path / "stages" / "eval" / "samples.jsonl").write_text(line)
    (tmp_path / "summary.json").write_text('{"name": "\\ud800", "command": "\\u0000"}')
    assert "␀" in report(tmp_path).text


def test_a_figure_that_could_not_be_scored_says_so(tmp_path, put):
    stage = {
        "name": "eval",
        "kind": "evaluate",
        "metrics": {"reward": {"value": None, "low": None, "high": None, "n": 0}},
    }
    put(tmp_path / "summary.json", {"state": "finished", "stages": [stage]})
    text = report(tmp_path).text
    assert "nothing scored" in text and "has no figure that a verdict could rest on" in text


def test_phases_are_summed_from_the_steps_where_the_summary_has_none(tmp_path, put):
    lines = [{"stage": "sft", "step": t, "loss": 1.0, "phase/train_s": 2.0, "phase/data_s": math.pi} for t in range(10)]
    put(tmp_path / "metrics.jsonl", lines)
    page = report(tmp_path)
    (label,) = [
        a["aria-label"] for tag, a in page.tags if tag == "svg" and a.get("aria-label", "").startswith("Time by phase")
    ]
    assert label == "Time by phase. sft: train 20 s, data 31 s."


def test_lineage_follows_at_names_and_evaluations_hang_on_their_model(page):
    text = page.text
    assert "models/base-135m base licence unknown 0.0350 reward 0.0124 to 0.0576, eval-base b45eb45eb45e" in text
    assert "grpo rl · finished from dpo data problems/prompts.jsonl 0.783 reward 0.688 to 0.879, eval-grpo" in text
    assert "20 min 12 s 4,000 rows 6e906e906e90" in text


def test_the_policy_allows_our_script_by_hash_and_nothing_else(page):
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv")]
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("sha256-") == 2


def test_no_torch_and_no_numpy_is_imported(run_dir):
    code = "import sys, pathlib; from strop.report import write_report; write_report(pathlib.Path(sys.argv[1]));"
    code += "assert not {'torch', 'numpy', 'transformers', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(run_dir)], check=True, env={"PYTHONPATH": ":".join(sys.path)})
