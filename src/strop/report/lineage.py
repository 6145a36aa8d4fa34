"""Which model came from which, and from what data: the base, then each stage with what it was given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strop.report.records import Figure, Licence, Run, StageRun
from strop.report.verdict import evaluated, headline

Shape = str
"""base, model, data or none: what stands in the graph for what a stage left."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a stage read in one role besides the model it started from."""

    role: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A model, or what else a stage left: where it came from, and what its evaluations found.

    Attributes: figures: (evaluate stage, metric, figure). stage: None for a base model.
    """

    name: str
    kind: str
    parent: str
    hash: str
    stage: StageRun | None
    figures: tuple[tuple[str, str, Figure], ...]
    uses: tuple[Use, ...] = ()

    @property
    def shape(self) -> Shape:
        if self.stage is None:
            return "base"
        if self.stage.state == "skipped":
            return "skipped"
        if "model" in self.stage.artifacts or not self.stage.artifacts:
            return "model"
        return "data"


def lineage(run: Run) -> tuple[Node, ...]:
    """What a run left, parents first."""
    made = [s for s in run.stages if s.kind != "evaluate" and (s.kind or run.curves.get(s.name))]
    hashes = {entry.get("name", ""): entry.get("hash", "") for entry in run.lineage}
    nodes: dict[str, Node] = {}
    for stage in made:
        parent = parent_of(stage, made, run.folder)
        if parent and parent not in nodes:
            nodes[parent] = Node(parent, "base", "", hashes.get(parent, ""), None, _figures(parent, run, made))
        told = hashes.get(stage.name) or stage.hash
        figures = _figures(stage.name, run, made)
        nodes[stage.name] = Node(stage.name, stage.kind, parent, told, stage, figures, uses_of(stage, parent))
    for entry in run.lineage:
        name = entry.get("name", "")
        if name and name not in nodes and name not in {s.name for s in run.stages}:
            kind = entry.get("kind", "base")
            base = Node(name, kind, "", entry.get("hash", ""), None, _figures(name, run, made))
            nodes = {name: base, **nodes}
    return tuple(nodes.values())


def parent_of(stage: StageRun, stages: Sequence[StageRun], folder: str = "") -> str:
    """The stage whose model this one starts from, or the name of the model it was given; else whose data it reads."""
    given = stage.inputs.get("model") or stage.inputs.get("models.0", "")
    for other in stages:
        if given and other.name != stage.name and _is_model_of(given, other.name, other.artifacts, folder):
            return other.name
    if given:
        return given
    names = {other.name for other in stages if other.name != stage.name}
    return next((text[1:] for text in _texts(stage.inputs.get("data", "")) if text[1:] in names), "")


def _is_model_of(given: str, name: str, artifacts: Mapping[str, str], folder: str) -> bool:
    """Whether a model's name is that of a stage, or a path to what it left in this run's folder."""
    within = given.removeprefix(f"{folder}/") if folder else given
    return within in (name, f"@{name}", artifacts.get("model")) or within.startswith(f"stages/{name}/")


def uses_of(stage: StageRun, parent: str) -> tuple[Use, ...]:
    """What a stage read besides its parent, in the words of its settings."""
    found: dict[str, list[str]] = {}
    for key, value in stage.inputs.items():
        if key not in ("model", "best", "among"):
            names = [name for text in _texts(value) if (name := text.removeprefix("@")) != parent]
            found.setdefault(_role(key), []).extend(names)
    return tuple(Use(role, tuple(dict.fromkeys(names))) for role, names in found.items() if names)


def _role(key: str) -> str:
    """rewards.0.path -> reward: the setting without its numbers."""
    words = [word for word in key.split(".") if not word.isdigit() and word not in ("path", "paths", "model")]
    return re.sub(
        r"_", " ", words[0].removesuffix("s") if words and words[0] in ("rewards", "models") else ".".join(words)
    )


def _texts(value: str) -> list[str]:
    return [text.strip() for text in value.split(", ") if text.strip()]


def _figures(model: str, run: Run, made: Sequence[StageRun]) -> tuple[tuple[str, str, Figure], ...]:
    out = []
    for stage in evaluated(run.stages):
        name = headline(stage.metrics, stage.rewards)
        if name and parent_of(stage, made, run.folder) == model:
            out.append((stage.name, name, stage.metrics[name]))
    return tuple(out)


# Licences.


def licences_of(run: Run, nodes: Sequence[Node]) -> list[Licence]:
    """Every model and dataset that came from outside of the run, with its licence, "unknown" where none is told."""
    stages = {s.name for s in run.stages}
    named = [n.name for n in nodes if n.stage is None]
    for stage in run.stages:
        named += [t for key, v in stage.inputs.items() for t in _texts(v) if not t.startswith("@") and _is_source(key)]
    names = [name for name in dict.fromkeys([*named, *run.licences]) if name not in stages]
    return [run.licences.get(name) or Licence(name, "unknown", "") for name in names]


def _is_source(key: str) -> bool:
    """Whether a setting names a model or a dataset."""
    return key.split(".")[0] in ("model", "models", "reference", "critic", "data", "eval_data", "reward", "rewards")
