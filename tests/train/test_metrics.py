"""What a run writes: whole lines, nothing silent, resumable; and sums that do not depend on the split."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from strop import dist
from strop.train.metrics import MetricSums, RunLog, margins, read_jsonl, truncate, write_json


def strict(line: str) -> object:
    """JSON without the NaN and Infinity that Python's parser takes."""
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_metrics_and_events_are_json_lines_and_nonfinite_numbers_are_named(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run")
    log.metrics("dpo", 3, {"loss": float("nan"), "rewards/margins": 0.1 + 0.2, "kl": -math.inf, "n": 4})
    log.event(
        "alarm", "KL is 12 – too far", stage="dpo", step=3, extra={"values": [1.0, math.inf], "by": {"a": math.nan}}
    )
    log.close()
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    row = strict(line)
    assert isinstance(row, dict) and row.pop("time") > 1e9
    assert row == {
        "stage": "dpo", "step": 3, "loss": None, "rewards/margins": 0.1 + 0.2, "kl": None, "n": 4,
        "nonfinite": ["loss", "kl"],
    }  # fmt: skip
    (event,) = read_jsonl(tmp_path / "run" / "events.jsonl")
    assert event["kind"] == "alarm" and event["text"] == "KL is 12 – too far" and event["step"] == 3
    assert event["values"] == [1.0, None] and event["by"] == {"a": None}
    assert event["nonfinite"] == ["values[1]", "by.a"]


def test_lines_are_there_before_the_log_is_closed(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.metrics("a", 0, {"text": 0.5})
    log.event("start", "x" * 100_000)
    assert read_jsonl(tmp_path / "metrics.jsonl")[0]["text"] == 0.5
    assert len(read_jsonl(tmp_path / "events.jsonl")[0]["text"]) == 100_000
    log.close()


def test_status_is_replaced_whole(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.status("running", stage="sft", step=5, steps=10)
    log.status("failed", stage="sft", step=6, steps=10, error="out of memory")
    status = json.loads((tmp_path / "status.json").read_text())
    assert status.pop("updated") > 1e9
    assert status == {
        "state": "failed", "stage": "sft", "step": 6, "steps": 10, "pid": os.getpid(), "error": "out of memory"
    }  # fmt: skip
    write_json(tmp_path / "summary.json", {"value": math.nan})
    assert strict((tmp_path / "summary.json").read_text()) == {"value": None, "nonfinite": ["value"]}
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "events.jsonl",
        "metrics.jsonl",
        "status.json",
        "summary.json",
    ]
    log.close()


def test_a_reader_of_the_status_never_sees_half(tmp_path: Path) -> None:
    log, stop, bad = RunLog(tmp_path), threading.Event(), []
    log.status("running")

    def read() -> None:
        while not stop.is_set():
            try:
                json.loads((tmp_path / "status.json").read_text())
            except ValueError as error:
                bad.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(300):
        log.status("running", step=step, error="x" * 10_000)
    stop.set()
    reader.join()
    log.close()
    assert not bad


def test_rewind_forgets_the_stages_steps_that_will_be_done_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for stage, steps in (("sft", 4), ("dpo", 5)):
        log.event("start", stage, stage=stage)
        for step in range(steps):
            log.metrics(stage, step, {"loss": 1.0})
    log.rewind("dpo", 3)
    log.metrics("dpo", 3, {"loss": 2.0})
    log.close()
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [(r["stage"], r["step"]) for r in rows] == [("sft", t) for t in range(4)] + [("dpo", t) for t in range(4)]
    assert rows[-1]["loss"] == 2.0
    assert len(read_jsonl(tmp_path / "events.jsonl")) == 2


def test_truncate_counts_drops_the_torn_line_and_keeps_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    assert truncate(path, "a", 0) == 0 and not path.exists()
    kept = b'{"stage": "a",  "step":0}\n{"stage":"b","step":9}\n{"kind":"start"}\n'
    path.write_bytes(kept + b'{"stage":"a","step":1}\n\n{"stage":"a","st')
    assert truncate(path, "a", 1) == 2
    assert path.read_bytes() == kept
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_line_torn_anywhere_is_cut_when_the_log_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first, second = b'{"stage":"a","step":0}\n', '{"stage":"ä","step":1}'.encode()
    for cut in range(len(second) + 1):
        path.write_bytes(first + second[:cut])
        assert len(read_jsonl(path)) == (2 if cut == len(second) else 1)
        log = RunLog(tmp_path)
        log.metrics("a", 2, {})
        log.close()
        assert [r["step"] for r in read_jsonl(path)] == ([0, 1, 2] if cut == len(second) else [0, 2])


def test_a_bad_line_that_was_not_torn_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":\n{"a":2}\n')
    with pytest.raises(ValueError, match=r"m.jsonl:2: no JSON"):
        read_jsonl(path)
    path.write_bytes(b'{"a":1}\n[1]\n')
    with pytest.raises(ValueError, match=r"m.jsonl:2: expected a JSON object, got list"):
        read_jsonl(path)
    path.write_bytes(b'{"a":1}\nnull\n')
    with pytest.raises(ValueError, match=r"m.jsonl:2: expected a JSON object, got NoneType"):
        read_jsonl(path)


def test_sums_are_one_mean_over_any_split() -> None:
    values = torch.tensor([4.0, 1.0, 1.0, 1.0, 5.0])
    whole, split = MetricSums(), MetricSums()
    whole.add("loss", values)
    split.add("loss", values[:1])
    split.add("loss", values[1:1])
    split.add("loss", values[1:].requires_grad_())
    for sums in (whole, split):
        sums.add_value("grad_norm", 3.0)
        sums.add_value("reward", 6.0, 4)
        sums.add("none", values[:0])
        assert sums.result() == {"grad_norm": 3.0, "loss": 2.4, "reward": 1.5}
        assert sums.result()["loss"] == 2.4  # asking twice counts nothing twice


def test_sums_of_bf16_and_of_many_are_exact_to_float64() -> None:
    sums = MetricSums()
    for _ in range(10):
        sums.add("x", torch.full((100_000,), 0.1))
        sums.add("half", torch.full((1000,), 1.0).bfloat16())
        sums.add("flag", torch.tensor([True, False]))
    result = sums.result()
    assert result["x"] == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)
    assert result["half"] == 1.0 and result["flag"] == 0.5


def test_names_say_what_is_a_largest_and_a_smallest_entry() -> None:
    """TRL's min_reward and max_reward, and .../max: the extreme over the whole step, not a mean over its parts."""
    sums = MetricSums()
    for part in ([3.0, -1.0], [2.0], []):
        for name in ("max_reward", "min_reward", "ratio/max", "ratio/min", "mean_reward"):
            sums.add(name, torch.tensor(part))
    want = {"max_reward": 3.0, "min_reward": -1.0, "ratio/max": 3.0, "ratio/min": -1.0}
    assert sums.result() == {**want, "mean_reward": pytest.approx(4 / 3)}


def test_nan_is_not_hidden() -> None:
    sums = MetricSums()
    sums.add("x", torch.tensor([1.0, float("nan")]))
    assert math.isnan(sums.result()["x"])


def test_ranks_that_measured_different_things_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    local, shared, results = threading.local(), [[0.0]] * 3, {}
    barrier = threading.Barrier(3, timeout=20)

    def sum_numbers(values: list[float]) -> list[float]:
        shared[local.rank] = list(values)
        barrier.wait()
        total = [sum(column) for column in zip(*shared, strict=True)]  # as all_reduce: equal lengths or an error
        barrier.wait()
        return total

    monkeypatch.setattr(dist, "sum_numbers", sum_numbers)
    monkeypatch.setattr(dist, "world_size", lambda: 3)
    monkeypatch.setattr(dist, "rank", lambda: local.rank)

    def work(rank: int) -> None:
        local.rank = rank
        sums = MetricSums()
        if rank != 1:
            sums.add("loss", torch.tensor([1.0, 2.0, 3.0][: rank + 1]))
        if rank == 2:
            sums.add("größe", torch.tensor([8.0]))
        results[rank] = sums.result()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(3), {"größe": 8.0, "loss": 7 / 4})


def test_reading_and_writing_logs_imports_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from strop.train.metrics import MetricSums, RunLog
log = RunLog(Path(sys.argv[1])); log.metrics("a", 0, {"b": 1.0}); log.status("running"); log.close()
sums = MetricSums(); sums.add_value("a", 1.0); sums.result()
assert 'torch' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_margins_of_unpaired_rows_are_the_difference_of_the_means_over_the_whole_step() -> None:
    sums = MetricSums()
    for chosen, rejected in (([1.0, 2.0, 3.0], [0.5]), ([], [0.0, 1.0])):
        sums.add("rewards/chosen", torch.tensor(chosen))
        sums.add("rewards/rejected", torch.tensor(rejected))
    assert sums.result() == {"rewards/chosen": 2.0, "rewards/rejected": 0.5, "rewards/margins": 1.5}


def test_margins_need_both_classes_and_leave_measured_ones_alone() -> None:
    assert margins({"rewards/chosen": 1.0}) == {}
    assert margins({"rewards/chosen": 1.0, "rewards/rejected": 0.0, "rewards/margins": 7.0}) == {}
