"""The quickstart, whole: each stage does what its comment promises."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import strop

LIMIT_S = 300.0
"""Of this process's CPU, so that other work on the machine does not count."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_quickstart_learns_manners_and_then_to_be_right(seed: int, tmp_path: Path) -> None:
    began = time.process_time()
    result = strop.run("quickstart", {"seed": seed, "runs": str(tmp_path), "device": "cpu"}, display="quiet")

    def figure(stage: str, name: str) -> Any:
        return result.metrics[stage][name]

    sft, dpo, grpo = (figure(f"eval-{stage}", "accuracy")["value"] for stage in ("sft", "dpo", "grpo"))
    assert grpo >= 0.85 and grpo > sft
    assert dpo > sft - 0.15  # style is not bought with arithmetic
    assert figure("eval-dpo", "polite")["low"] > figure("eval-sft", "polite")["high"]
    assert figure("eval-dpo", "win_rate/polite")["low"] > 0.5
    assert figure("eval-dpo", "rude")["value"] < figure("eval-sft", "rude")["value"]
    assert figure("eval-grpo", "delta/accuracy")["low"] > 0
    assert figure("eval-grpo", "polite")["value"] > 0.5
    assert time.process_time() - began < LIMIT_S
