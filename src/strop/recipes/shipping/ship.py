"""`strop ship RUN` and the stage `ship`: judge the model, and if it passes leave the folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from strop.recipes import rundir
from strop.recipes.config import load_recipe
from strop.recipes.context import Interrupted
from strop.recipes.display import Display
from strop.recipes.kinds.ship import HELD_BACK
from strop.recipes.plain import plain
from strop.recipes.preflight import check_inputs
from strop.recipes.settings import ShipStage, Written
from strop.recipes.shipping.card import RECIPE, Card, as_json, readme
from strop.recipes.shipping.folder import Folder, check_adapter, check_target, make, parameters_in, size_of
from strop.recipes.shipping.gate import Gate, Rival, judge, rival_of
from strop.recipes.shipping.gguf import require_converter
from strop.recipes.shipping.left import Left, Subject, read_left, subject_of
from strop.recipes.shipping.serving import commands, modelfile
from strop.train.metrics import write_json

GATE, CHECKS = "gate.json", "checks"
"""What the gate found, and the evaluations that were made for it, below `RUN/ship` or the stage's folder."""
MACHINE = ("device", "precision", "threads")
"""Settings of a run that may be others where it ships."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for besides settings.

    Attributes: to: the folder to make. force: export even if the gate does not pass. gate_only: never export.
        command: as it was typed.
    """

    to: Path | None = None
    stage: str | None = None
    force: bool = False
    gate_only: bool = False
    command: str = "strop ship"


@dataclass(frozen=True, slots=True)
class Shipped:
    """What came of it. folder: null where nothing was exported."""

    gate: Gate
    folder: Folder | None
    forced: bool = False

    @property
    def exit_code(self) -> int:
        """0 where the gate passed, or was overruled; else 3."""
        return 0 if self.gate.passed or self.forced else HELD_BACK

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        told: dict[str, Any] = {"gate": self.gate.to_json(), "forced": self.forced, "exit_code": self.exit_code}
        if self.folder is None:
            return {**told, "folder": None}
        path = self.folder.path
        serve = commands(path, self.folder.base, self.folder.rank)
        more = {"gguf": self.folder.gguf, "sha256": self.folder.sha256, "serve": serve}
        return {**told, "folder": str(path), "compared": self.folder.compared.to_json(), **more}

    def lines(self) -> list[str]:
        """The same in words."""
        lines = self.gate.lines()
        if self.folder is None:
            why = "the gate did not pass (--force ships it all the same, and the card says so)"
            return lines if self.gate.passed else [*lines, f"nothing was exported: {why}"]
        return [*lines, *_exported(self.folder, self.forced)]


def _exported(folder: Folder, forced: bool) -> list[str]:
    size = f"{parameters_in(folder.path) / 1e6:,.2f} M parameters, {size_of(folder.path) / 2**20:,.1f} MiB"
    lines = [f"shipped{' by force' if forced else ''}: {folder.path} ({size})", f"  checked {folder.compared}"]
    if folder.compared.folded is not None:
        lines.append(f"  merged against adapter: largest difference in a logit {folder.compared.folded:.2g}")
    if folder.not_folded:
        lines.append(f"  merged against adapter: not compared, since {folder.not_folded}")
    if folder.gguf is not None:
        lines.append(f"  {folder.gguf}")
    lines.append("serve it:")
    serve = commands(folder.path, folder.base, folder.rank)
    return [*lines, *(f"  {line}" for told in serve.values() for line in told)]


def ship(run_dir: Path, pairs: Sequence[str], wish: Wish, show: Callable[[], Display]) -> Shipped:
    """Judge the last model of a run (or a stage's), and export it if the gate passes.

    Args: pairs: settings of a ship stage as key=value. show: makes the display of evaluations that must be made.
    Raises: ValueError for a run, setting or model that cannot be shipped; KeyboardInterrupt when asked to stop.
    """
    left = on_this_machine(read_left(run_dir), pairs)
    with rundir.locked(run_dir.resolve()):
        subject = subject_of(left, wish.stage)
        settings, rival = settings_of(left, subject, pairs)
        target = wish.to or Path(run_dir.resolve().name)
        if not wish.gate_only:
            check_export(subject, settings, target)
        place = left.run_dir / "ship"
        try:
            gate = judge(subject, settings, place / CHECKS, rival=rival, show=show)
        except Interrupted:  # what was sampled is kept, and taken up by the next call
            raise KeyboardInterrupt from None
        place.mkdir(exist_ok=True)
        write_json(place / GATE, gate.to_json())
        if wish.gate_only or not (gate.passed or wish.force):
            return Shipped(gate, None)
        forced = not gate.passed
        return Shipped(gate, export(subject, settings, gate, target, forced=forced, command=wish.command), forced)


def check_export(subject: Subject, settings: ShipStage, target: Path) -> None:
    """Raises ValueError for what would make the export fail after all the work before it."""
    check_target(target)
    check_adapter(subject, settings)
    if settings.gguf:
        require_converter()


def export(subject: Subject, settings: ShipStage, gate: Gate, target: Path, *, forced: bool, command: str) -> Folder:
    """Make the folder with its card, ship.json, the run's recipe and Modelfile."""

    def finish(part: Path, made: Folder) -> None:
        card = Card(target.name, subject, settings, gate, made, forced, command)
        (part / "README.md").write_text(readme(card), "utf-8")
        write_json(part / "ship.json", as_json(card))
        shutil.copyfile(subject.left.run_dir / "config.yaml", part / RECIPE)
        (part / "Modelfile").write_text(modelfile(made.base, made.gguf, made.stops, made.template), "utf-8")

    prompts = [group for asked in gate.asked if asked.question.stage.rewards for group in asked.ours]
    return make(subject, settings, target, prompts, finish)


def settings_of(left: Left, subject: Subject, pairs: Sequence[str]) -> tuple[ShipStage, Rival | None]:
    """The settings that `key=value` say, with no `@name` in them, and what `against` names.

    They are laid over those of the run's own ship stage, if it has one for this model.

    Raises: ValueError with everything that is wrong.
    """
    named = [text.partition("=")[2] for text in pairs if text.startswith("against=")]
    rest = [text for text in pairs if not text.startswith("against=")]
    if any(text.startswith("model=") for text in rest):
        raise ValueError("model: is the run's; name the stage that left it, as --stage sft")
    for key in dict.fromkeys(_key(text) for text in rest):
        if key in {"kind", *(field.name for field in fields(Written))} - {*MACHINE}:
            raise ValueError(f"{key}: is the run's, and ship cannot change it; leave it out")
    base: dict[str, Any] = {}
    if (own := _own_stage(left, subject)) is not None:
        base = {key: value for key, value in plain(own).items() if key != "against"}
        named = named or ([own.against] if own.against else [])
    base |= {"name": "ship", "kind": "ship", "model": str(subject.model), "seed": left.recipe.seed}
    recipe = load_recipe(base, rest)
    check_inputs(recipe)
    (stage,) = recipe.stages
    assert isinstance(stage, ShipStage)
    rival = rival_of(named[-1], left) if named else None
    if rival is not None and rival.hash == subject.hash:
        raise ValueError(f"against={named[-1]}: is the very model that is to ship; name another")
    return stage, rival


def _own_stage(left: Left, subject: Subject) -> ShipStage | None:
    """The run's last ship stage for this model, with no `@name` in its data."""
    stages = [s for s in left.recipe.stages if isinstance(s, ShipStage) and s.model == f"@{subject.stage}"]
    return standing(stages[-1], left) if stages else None


def on_this_machine(left: Left, pairs: Sequence[str]) -> Left:
    """The run with the device, precision and threads that `key=value` name, for what is computed now.

    Raises: ValueError with everything that is wrong of them.
    """
    run = left.recipe
    base = {"name": "ship", "kind": "ship", "model": str(left.run_dir), **{key: getattr(run, key) for key in MACHINE}}
    said = load_recipe(base, [text for text in pairs if _key(text) in MACHINE])
    return replace(left, recipe=replace(run, device=said.device, precision=said.precision, threads=said.threads))


def _key(pair: str) -> str:
    """The first name of `a.b=value`."""
    return pair.partition("=")[0].partition(".")[0].partition("[")[0].strip()


def standing(stage: ShipStage, left: Left) -> ShipStage:
    """A ship stage of a recipe with every `@name` of its data as a path."""

    def at(data: Any) -> Any:
        if data is None:
            return None
        named = (data.path,) if isinstance(data.path, str) else data.path
        found = tuple(left.path_of(path, "samples") for path in named)
        return replace(data, path=found if len(found) > 1 else found[0])

    safety = tuple(replace(one, data=at(one.data)) for one in stage.safety)
    capability = tuple(replace(one, data=at(one.data)) for one in stage.capability)
    return replace(stage, data=at(stage.data), safety=safety, capability=capability)


__all__ = ["Interrupted", "Shipped", "Wish", "ship"]
