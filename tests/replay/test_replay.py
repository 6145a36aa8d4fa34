"""The same recipe twice, in processes of their own, gives the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import strop


def test_twenty_steps_of_each_method_are_bitwise_the_same_in_two_processes(
    tiny: Any, small_runs: Any, tmp_path: Path
) -> None:
    stages = [tiny.sft(steps=20), {**tiny.dpo(steps=20), "model": "@sft"}, {**tiny.grpo(steps=20), "model": "@dpo"}]
    child = small_runs.Child().start(tiny.recipe(tmp_path / "theirs", *stages))
    ours = strop.run(tiny.recipe(tmp_path / "ours", *stages), display="quiet").path
    child.join(240)
    assert child.exitcode == 0
    theirs = small_runs.only_run(tmp_path / "theirs")
    first, second = small_runs.numbers(ours), small_runs.numbers(theirs)
    assert len(first) == 60
    for a, b in zip(first, second, strict=True):
        assert a == b, (a["stage"], a["step"])
    for stage in ("sft", "dpo", "grpo"):
        assert small_runs.weights(ours, stage) == small_runs.weights(theirs, stage), stage
