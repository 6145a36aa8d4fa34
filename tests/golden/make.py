"""Writes the golden JSON files beside it, from the installed TRL. Run by hand:

    python tests/golden/make.py

The same TRL gives the same files: inputs come from a fixed seed for each case.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import torch
import trl
from peer_cases import CASES, draw_logits
from peer_oracle import ORACLES, selected_logprobs

HERE = Path(__file__).parent
TEMPERATURES = (1.0, 0.7)


def main() -> None:
    """One file a case, and one a temperature of the log-softmax helpers."""
    for case in CASES:
        inputs = case.draw(generator(case.name))
        answer = ORACLES[case.method](inputs, case.settings)
        write(case.name, inputs, case.settings, loss=answer.loss, grad=answer.grad, metrics=answer.metrics)
    for temperature in TEMPERATURES:
        logits, targets = draw_logits(generator(f"logsoftmax {temperature}"))
        outputs = selected_logprobs(logits, targets, temperature)
        name = f"logsoftmax_{str(temperature).replace('.', '_')}"
        write(name, {"logits": logits, "targets": targets}, {"temperature": temperature}, **outputs)


def generator(name: str) -> torch.Generator:
    """A generator seeded by a name, the same on every machine."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def write(name: str, inputs: dict[str, Any], settings: Any, **outputs: Any) -> None:
    """`name`.json, floats in full (repr of float64)."""
    value = {"package": "trl", "version": trl.__version__, "case": name, "inputs": inputs}
    value |= {"settings": dict(settings), **outputs}
    (HERE / f"{name}.json").write_text(_rows_on_a_line(json.dumps(value, indent=1)) + "\n")


def _rows_on_a_line(text: str) -> str:
    """Indented JSON with each list of plain numbers or words on one line."""
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)


if __name__ == "__main__":
    main()
