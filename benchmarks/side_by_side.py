"""Side by side with TRL, in one run: time, tokens, memory and the fraction of the matmul floor.

    python benchmarks/side_by_side.py                        # every cell; an hour or more
    python benchmarks/side_by_side.py --cell "A DPO 64/64"   # one cell, minutes

For each cell and each of TRL's columns (`best`, `default`) two worker processes are started, one a
side, and take optimizer steps in turn: only one computes at a time, and a ratio is the median over
pairs of neighbouring steps. So a noisy neighbour spoils both sides alike, and each process's peak
memory is its own. Results go to `results.json`, and from there to the table in `RESULTS.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import agreement
import report
from cells import CELLS, Cell, cell_named, rows, step_flops
from models import save_model

HERE = Path(__file__).parent
WARM_UP = 2
"""Steps of each side that are not counted."""
FEWEST = 3
"""Counted steps of each side that a session takes whatever the time limit says."""
PPO_RELEASE = "trl==1.12.0"
"""TRL's last release with PPO, under trl.experimental; its cells run it on today's transformers and torch."""
PPO_FOLDER = HERE.parent / "build" / "trl-ppo"
"""Where that release is looked for, so that it is no part of the environment."""


@dataclass
class Side:
    """One worker's numbers; lists have one entry a counted step."""

    loaded_mb: float = 0.0
    peak_mb: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    rollout_s: list[float] = field(default_factory=list)


class Worker:
    """A side's process, which computes only between a command and its answer."""

    def __init__(self, script: str, arguments: Sequence[str], threads: int, log: Path, path: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        environment |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(path)}
        self._log = log
        command = [sys.executable, str(HERE / script), *arguments]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True
            )

    def wait(self) -> dict[str, Any]:
        """The worker's next answer.

        Raises: RuntimeError with the end of its log if it has died.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            end = "\n".join(self._log.read_text().splitlines()[-20:])
            raise RuntimeError(f"{self._log.stem} ended early:\n{end}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str) -> dict[str, Any]:
        """The answer to a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self.wait()

    def kill(self) -> None:
        """Ends the process, if it has not ended."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Runs the cells asked for and rewrites the results."""
    options = parse()
    cells = [cell_named(name) for name in options.cell] or list(CELLS)
    kept = report.read(HERE / "results.json")
    for cell in cells:
        for column in options.column:
            result = session(cell, column, options.steps, options.seconds, options.threads)
            result |= {"command": command(options), "machine": report.machine(), "commit": report.commit()}
            kept[f"{cell.name} | {column}"] = result
            print(report.line(cell, column, result), flush=True)
            if not options.dry:
                report.write(HERE, kept)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="strop and TRL side by side, in one run")
    parser.add_argument("--cell", action="append", default=[], help=f"one of: {', '.join(c.name for c in CELLS)}")
    parser.add_argument("--column", action="append", choices=report.COLUMNS, help="TRL's column; both by default")
    parser.add_argument("--steps", type=int, default=15, help="counted steps a side")
    parser.add_argument("--seconds", type=float, default=240.0, help="stop a session's counting after so long")
    parser.add_argument("--threads", type=int, default=1, help="of each side; one keeps a shared machine's noise out")
    parser.add_argument("--dry", action="store_true", help="print only; leave results.json and RESULTS.md")
    options = parser.parse_args()
    options.column = options.column or list(report.COLUMNS)
    try:
        for name in options.cell:
            cell_named(name)
    except ValueError as error:
        parser.error(str(error))
    return options


def command(options: argparse.Namespace) -> str:
    """What was asked for, without the cell: the same for all lines of one setting."""
    return shlex.join(["python", "benchmarks/side_by_side.py", f"--steps={options.steps}",
                       f"--seconds={options.seconds:g}", f"--threads={options.threads}"])  # fmt: skip


def session(cell: Cell, column: str, num_steps: int, seconds: float, threads: int) -> dict[str, Any]:
    """Both sides' steps in turn, as plain numbers: `peer`, `ours`, `flops`, `flops_per_s`."""
    steps = WARM_UP + num_steps
    with tempfile.TemporaryDirectory() as folder:
        save_model(cell.shape, Path(folder) / "model", stops=not cell.samples, scores=cell.scores)
        arguments = [cell.name, str(Path(folder) / "model"), column, str(steps)]
        workers: list[Worker] = []
        loaded: list[dict[str, Any]] = []
        try:
            for script, path in (("trl_side.py", peer_path(cell)), ("strop_side.py", HERE.parent / "src")):
                workers.append(Worker(script, arguments, threads, Path(folder) / f"{script}.log", path))
                loaded.append(workers[-1].wait())
            sides = [Side(answer["loaded_mb"], versions=answer["versions"]) for answer in loaded]
            return alternate(cell, column, workers, sides, steps, seconds)
        finally:
            for worker in workers:
                worker.kill()


def peer_path(cell: Cell) -> Path:
    """Where the peer's process finds modules before the environment's own.

    Raises: RuntimeError with the command that fetches the release of TRL that has PPO.
    """
    if cell.kind != "PPO":
        return HERE.parent / "src"
    if not PPO_FOLDER.exists():
        folder = PPO_FOLDER.relative_to(HERE.parent)
        raise RuntimeError(f"{cell.name}: first run: python -m pip install --no-deps --target {folder} {PPO_RELEASE}")
    return PPO_FOLDER


def alternate(
    cell: Cell, column: str, workers: Sequence[Worker], sides: Sequence[Side], steps: int, seconds: float
) -> dict[str, Any]:
    """Steps of one side and the other in turn, until they are done or the time is up.

    Raises: RuntimeError if the sides do not compute the same at the first step.
    """
    rates, began = [], time.monotonic()
    first: dict[str, list[float]] = {}
    for step in range(steps):
        if step >= WARM_UP + FEWEST and time.monotonic() - began > seconds:
            break
        answers = [worker.ask("step") for worker in workers]
        if step == WARM_UP - 1:  # TRL logs a step after it has ended
            first = agreement.check(cell, column, answers[0]["first"], answers[1]["first"])
        if step >= WARM_UP:
            for side, answer in zip(sides, answers, strict=True):
                for name in ("seconds", "tokens", "rollout_s"):
                    getattr(side, name).append(answer[name])
        rates.append(workers[-1].ask("matmul")["flops_per_s"])
    for side, worker in zip(sides, workers, strict=True):
        side.peak_mb = worker.ask("stop")["peak_mb"]
    counted = range(WARM_UP, WARM_UP + len(sides[0].seconds))
    return {
        "peer": asdict(sides[0]),
        "ours": asdict(sides[1]),
        "first_step": first,
        "flops": [step_flops(cell, rows(cell, step)) for step in counted],
        "flops_per_s": median(rates),
    }


if __name__ == "__main__":
    main()
