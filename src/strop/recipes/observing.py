"""`strop monitor`: what a run's monitor saw, or what changed between two files of samples. No torch.

A file of samples holds one row a line: a group (`prompt`, `completions` with `content`), a row of `prompt`
and `completion` (texts or turns), or `completion` alone; `score` or `reward` is the training reward,
`held_out` the one that is not trained on. Rows of one prompt stand together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strop.data.read import Problem, Row, read_rows
from strop.monitor.alerts import SEVERITIES, Alert, rank
from strop.monitor.figures import figures
from strop.monitor.judge import Evaluation, Watch
from strop.monitor.numbers import MIN_PROMPTS
from strop.monitor.samples import HELD_OUT, snapshot
from strop.monitor.settings import Thresholds
from strop.recipes.journal import read_json
from strop.recipes.watching import FILE
from strop.recipes.words import brief, clean
from strop.types import Completion, Group, content_from_json, group_from_json

ALARMED = 3
"""The exit code where there is an alarm."""
COLUMNS = ("sqrt_kl", "proxy", "held_out", "length", "entropy", "repetition", "spearman/proxy_length")
"""Figures of the table."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One stage's evaluations, or those of a comparison. notes: what was left out, and why."""

    stage: str
    evaluations: tuple[Evaluation, ...]
    notes: tuple[str, ...] = ()

    @property
    def alerts(self) -> list[Alert]:
        """All of them, the worst first."""
        return sorted((a for e in self.evaluations for a in e.alerts), key=lambda a: (-rank(a.severity), a.step))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "stage": self.stage,
            "evaluations": [e.to_json() for e in self.evaluations],
            "alerts": [a.to_json() for a in self.alerts],
            "notes": list(self.notes),
        }


def of_run(run_dir: Path) -> list[Seen]:
    """What the monitors of a run's stages saw so far.

    Raises: ValueError if it is no run directory, or no stage has a monitor.
    """
    if not (run_dir / "stages").is_dir():
        raise ValueError(f"{run_dir}: no run directory; `strop ls` lists the runs")
    found = [read_json(path) for path in sorted((run_dir / "stages").glob(f"*/{FILE}"))]
    if not found:
        raise ValueError(f"{run_dir}: no stage has a monitor; give one, as monitor.rewards=[...]")
    return [Seen(f["stage"], tuple(Evaluation.from_json(row) for row in f["evaluations"])) for f in found]


def of_files(before: str, after: str, thresholds: Thresholds | None = None) -> Seen:
    """What changed from one file of samples to another.

    Prompts that both have are compared in pairs; where there are too few of them, all of one file
    with all of the other's, as two groups.

    Raises: ValueError if a file is not there, or has no completion.
    """
    first, then = read_samples(before), read_samples(after)
    start, now, note = aligned(first, then)
    watch = Watch(thresholds or Thresholds(), patience=1)
    opening = watch.observe(snapshot(0, start))
    closing = watch.observe(snapshot(1, now))
    told = (
        replace(opening, alerts=()),
        replace(closing, figures=figures(watch.snapshots[1], watch.snapshots[0], seed=0)),
    )
    return Seen(f"{before} -> {after}", told, (note,))


def read_samples(path: str) -> list[Group]:
    """The groups of a file, one a prompt; answers without a prompt are a group each.

    Raises: ValueError naming the file, and the line at fault.
    """
    by_prompt: dict[Any, Group] = {}
    for number, item in enumerate(read_rows(path)):
        if isinstance(item, Problem):
            raise ValueError(f"{item.origin}: {item.reason}")
        group = _group(item)
        key = group.prompt or number
        held = by_prompt.get(key)
        by_prompt[key] = group if held is None else replace(held, completions=held.completions + group.completions)
    if not by_prompt:
        raise ValueError(f"{path}: no row in it")
    return list(by_prompt.values())


def _group(row: Row) -> Group:
    cells = row.value
    try:
        if isinstance(cells.get("completions"), list) and all(isinstance(c, Mapping) for c in cells["completions"]):
            return group_from_json({"prompt": "", **cells})
        return _plain(cells)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{row.origin}: {error}") from error


def _plain(cells: Mapping[str, Any]) -> Group:
    """A row of prompt and completion, or of completion alone."""
    known = [key for key in ("completion", "completions", "response", "text") if cells.get(key) is not None]
    if not known:
        raise ValueError(f"no completion in it; its columns are {', '.join(cells)}")
    given = cells[known[0]] if known[0] == "completions" else [cells[known[0]]]
    score = _number(cells, ("score", "reward", "proxy"))
    held = _number(cells, ("held_out", "gold"))
    rewards = {} if held is None else {f"{HELD_OUT}gold": held}
    answers = tuple(Completion(content_from_json(value), score=score, rewards=rewards) for value in given)
    return Group(content_from_json(cells.get("prompt") or ""), answers)


def _number(cells: Mapping[str, Any], names: Sequence[str]) -> float | None:
    for name in names:
        if isinstance(cells.get(name), int | float) and not isinstance(cells[name], bool):
            return float(cells[name])
    return None


def aligned(before: Sequence[Group], after: Sequence[Group]) -> tuple[list[Group], list[Group], str]:
    """The prompts to compare, as many of each in an order that fits, and what was done in words.

    Two groups of unlike prompts are paired as they stand: the differences then vary as those of
    independent groups do, so that their intervals are right, if wider.
    """
    ours, theirs = {g.prompt: g for g in before if g.prompt}, {g.prompt: g for g in after if g.prompt}
    shared = [prompt for prompt in ours if prompt in theirs]
    num = min(len(before), len(after))
    if len(shared) >= MIN_PROMPTS and 2 * len(shared) >= num:
        left = len(before) + len(after) - 2 * len(shared)
        rest = f"; {left} prompts that only one file has are left out" if left else ""
        return [ours[p] for p in shared], [theirs[p] for p in shared], f"{len(shared)} prompts in pairs{rest}"
    few = " Fewer than eight prompts show nothing." if num < MIN_PROMPTS else ""
    note = f"the files have {len(shared)} prompts in common, so {num} of each are compared as two groups.{few}"
    return list(before[:num]), list(after[:num]), note


def exit_code(seen: Sequence[Seen]) -> int:
    """3 where an alarm was told, else 0."""
    return ALARMED if any(alert.severity == "alarm" for s in seen for alert in s.alerts) else 0


def as_text(seen: Sequence[Seen]) -> str:
    """Tables by evaluation, and the alerts with their examples."""
    return "\n".join(line for s in seen for line in (*_table(s), *_alerts(s)))


def _table(seen: Seen) -> Iterator[str]:
    names = [name for name in COLUMNS if any(name in e.figures for e in seen.evaluations)]
    yield seen.stage
    yield from (f"  {note}" for note in seen.notes)
    yield "  " + "step".rjust(6) + "".join(f"{name:>24}" for name in names) + "  alerts"
    for e in seen.evaluations:
        codes = ", ".join(dict.fromkeys(f"{a.code}!" if a.severity == "alarm" else a.code for a in e.alerts))
        yield f"  {e.step:>6}" + "".join(f"{_cell(e, name):>24}" for name in names) + f"  {codes}".rstrip()


def _cell(evaluation: Evaluation, name: str) -> str:
    found = evaluation.figures.get(name)
    if found is None:
        return "-"
    interval = f" [{brief(found.low)}, {brief(found.high)}]" if found.low is not None else ""
    return f"{brief(found.value)}{interval}"


def _alerts(seen: Seen) -> Iterator[str]:
    for alert in seen.alerts:
        yield f"{alert.severity} at step {alert.step} ({alert.code}): {clean(alert.text, 2000)}"
        for example in alert.examples:
            yield f"    > {clean(example.prompt, 100)}"
            yield f"      {clean(example.completion, 300)}"
    counts = {level: sum(a.severity == level for a in seen.alerts) for level in reversed(SEVERITIES)}
    yield ", ".join(f"{count} {level}{'s' * (count != 1 and level != 'info')}" for level, count in counts.items())
