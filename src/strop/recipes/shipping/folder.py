"""The folder that ships: weights, tokenizer, what ends an answer, the licences; checked, and then put in its place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.model.adapter import base_of, is_adapter
from strop.recipes import artifacts
from strop.recipes.journal import read_json
from strop.recipes.licences import licence_files
from strop.recipes.settings import ShipStage
from strop.recipes.shipping.gguf import convert
from strop.recipes.shipping.left import Subject
from strop.recipes.shipping.unaided import Compared, Own, compare, own_answers
from strop.train.metrics import write_json
from strop.types import Group

GENERATION = "generation_config.json"
NEEDED = ("config.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Folder:
    """What stands in the folder.

    Attributes:
        base, rank: of an adapter that ships apart, the model it needs, and its rank; null and 0 for a whole model.
        gguf: the converted file's name.
        plain: the model is asked by texts, not by turns.
        stops, template: the texts that end an answer, and the chat template as Ollama writes one.
        sha256: of all files but those that are only said of the model.
        not_folded: why the merged model was not compared with its adapter.
    """

    path: Path
    base: str | None
    rank: int
    gguf: str | None
    compared: Compared
    plain: bool
    stops: tuple[str, ...]
    template: str | None
    sha256: str
    not_folded: str = ""


Finish = Callable[[Path, Folder], None]
"""Writes into the unfinished folder what is said of it."""


def check_target(target: Path) -> None:
    """Raises ValueError if the folder cannot be made there."""
    if target.exists():
        raise ValueError(f"{target} exists; name a new folder, as --to my-model")


def check_adapter(subject: Subject, settings: ShipStage) -> None:
    """Raises ValueError if an adapter is to ship apart and there is none, or nobody else could load its base."""
    if settings.adapter == "merged":
        return
    if subject.adapter is None:
        raise ValueError(
            f"adapter=apart: stage {subject.stage} trained no adapter; ship the model whole, as adapter=merged"
        )
    base = Path(base_of(str(subject.adapter)))
    if base.is_dir() and not list(base.glob("*.safetensors")) and not list(base.glob("*.bin")):
        raise ValueError(
            f"adapter=apart: its base {base} is a config without weights, which nobody could put it on; "
            "ship the model whole, as adapter=merged"
        )


def make(subject: Subject, settings: ShipStage, target: Path, prompts: Sequence[Group], finish: Finish) -> Folder:
    """Make the folder: copied or merged, checked in transformers alone, converted, finished, and only then there.

    Args: prompts: what the greedy answers are compared on; none takes generic ones.
    Raises: ValueError if it does not say what strop says, and whatever `finish` raises; nothing is left then.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    recipe = subject.left.recipe
    try:
        _fill(subject, settings, part)
        own = own_answers(str(subject.model), prompts, recipe)
        _end_answers(part, own)
        other, why = _other(subject, settings)
        compared = compare(part, own, other=other, recipe=recipe)
        gguf = convert(part, settings.gguf, target.name) if settings.gguf else None
        made = Folder(
            path=target,
            base=base_of(str(part)) if is_adapter(str(part)) else None,
            rank=int((read_json(part / "adapter_config.json") or {}).get("r", 0)),
            gguf=gguf,
            compared=compared,
            plain=own.plain,
            stops=own.stops,
            template=own.template,
            sha256=artifacts.hash_folder(part),
            not_folded=why,
        )
        finish(part, made)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def _fill(subject: Subject, settings: ShipStage, part: Path) -> None:
    """Weights, tokenizer and licences."""
    if settings.adapter == "apart":
        assert subject.adapter is not None, "checked before"
        shutil.copytree(subject.adapter, part)
    elif subject.whole:
        shutil.copytree(subject.model, part)
    else:
        _merge(subject, part)
    missing = [name for name in NEEDED if not (part / name).is_file()]
    if settings.adapter == "merged" and (missing or not list(part.glob("*.safetensors"))):
        raise ValueError(f"{subject.model}: no whole model; it has no {', '.join(missing) or 'safetensors file'}")
    for file in _licences(subject):
        if not (part / file.name).exists():
            shutil.copy2(file, part / file.name)


def _merge(subject: Subject, part: Path) -> None:
    """Fold an adapter that stands alone into its base, in fp32."""
    from strop.model.load import load, load_tokenizer

    path = str(subject.adapter)
    recipe = subject.left.recipe
    model = load(path, device="cpu", precision="fp32", seed=recipe.seed, say=lambda text: None)
    model.module.save_pretrained(part)
    load_tokenizer(path).save_pretrained(part)


def _licences(subject: Subject) -> list[Path]:
    """The licence files of the model that training began with, where it is a folder here."""
    try:
        start = Path(subject.left.start_of(subject.stage)).expanduser()
    except ValueError:
        return []
    folder = Path(base_of(str(start))) if is_adapter(str(start)) else start
    return licence_files(folder)


def _end_answers(part: Path, own: Own) -> None:
    """Let generation_config.json name every token that ended an answer in training, or others would not stop there."""
    path = part / GENERATION
    config: dict[str, Any] = read_json(path) or {}
    known = config.get("eos_token_id")
    ends = [known] if isinstance(known, int) else list(known or ())
    wanted = [*ends, *sorted(own.stop_ids - set(ends))]
    if wanted == ends:
        return
    config["eos_token_id"] = wanted[0] if len(wanted) == 1 else wanted
    config.pop("_from_model_config", None)  # or transformers may take the model's config in its place
    write_json(path, config)


def _other(subject: Subject, settings: ShipStage) -> tuple[str | None, str]:
    """What should compute the same logits as the folder, as `strop.model.unaided` names it; or why nothing can."""
    if subject.adapter is None:
        return None, ""
    if settings.adapter == "apart":
        return (str(subject.model.resolve()), "") if subject.whole else ("merge", "")
    base = Path(base_of(str(subject.adapter)))
    if base.is_absolute() and not base.is_dir():
        return None, f"its base {base} is gone"
    if base.is_dir() and not list(base.glob("*.safetensors")) and not list(base.glob("*.bin")):
        return None, f"its base {base} is a config without weights"
    return str(subject.adapter.resolve()), ""


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def parameters_in(folder: Path) -> int:
    """Numbers in the safetensors files of a folder, by their headers."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for length in tensor["shape"]:
                    count *= length
                total += count
    return total
