"""A recipe looked at without running it: rows, lengths, steps and memory. Loads no weights and no torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.data.formats import Dataset, load_dataset
from strop.data.inspect import percentiles
from strop.data.mixed import load_prompts
from strop.model.adapter import LoRA
from strop.recipes import artifacts
from strop.recipes.arithmetic import num_held_out, num_steps
from strop.recipes.kinds.ppo import SHARED
from strop.recipes.methods import holds_reference
from strop.recipes.planning.counts import from_config, read_config
from strop.recipes.preflight import ANY_KIND, wrong_kind
from strop.recipes.settings import (
    Data,
    OnPolicyStage,
    PPOStage,
    Recipe,
    RefreshStage,
    RewardStage,
    Stage,
    TrainingStage,
)
from strop.rewards.gym import GYM, resolve_gym, sized
from strop.types import Group, content_to_json
from strop.world.write import resolve

MEASURED = 2000
"""Rows whose tokens are counted, the first ones."""


def validate(recipe: Recipe) -> list[dict[str, Any]]:
    """What each stage would read and do, as plain values.

    Raises: ValueError if data cannot be read.
    """
    with tempfile.TemporaryDirectory() as world:
        return [_stage(recipe, stage, Path(world)) for stage in recipe.stages]


def _stage(recipe: Recipe, stage: Stage, world: Path) -> dict[str, Any]:
    model = artifacts.model_of(recipe, stage) if "model" in stage.models else None
    folder = _model_folder(recipe, model, world) if model is not None else None
    out: dict[str, Any] = {"name": stage.name, "kind": stage.kind, "model": model, "data": {}}
    num_rows = None
    for key, data in artifacts.sources_of(stage).items():
        if any(path.startswith("@") for path in artifacts.paths_of(data)):
            out["data"][key] = {"path": data.path, "text": "left by an earlier stage, so not known yet"}
            continue
        found = load(data, world, recipe.seed, load_prompts if artifacts.wants_prompts(stage) else load_dataset)
        if key in stage.datasets and key not in ANY_KIND and (trouble := wrong_kind(stage, found)):
            raise ValueError(f"{stage.name}.{key}: {trouble}")
        out["data"][key] = {"path": data.path, **_counts(found), "lengths": lengths(found.groups, folder)}
        num_rows = len(found.groups) if key == "data" else num_rows
    if isinstance(stage, TrainingStage):
        try:
            out["steps"] = steps_of(stage, num_rows)
        except ValueError as error:
            raise ValueError(f"{stage.name}: {error}") from None
    out["memory"] = memory_of(stage, folder)
    return out


def load(data: Data, world: Path, seed: int, read: Callable[..., Dataset] = load_dataset) -> Dataset:
    """The rows that a data setting names; the embedded world is written into `world` when it is named."""
    named = [sized(path, data.limit) for path in artifacts.paths_of(data)]
    paths = [resolve_gym(p, world, seed) if p.startswith(GYM) else resolve(p, world, seed) for p in named]
    return read(paths, kind=data.kind, columns=data.columns, split=data.split, limit=data.limit, system=data.system)


def steps_of(stage: TrainingStage, num_rows: int | None) -> dict[str, Any]:
    """The optimizer steps of a training stage and the arithmetic behind them, in words."""
    training = stage.training
    if num_rows is None:
        return {"steps": training.steps, "text": f"{training.steps or 'unknown'} steps"}
    held = 0 if stage.eval_data is not None or isinstance(stage, OnPolicyStage) else num_held_out(num_rows, training)
    rows = num_rows - held
    steps = num_steps(rows, training)
    left_out = f" ({held} held out)" if held else ""
    if training.steps is not None:
        passes = steps * training.batch_size / rows
        text = f"{steps} steps x {training.batch_size} of {rows} rows{left_out} = {passes:.2f} passes"
    else:
        text = f"{rows} rows{left_out} x {training.epochs:g} passes / {training.batch_size} = {steps} steps"
    if isinstance(stage, OnPolicyStage):
        text += f"; {training.batch_size} prompts x {stage.num_generations} completions a step"
    return {"steps": steps, "rows": rows, "held_out": held, "text": text}


def lengths(groups: Sequence[Group], folder: Path | None) -> dict[str, Any]:
    """Percentiles of whole groups' lengths: tokens of their words where there is a tokenizer, else characters."""
    texts = [_words(group) for group in groups[:MEASURED]]
    tokenizer = None if folder is None else folder / "tokenizer.json"
    if tokenizer is None or not tokenizer.is_file():
        return {"unit": "characters", "measured": len(texts), **percentiles(len(t) for t in texts)}
    import tokenizers  # without transformers, so without torch

    encoder = tokenizers.Tokenizer.from_file(str(tokenizer))
    counts = [len(e.ids) for e in encoder.encode_batch(texts, add_special_tokens=False)]
    return {"unit": "tokens (without the chat template's)", "measured": len(texts), **percentiles(counts)}


def memory_of(stage: Stage, folder: Path | None) -> dict[str, Any]:
    """A rough estimate of the memory that weights and optimizer take, bytes; activations come on top."""
    if "model" not in stage.models:
        return {"text": "no model of its own"}
    num = num_parameters(folder)
    if num is None:
        return {"text": "unknown by config.json alone; strop plan counts it"}
    if isinstance(stage, RefreshStage):  # lets the policy go before it trains
        stage = RewardStage(name=stage.name, data=stage.old, adapter=stage.adapter, training=stage.training)
    if not isinstance(stage, TrainingStage):
        return {"parameters": num, "bytes": 4 * num, "text": f"{num:,} parameters x 4 bytes = {size(4 * num)}"}
    if stage.adapter is not None:
        return _adapter_memory(stage, stage.adapter, folder, num)
    trained = 16 * num
    critic = isinstance(stage, PPOStage) and stage.critic != SHARED
    reference = _asks_reference(stage)
    monitor = artifacts.monitor_of(stage)
    copy = monitor is not None and monitor.kl and not (reference and isinstance(stage, OnPolicyStage))
    total = trained + (trained if critic else 0) + (4 * num if reference else 0) + (4 * num if copy else 0)
    text = f"{num:,} parameters x 16 bytes (weight, gradient, two moments; fp32) = {size(trained)}"
    text += f", + as much for the critic = {size(2 * trained)}" if critic else ""
    text += f", + 4 bytes each for the reference = {size(total - 4 * num * copy)}" if reference else ""
    text += f", + 4 bytes each for the monitor's copy of the start = {size(total)}" if copy else ""
    return {"parameters": num, "bytes": total, "text": text + "; activations come on top"}


def _adapter_memory(stage: TrainingStage, adapter: LoRA, folder: Path | None, num: int) -> dict[str, Any]:
    """The same under an adapter: frozen weights, and 16 bytes for each of the adapter's."""
    counts = from_config(read_config(folder))
    assert counts is not None
    low = counts.adapted(adapter)
    critic = isinstance(stage, PPOStage) and stage.critic != SHARED
    other = "reference" in artifacts.models_of(Recipe(name="", model=""), stage)
    total = (4 * num + 16 * low) * (2 if critic else 1) + (4 * num if other else 0)
    text = f"{num:,} frozen parameters x 4 bytes (2 in bf16) + {low:,} of the adapter x 16 = {size(4 * num + 16 * low)}"
    text += ", + as much for the critic" if critic else ""
    text += f", + 4 bytes each for the named reference = {size(total)}" if other else ""
    return {"parameters": num, "trained": low, "bytes": total, "text": text + "; activations come on top"}


def _asks_reference(stage: TrainingStage) -> bool:
    """Whether a reference model is held beside the trained one."""
    named = "reference" in artifacts.models_of(Recipe(name="", model=""), stage)
    return holds_reference(stage) if isinstance(stage, OnPolicyStage) else named


def num_parameters(folder: Path | None) -> int | None:
    """Weights of a usual dense decoder by its config.json; null where there is none that tells."""
    counts = from_config(read_config(folder))
    return None if counts is None else counts.parameters


def linear_shapes(folder: Path | None) -> dict[str, tuple[int, int, int]] | None:
    """Rows, columns and number of each linear layer of such a decoder, by its usual name; null as above."""
    counts = from_config(read_config(folder))
    return None if counts is None else {name: (rows, columns, num) for name, rows, columns, num in counts.linear}


def size(num_bytes: float) -> str:
    """Bytes in words."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} TiB"


def as_text(stages: Sequence[Mapping[str, Any]]) -> str:
    """What `validate` gave, for a terminal."""
    lines: list[str] = []
    for stage in stages:
        start = f" from {stage['model']}" if stage["model"] is not None else ""
        lines += ["", f"{stage['name']} ({stage['kind']}){start}"]
        for key, data in stage["data"].items():
            lines += _data_lines(key, data)
        if "steps" in stage:
            lines.append(f"  steps   {stage['steps']['text']}")
        lines.append(f"  memory  {stage['memory']['text']}")
    return "\n".join(lines[1:]) + "\n"


def _data_lines(key: str, data: Mapping[str, Any]) -> list[str]:
    if "text" in data:
        return [f"  {key:<7} {data['path']}: {data['text']}"]
    lines = [
        f"  {key:<7} {data['path']}: {data['rows']} rows of kind {data['kind']} ({data['shape']}), {data['kept']} kept"
    ]
    lines += [f"          dropped {count}: {data['examples'].get(why, why)}" for why, count in data["dropped"].items()]
    spread = "  ".join(f"{k} {v:.0f}" for k, v in data["lengths"].items() if k not in ("unit", "measured"))
    return [*lines, f"          {data['lengths']['unit']} a row: {spread}"]


def _counts(found: Dataset) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "shape": found.shape,
        "rows": found.num_rows,
        "kept": found.num_rows - found.num_dropped,
        "groups": len(found.groups),
        "dropped": dict(found.dropped),
        "examples": dict(found.examples),
        "sha256": found.sha256,
    }


def _model_folder(recipe: Recipe, model: str, world: Path) -> Path | None:
    """The folder of the model a stage starts from; that of the first one where an earlier stage leaves it."""
    if model.startswith("@"):
        earlier = next(s for s in recipe.stages if s.name == model[1:])
        return _model_folder(recipe, artifacts.origin_of(recipe, earlier), world)
    folder = Path(resolve(model, world, recipe.seed)).expanduser()
    return folder if folder.is_dir() else None


def _words(group: Group) -> str:
    contents = [group.prompt, *(c.content for c in group.completions)]
    plain = [content_to_json(c) for c in contents]
    return "\n".join(p if isinstance(p, str) else "\n".join(m["content"] for m in p) for p in plain)
