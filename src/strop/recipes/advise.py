"""`strop advise`: from a data set, and what there is besides it, to a method, its command and its memory. No torch."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from strop.data.formats import Dataset
from strop.data.quality import Quality, quality
from strop.recipes.config import resolve
from strop.recipes.decide import Advice, Means, decide
from strop.recipes.memory import GIB, WAYS, Size, Way, first_that_fits, needed
from strop.recipes.methods import by_name
from strop.recipes.preflight import require_model
from strop.recipes.settings import RLStage
from strop.recipes.sources import RecipeError
from strop.recipes.validate import linear_shapes, num_parameters
from strop.rewards import RewardSettings

WIDTH = 100


def advise(dataset: Dataset, path: str, means: Means, data_settings: Sequence[str] = ()) -> tuple[Quality, Advice]:
    """Look at the rows and decide.

    Args: path, data_settings: as they are to stand in the command (`columns.prompt=question`).
    Raises: ValueError if the verifier compares with a column that no row has.
    """
    if means.verifier is not None:
        check_columns(means.verifier, dataset)
    seen = quality(dataset)
    found = _fitted(decide(seen, means, dataset), means)
    return seen, replace(found, commands=tuple(_commands(found, path, means, data_settings)))


# Memory and commands.


def _fitted(found: Advice, means: Means) -> Advice:
    """The advice with the way of training that fits, and the memory in words."""
    if means.size is None or found.method is None or not by_name()[found.method].trained:
        return found
    method = by_name()[found.method]
    full, billions = needed(means.size, method, WAYS[0]), means.size.parameters / 1e9
    words = f"{billions:.3g} B parameters, {method.name}: about {full / GIB:,.0f} GiB with all weights trained"
    if means.gib is None:
        return replace(found, memory=words + "; --gpu-memory says what there is")
    way = first_that_fits(means.size, method, means.gib)
    if way is None:
        words += f"; even QLoRA does not fit in {means.gib:g} GiB: a smaller model, or more GPUs"
        return replace(found, memory=words)
    settings = (*found.settings, *way.settings, *_sampling_rows(method.samples, way))
    if way.adapter is not None:
        settings = (*settings, f"optimizer.lr={10 * _learning_rate(method.name):g}")
    took = needed(means.size, method, way) / GIB
    return replace(found, settings=settings, memory=f"{words}; {way.words}: {took:,.0f} of {means.gib:g} GiB")


def _sampling_rows(samples: int, way: Way) -> tuple[str, ...]:
    return (f"sampling.rows={way.rows}",) if samples and way.rows < 256 else ()


def _learning_rate(name: str) -> float:
    """The recipe's own; an adapter learns at about ten times as much."""
    return float(resolve(name).stages[-1].optimizer.lr)  # type: ignore[union-attr]


def _commands(found: Advice, path: str, means: Means, data_settings: Sequence[str]) -> Iterator[str]:
    if found.method is None:
        return
    recipe = resolve(found.method)
    pairs = ["model=" + (means.model or "MODEL")] if "model" in recipe.stages[0].models else []
    pairs += [f"data={path}", *(f"data.{text}" for text in data_settings), *found.settings]
    yield shlex.join(["strop", "run", found.method, *pairs])
    if found.method == "select":
        more = ["model=" + (means.model or "MODEL"), "data=RUN/stages/select/samples.jsonl"]
        yield shlex.join(["strop", "run", "dpo", *more])


# The command line's arguments.


def means_of(
    verifier: str | None, judge: str | None, model: str | None, parameters: str | None, gpu_memory: float | None
) -> Means:
    """What was said on the command line, checked.

    Raises: ValueError naming the option and a value that it may have.
    """
    if verifier is not None:
        _reward_settings(verifier)
    if judge is not None and not re.match(r"https?://[^\s/]+", judge):
        raise ValueError(f"--judge {judge}: expected an address, as http://localhost:8000/v1")
    if gpu_memory is not None and not gpu_memory > 0:
        raise ValueError(f"--gpu-memory {gpu_memory:g}: expected GB, as 24")
    if model is not None:
        require_model(model)
    size = _size(model, parameters)
    return Means(verifier, judge, model, size, gpu_memory, _is_base(model))


def check_columns(verifier: str, dataset: Dataset) -> None:
    """Raises ValueError if the verifier compares with a column that no row has."""
    for reward in _reward_settings(verifier):
        column = getattr(reward, "column", None)
        known = {name for group in dataset.groups for name in group.row}
        if isinstance(column, str) and column not in known:
            raise ValueError(
                f"--verifier {verifier}: compares with a column {column!r} that no row has; columns kept for rewards: "
                f"{', '.join(sorted(known)) or 'none'}; name one, as columns.{column}=COLUMN"
            )


def _reward_settings(verifier: str) -> tuple[RewardSettings, ...]:
    try:
        stage = resolve({"kind": "rl", "name": "rl"}, [f"rewards={verifier}"]).stages[0]
    except RecipeError as error:
        raise ValueError(f"--verifier {verifier}: {'; '.join(p.text for p in error.problems)}") from None
    assert isinstance(stage, RLStage)
    return stage.rewards


def _size(model: str | None, parameters: str | None) -> Size | None:
    if parameters is not None:
        return Size.of(number_of_parameters(parameters))
    folder = None if model is None else Path(model).expanduser()
    num = num_parameters(folder)
    shapes = linear_shapes(folder)
    if num is None or shapes is None:
        return None
    _, width, layers = shapes["q_proj"]
    return Size(float(num), float(layers), float(width))


def number_of_parameters(text: str) -> float:
    """`7B`, `350M` or `1.5e9` as a number.

    Raises: ValueError for anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmbt]?)", text.strip().lower())
    factor = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
    number = float(match[1]) * factor[match[2]] if match else 0.0
    if number <= 0:
        raise ValueError(f"--parameters {text}: expected a number of weights, as 7B or 350M")
    return number


def _is_base(model: str | None) -> bool:
    """Whether a model's folder has a tokenizer without a chat template."""
    folder = None if model is None else Path(model).expanduser()
    config = None if folder is None else folder / "tokenizer_config.json"
    if folder is None or config is None or not config.is_file():
        return False
    return not (folder / "chat_template.jinja").is_file() and '"chat_template"' not in config.read_text("utf-8")


# As text.


def to_json(seen: Quality, found: Advice) -> Mapping[str, Any]:
    """Plain JSON values."""
    return {"data": asdict(seen), "advice": asdict(found)}


def as_text(seen: Quality, found: Advice, shape: str, width: int = WIDTH) -> str:
    """The advice for a terminal."""
    rows = "1 row" if seen.rows == 1 else f"{seen.rows:,} rows"
    parts = [("data", f"{seen.kind} ({shape}): {rows}"), *(("", finding) for finding in found.findings)]
    parts.append(("begin with", f"{found.method or 'nothing yet'}: {found.why}"))
    if found.memory:
        parts.append(("memory", found.memory))
    lines = [line for head, words in parts for line in _wrapped(head, words, width)]
    lines += ["", *(f"  {command}" for command in found.commands)] if found.commands else []
    lines.append("")
    if found.runner_up is not None:
        lines += _wrapped("runner-up", f"{found.runner_up[0]}: {found.runner_up[1]}", width)
    for number, change in enumerate(found.changes):
        lines += _wrapped("" if number else "would change", change, width)
    return "\n".join(lines).rstrip() + "\n"


def _wrapped(head: str, words: str, width: int) -> list[str]:
    return textwrap.wrap(words, width, initial_indent=f"{head:<13}", subsequent_indent=" " * 13)
