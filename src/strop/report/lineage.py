"""Which model came from which: the base, then each training stage with its data and evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strop.report.read import Figure, Run, StageRun
from strop.report.verdict import evaluated, headline


@dataclass(frozen=True, slots=True)
class Node:
    """A model: where it came from, and what its evaluations found.

    Attributes: `figures` holds (evaluate stage, metric, figure); `stage` is None for a base model.
    """

    name: str
    kind: str
    parent: str
    hash: str
    stage: StageRun | None
    figures: tuple[tuple[str, str, Figure], ...]


def lineage(run: Run) -> tuple[Node, ...]:
    """The models of a run, parents first."""
    trained = [s for s in run.stages if s.kind != "evaluate" and (s.kind or run.curves.get(s.name))]
    hashes = {entry.get("name", ""): entry.get("hash", "") for entry in run.lineage}
    nodes: dict[str, Node] = {}
    for stage in trained:
        parent = parent_of(stage, trained)
        if parent and parent not in nodes:
            nodes[parent] = Node(parent, "base", "", hashes.get(parent, ""), None, _figures(parent, run, trained))
        told = hashes.get(stage.name) or stage.hash
        nodes[stage.name] = Node(stage.name, stage.kind, parent, told, stage, _figures(stage.name, run, trained))
    for entry in run.lineage:
        name = entry.get("name", "")
        if name and name not in nodes and name not in {s.name for s in run.stages}:
            kind = entry.get("kind", "base")
            base = Node(name, kind, "", entry.get("hash", ""), None, _figures(name, run, trained))
            nodes = {name: base, **nodes}
    return tuple(nodes.values())


def parent_of(stage: StageRun, stages: Sequence[StageRun]) -> str:
    """The stage whose model this one starts from, or the name of the model it was given."""
    given = stage.inputs.get("model", "")
    for other in stages:
        if given and other.name != stage.name and _is_model_of(given, other.name, other.artifacts):
            return other.name
    return given


def _is_model_of(given: str, name: str, artifacts: Mapping[str, str]) -> bool:
    return given in (name, f"@{name}", artifacts.get("model")) or f"stages/{name}/" in given


def _figures(model: str, run: Run, trained: Sequence[StageRun]) -> tuple[tuple[str, str, Figure], ...]:
    out = []
    for stage in evaluated(run.stages):
        name = headline(stage.metrics)
        if name and parent_of(stage, trained) == model:
            out.append((stage.name, name, stage.metrics[name]))
    return tuple(out)
