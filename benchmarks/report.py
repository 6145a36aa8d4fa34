"""From a run's raw numbers to the lines and the table people read."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from cells import CELLS, UNITS, Cell

COLUMNS = ("best", "default")
BEGIN, END = "<!-- side_by_side:begin -->", "<!-- side_by_side:end -->"

Results = dict[str, dict[str, Any]]
"""By "cell | column"."""


def read(path: Path) -> Results:
    """The results kept from earlier runs, by cell and column; none if there is no file."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(folder: Path, results: Results) -> None:
    """results.json, and the table between the markers of RESULTS.md."""
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    page = folder / "RESULTS.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")


def speedup(result: Mapping[str, Any]) -> tuple[float, float, float]:
    """Our tokens a second over the peer's, step against neighbouring step: median and quartiles."""
    ratios = [
        (ours_tokens / ours_s) / (peer_tokens / peer_s)
        for ours_tokens, ours_s, peer_tokens, peer_s in zip(
            result["ours"]["tokens"], result["ours"]["seconds"], result["peer"]["tokens"], result["peer"]["seconds"],
            strict=True,
        )
    ]  # fmt: skip
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return middle, low, high


def memory_ratio(result: Mapping[str, Any]) -> float:
    """Our peak memory over the peer's."""
    return float(result["ours"]["peak_mb"] / result["peer"]["peak_mb"])


def floor_share(side: Mapping[str, Any], result: Mapping[str, Any]) -> float:
    """The time a step's matmuls need at the measured rate, over the time it took; median."""
    steps = zip(side["seconds"], result["flops"], strict=True)
    return float(median(flops / result["flops_per_s"] / seconds for seconds, flops in steps))


def rollout_rate(side: Mapping[str, Any], cell: Cell) -> float:
    """Sampled tokens a second within the rollout; median."""
    return float(median(cell.groups * cell.num_completions * cell.response / seconds for seconds in side["rollout_s"]))


def line(cell: Cell, column: str, result: Mapping[str, Any]) -> str:
    """One cell and column for the terminal."""
    ratio, low, high = speedup(result)
    sides = "; ".join(
        f"{name} {_side(cell, result[key], result)}" for name, key in (("TRL", "peer"), ("strop", "ours"))
    )
    return (
        f"{cell.name} against TRL {column}: {ratio:.2f}x ({low:.2f}-{high:.2f}), memory {memory_ratio(result):.2f}, "
        f"{len(result['flops'])} steps, matmul {result['flops_per_s'] / 1e9:.0f} GFLOP/s\n  {sides}"
    )


def _side(cell: Cell, side: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    rate = median(t / s for t, s in zip(side["tokens"], side["seconds"], strict=True))
    rollout = f", rollout {rollout_rate(side, cell):,.0f} tokens/s" if cell.samples else ""
    return (
        f"{median(side['seconds']):.3f} s/step, {rate:,.0f} tokens/s{rollout}, peak {side['peak_mb']:,.0f} MB "
        f"(loaded {side['loaded_mb']:,.0f}), {floor_share(side, result):.0%} of the floor"
    )


def table(results: Results) -> str:
    """All lines as Markdown, in the cells' order, then what they were run with."""
    lines = [
        "| cell, a step | TRL | faster (quartiles) | asked | memory | asked | s/step TRL, strop | tokens/s TRL, strop "
        "| rollout tokens/s | peak MB TRL, strop | of the floor TRL, strop | steps |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    shown = [(cell, column) for cell in CELLS for column in COLUMNS if f"{cell.name} | {column}" in results]
    lines += [_row(cell, column, results[f"{cell.name} | {column}"]) for cell, column in shown]
    settings = {_settings(results[f"{cell.name} | {column}"]): None for cell, column in shown}
    return "\n".join([*lines, "", *settings])


def _row(cell: Cell, column: str, result: Mapping[str, Any]) -> str:
    ratio, low, high = speedup(result)
    peer, ours = result["peer"], result["ours"]
    asked = memory_asked = ""
    if cell.limit is not None:
        at_best, as_it_comes, memory = cell.limit
        asked = _number(at_best if column == "best" else as_it_comes)
        memory_asked = _number(memory if column == "best" else None)
    rollout = ""
    if cell.samples:
        rollout = f"{rollout_rate(peer, cell):,.0f}, {rollout_rate(ours, cell):,.0f}"
    rates = [median(t / s for t, s in zip(side["tokens"], side["seconds"], strict=True)) for side in (peer, ours)]
    columns = [
        f"{cell.name}, {cell.groups} {UNITS.get(cell.kind, 'pairs')}",
        column,
        f"**{ratio:.2f}** ({low:.2f}-{high:.2f})",
        asked,
        f"**{memory_ratio(result):.2f}**",
        memory_asked,
        f"{median(peer['seconds']):.3f}, {median(ours['seconds']):.3f}",
        f"{rates[0]:,.0f}, {rates[1]:,.0f}",
        rollout,
        f"{peer['peak_mb']:,.0f}, {ours['peak_mb']:,.0f}",
        f"{floor_share(peer, result):.0%}, {floor_share(ours, result):.0%}",
        str(len(result["flops"])),
    ]
    return "| " + " | ".join(columns) + " |"


def _number(asked: float | None) -> str:
    return "" if asked is None else f"{asked:g}"


def _settings(result: Mapping[str, Any]) -> str:
    versions = {**result["peer"]["versions"], **result["ours"]["versions"]}
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"- `{result['command']}` on {result['machine']}; {named}; strop at {result['commit']}"


def machine() -> str:
    """The processor, what it is fast at, memory, system and day."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(part.split(":", 1) for part in cpu.split("\n\n")[0].splitlines() if ":" in part)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    flags = found.get("flags", "").split()
    units = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    total = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return (
        f"{cpu.count('processor')} x {found.get('model name', platform.machine())} ({', '.join(units)}), "
        f"{total:.0f} GiB, {platform.system()}, Python {platform.python_version()}, {datetime.date.today().isoformat()}"
    )


def commit() -> str:
    """The commit of the working tree, with a plus where it has changes; "no commit" outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    number = git("rev-parse", "--short", "HEAD")
    return f"{number}{'+' if git('status', '--porcelain') else ''}" if number else "no commit"
