"""What a run came to, in words for its last screen: a line a training stage, a table of the evaluations,
and one prompt as each evaluated model answered it.

What is left out stands in the report and in summary.json: figures from before a stage, win rates and
differences that the columns show already, and whatever came out the same everywhere.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from textwrap import wrap
from typing import Any

from strop.recipes.kinds.ship import PASSED
from strop.recipes.rounds import rounds_told
from strop.recipes.words import brief, clean, duration
from strop.types import Group, group_from_json

WIDTH = 100
"""Columns of a line where no terminal says how many there are."""
TRAINED = 3
"""Figures shown of a training stage."""
TELLING = (
    "eval_loss",
    "eval_rewards/accuracies",
    "eval_rewards/margins",
    "eval_mean_token_accuracy",
    "eval_accuracy",
    "ece",
    "temperature",
)
"""Held-out figures that are shown first."""
READ = 1000
"""Sampled prompts an evaluation is searched for the telling one, the first ones."""
HIDDEN = ("before/", "delta/", "win_rate/", "unscorable/", "style/", "completions/min_", "completions/max_")
INDENT = "  "
UNTRAINED = ("sample", "score", "select", "label", "revise", "steps", "search")
"""Kinds of stages whose figures are of the rows they leave."""
STAR = "* another value than its baseline's, by the 95 % interval of the paired difference"

Stage = Mapping[str, Any]
Figure = Mapping[str, Any]


def ending(summary: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """The stages' closing figures as lines: training stages first, then the table of the evaluations."""
    stages = [stage for stage in summary.get("stages", ()) if stage.get("metrics")]
    evaluations = [stage for stage in stages if stage["kind"] == "evaluate"]
    told_rounds = rounds_told(summary.get("rounds", ()))
    rounds = [
        INDENT + part for text in told_rounds for part in wrap(text, width - len(INDENT), subsequent_indent=INDENT)
    ]
    told = trained([stage for stage in stages if stage["kind"] != "evaluate"])
    return [*told, *(["", *rounds] if rounds else []), *table(evaluations, width)]


# Training stages.


def trained(stages: Sequence[Stage]) -> list[str]:
    """One line a training stage: held-out figures before and after, else the last steps' means; its time."""
    if not stages:
        return []
    width = max(len(stage["name"]) for stage in stages)
    return ["", *(f"{INDENT}{s['name']:<{width}}  {_figures(s)}  {duration(s['seconds'])}" for s in stages)]


def _figures(stage: Stage) -> str:
    metrics: Mapping[str, Figure] = stage["metrics"]
    if stage["kind"] in UNTRAINED:
        parts = [f"{n} {_cell(metrics[n])}" for n in [n for n in metrics if not n.startswith(HIDDEN)][:TRAINED]]
        return "  ".join(parts) + f"  (n={next(iter(metrics.values()))['n']})"
    if stage["kind"] == "ship":
        said = "passed" if metrics[PASSED]["value"] else "not passed"
        return "  ".join([f"gate {said}", *(f"{n} {_cell(metrics[n])}" for n in metrics if n != PASSED)][: TRAINED + 1])
    held_out = [n for n in metrics if not n.startswith(("train/", "completions/", *HIDDEN))]
    if not held_out:
        shown = [f"{n.removeprefix('train/')} {brief(metrics[n]['value'])}" for n in list(metrics)[:TRAINED]]
        return "  ".join(shown) + "  (last steps)"
    held_out.sort(key=lambda name: TELLING.index(name) if name in TELLING else len(TELLING))
    parts = []
    for name in held_out[:TRAINED]:
        before = metrics.get(f"before/{name}")
        parts.append(f"{name} {brief(before['value']) + ' -> ' if before else ''}{_cell(metrics[name])}")
    return "  ".join(parts) + f"  (held out, n={metrics[held_out[0]]['n']})"


# Evaluations.


def table(stages: Sequence[Stage], width: int) -> list[str]:
    """A row a measure, a column a stage: value [low, high]; measures that are the same in all columns share a line."""
    if not stages:
        return []
    sizes = [_size(stage) for stage in stages]
    same_size = len(set(sizes)) == 1
    heads = [s["name"] if same_size else f"{s['name']} (n={n})" for s, n in zip(stages, sizes, strict=True)]
    head = (f"n={sizes[0]}" if same_size else "", heads)
    constant = [name for name in _names(stages) if len(stages) > 1 and _all_equal(name, stages)]
    names = [name for name in _names(stages) if name not in constant]
    full = [(name, [_entry(stage, name, n) for stage, n in zip(stages, sizes, strict=True)]) for name in names]
    lines, note = _aligned([head, *full]), STAR if any(_changed(stage) & {*names} for stage in stages) else ""
    if max(map(len, lines)) > width:
        short = [(name, [_value(stage, name) for stage in stages]) for name in names]
        lines, note = _aligned([head, *short]), "with intervals: in the report"
    return ["", *lines, *_same(stages, constant), *([INDENT + note] if note else [])]


def _names(stages: Sequence[Stage]) -> list[str]:
    """Measures in the order they came, rewards before what is said of all completions."""
    names = dict.fromkeys(name for stage in stages for name in stage["metrics"] if not name.startswith(HIDDEN))
    compared = dict.fromkeys(name for stage in stages for name in _differences(stage, stages))
    return sorted([*names, *compared], key=lambda name: name.startswith("completions/"))


def _differences(stage: Stage, stages: Sequence[Stage]) -> list[str]:
    """Differences to a baseline that no column shows, where there is one, and what a labeller said."""
    inputs = stage.get("inputs", {})
    if _has_column(inputs.get("baseline"), stages) or inputs.get("against", "")[1:] in {s["name"] for s in stages}:
        return _labelled(stage)
    changed = _changed(stage)
    told = [name for name in stage["metrics"] if name.startswith(("delta/", "win_rate/")) and _of(name) in changed]
    return [*_labelled(stage), *told]


def _labelled(stage: Stage) -> list[str]:
    """Win rates by a judge, rules or scores: no measure of a column tells them."""
    metrics = stage["metrics"]
    rates = [n for n in metrics if f"{n}/wins" in metrics and f"delta/{_of(n)}" not in metrics]
    return [n for rate in rates for n in (rate, f"{rate}/length_controlled") if n in metrics]


def _has_column(model: str | None, stages: Sequence[Stage]) -> bool:
    return any(model is not None and model == other.get("inputs", {}).get("model") for other in stages)


def _changed(stage: Stage) -> set[str]:
    """Measures whose paired difference to the baseline has an interval without 0."""
    deltas = {name: m for name, m in stage["metrics"].items() if name.startswith("delta/")}
    return {_of(name) for name, m in deltas.items() if m["low"] is not None and not m["low"] <= 0 <= m["high"]}


def _of(name: str) -> str:
    return name.partition("/")[2]


def _size(stage: Stage) -> int:
    """What most of a stage's figures rest on."""
    counts = Counter(m["n"] for name, m in stage["metrics"].items() if not name.startswith(HIDDEN))
    return counts.most_common(1)[0][0] if counts else 0


def _entry(stage: Stage, name: str, size: int) -> str:
    """A cell: value, interval, a star where it differs from the baseline, n where it is another."""
    if name not in stage["metrics"]:
        return ""
    figure = stage["metrics"][name]
    star = "*" if name in _changed(stage) else ""
    return f"{_cell(figure)}{star}" + ("" if figure["n"] == size else f" n={figure['n']}")


def _cell(figure: Figure) -> str:
    value = brief(figure["value"])
    return value if figure["low"] is None else f"{value} [{brief(figure['low'])}, {brief(figure['high'])}]"


def _value(stage: Stage, name: str) -> str:
    return brief(stage["metrics"][name]["value"]) if name in stage["metrics"] else ""


def _all_equal(name: str, stages: Sequence[Stage]) -> bool:
    return len({stage["metrics"].get(name, {}).get("value", "none") for stage in stages}) == 1


def _aligned(rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    first = max(len(name) for name, _ in rows)
    widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(rows[0][1]))]
    return [
        (INDENT + "  ".join([f"{name:<{first}}", *(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True))])).rstrip()
        for name, cells in rows
    ]


def _same(stages: Sequence[Stage], names: Sequence[str]) -> list[str]:
    told = ", ".join(f"{name} {_value(stages[0], name)}" for name in names)
    return [f"{INDENT}the same in all: {told}"] if names else []


# One prompt.


def story(run_dir: Path, summary: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """One prompt as each evaluated model answered it: the one whose answers tell most; none without two evaluations."""
    stages = [s for s in summary.get("stages", ()) if s["kind"] == "evaluate" and "samples" in s.get("artifacts", {})]
    try:
        answers = {s["name"]: _samples(run_dir / s["artifacts"]["samples"]) for s in stages}
    except (OSError, ValueError):  # a file that was changed by hand; the figures stand all the same
        return []
    if len(answers) < 2:
        return []
    shared = set.intersection(*(set(found) for found in answers.values()))
    first = next(iter(answers.values()))
    rows = [[found[prompt] for found in answers.values()] for prompt in first if prompt in shared]
    if not rows:
        return []
    typical = [_means([row[stage] for row in rows]) for stage in range(len(answers))]
    told = max(rows, key=lambda row: _tells(row, typical))  # the first of equals
    label = max(map(len, answers))
    gold = told[0].row.get("answer")
    asked = clean(told[0].prompt_text, width - 20) + (f"  (answer: {clean(str(gold), 40)})" if _short(gold) else "")
    lines = [
        f"{INDENT}{name:<{label}}  {clean(group.completions[0].text, width - label - 4)}"
        for name, group in zip(answers, told, strict=True)
    ]
    return ["", f"{INDENT}one prompt after each stage: {asked}", *lines]


def _samples(path: Path) -> dict[str, Group]:
    """Sampled groups by their prompt."""
    with path.open(encoding="utf-8") as file:
        groups = [group_from_json(json.loads(line)) for line in islice(file, READ)]
    return {str(group.prompt): group for group in groups if group.completions}


def _means(groups: Sequence[Group]) -> dict[str, float]:
    """Each reward's mean over the first answers."""
    seen: dict[str, list[float]] = {}
    for name, value in ((n, v) for group in groups for n, v in group.completions[0].rewards.items() if v is not None):
        seen.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in seen.items()}


def _tells(groups: Sequence[Group], typical: Sequence[Mapping[str, float]]) -> tuple[float, float, int, float, int]:
    """How much one sees of the stages in a prompt's answers.

    The score's rise from first to last, rewards that moved, different answers; then how like the stages' means
    they are, so that no lucky answer stands for a stage; then shortness.
    """
    answers = [group.completions[0] for group in groups]
    first, last = answers[0], answers[-1]
    rise = (last.score or 0.0) - (first.score or 0.0)
    moved = sum(abs((last.rewards.get(n) or 0.0) - (value or 0.0)) for n, value in first.rewards.items())
    far = sum(
        abs(value - means[name])
        for answer, means in zip(answers, typical, strict=True)
        for name, value in answer.rewards.items()
        if value is not None
    )
    return rise, moved, len({answer.text for answer in answers}), -far, -max(len(answer.text) for answer in answers)


def _short(value: object) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) <= 40
