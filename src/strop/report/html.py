"""The report of a run: one HTML file under 2 MB, without any external request.

The template escapes every value (autoescape), SVG and data: URIs are escaped where they are made
(`charts`), and a content security policy lets no script run but our own, by its hash. The same run
directory gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.report import text
from strop.report.evaluation import evaluation_of, hero_of
from strop.report.lineage import Node, licences_of, lineage
from strop.report.page import Limits, fitted, write
from strop.report.rails import rail_svg, rails
from strop.report.read import read_run
from strop.report.records import Event, Run, Sampled
from strop.report.rounds import trained
from strop.report.samples import compare, num_unscorable, worst
from strop.report.speed import speed_of
from strop.report.traces import spread
from strop.report.training import training_of
from strop.report.verdict import alerts, chosen_of, evaluated, state_sentence, verdict
from strop.report.wins import wins_chart

MOST_CHECKPOINTS = 8
"""Answers to a prompt that stand side by side."""
MOST_WORST = 10
STEPPED = ("loss", "grad_norm", "learning_rate", "reward")
"""Metrics that every optimizer step has one of."""


def write_report(run_dir: Path, to: Path | None = None) -> Path:
    """Write RUN_DIR/report.html, or the file `to`, and return its path.

    Raises: ValueError if there is no such directory.
    """
    run = read_run(run_dir)
    return write(to or run_dir / "report.html", fitted("template.html", lambda limits: context_of(run, limits)))


def context_of(run: Run, limits: Limits) -> dict[str, Any]:
    """What the template shows, under the names it uses."""
    flagged = alerts(run)
    stages = evaluated(run.stages)
    evaluation = evaluation_of(stages)
    nodes = lineage(run)
    blocks = trained(run)
    return {
        "run": run,
        "state_sentence": state_sentence(run),
        "claim": verdict(run),
        "hero": hero_of(stages, chosen_of(run)),
        "facts": _facts(run),
        "alerts": flagged,
        "evaluation": evaluation,
        "wins": wins_chart(evaluation.wins.rows),
        "gates": [
            (name, gate) for name, gate in (*((s.name, s.gate) for s in run.stages), ("strop ship", run.gate)) if gate
        ],
        "nodes": _drawn(nodes),
        "licences": licences_of(run, nodes),
        "data_uses": [(s, s.data) for s in run.stages if s.data],
        "dropped": [(s, s.data) for s in run.stages if s.data and s.data.dropped],
        "overlaps": [(s.name, o) for s in run.stages if s.data and s.data.overlap for o in s.data.overlap],
        "training": [training_of(run, block, flagged, limits) for block in blocks[: limits.stages]],
        "stages_not_drawn": [block.name for block in blocks[limits.stages :]],
        "speed": speed_of(run, blocks, limits),
        "memory": [(s.name, s.peak_memory_mb) for s in run.stages if s.peak_memory_mb is not None],
        "traceback": next((e.traceback for e in reversed(run.events) if e.traceback), ""),
        "log": _ends(run.events, limits.prompts),
        **samples_context(_in_order(run), limits),
    }


def samples_context(samples: Mapping[str, Sequence[Sampled]], limits: Limits) -> dict[str, Any]:
    """The same prompts across checkpoints, and the worst answers of the last one."""
    found = {name: groups for name, groups in samples.items() if groups}
    shown = {name: found[name] for name in spread(list(found), MOST_CHECKPOINTS)}
    last = list(found)[-1] if found else ""
    return {
        "compared": compare(shown, limits.prompts),
        "compared_stages": list(shown),
        "num_checkpoints": len(found),
        "num_prompts": max((len(groups) for groups in found.values()), default=0),
        "worst": worst(found[last], MOST_WORST) if last else (),
        "worst_stage": last,
        "num_unscorable": num_unscorable(found[last]) if last else 0,
    }


def _in_order(run: Run) -> dict[str, Sequence[Sampled]]:
    """Samples in the order of the run; a monitor's stand in that of their steps."""
    order = {stage.name: place for place, stage in enumerate(run.stages)}
    names = sorted(run.samples, key=lambda name: order.get(name, len(order)))
    return {name: run.samples[name] for name in names}


def _drawn(nodes: Sequence[Node]) -> list[tuple[Node, str]]:
    return [(node, rail_svg(rail, node.shape)) for node, rail in zip(nodes, rails(nodes), strict=True)]


def _facts(run: Run) -> list[tuple[str, str]]:
    steps = [max((len(series.get(name, ())) for name in STEPPED), default=0) for series in run.curves.values()]
    known = [s.seconds for s in run.stages if s.seconds is not None]
    took = run.seconds if run.seconds is not None or not known else sum(known)
    return [
        ("Time", text.duration(took)),
        ("Stages", str(len(run.stages)) if run.stages else "–"),
        ("Optimizer steps", f"{sum(steps):,}"),
        ("Seed", run.seed or "–"),
        ("Version", run.version or "–"),
        ("Last update", text.moment(run.updated)),
    ]


def _ends(events: Sequence[Event], num: int) -> tuple[Sequence[Event], int, Sequence[Event]]:
    """The first and the last events, and how many stand between."""
    if len(events) <= 2 * num:
        return events, 0, ()
    return events[:num], len(events) - 2 * num, events[-num:]
