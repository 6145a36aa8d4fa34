"""Settings of verbs that run no recipe: `strop inspect`, `sample` and `chat`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from strop.data.formats import Dataset, load_dataset
from strop.recipes.config import resolve
from strop.recipes.preflight import require_model
from strop.recipes.settings import Data, EvaluateStage, Sampling, SFTStage
from strop.recipes.sources import Problem, RecipeError

if TYPE_CHECKING:
    from strop.data.chat import Chat


@dataclass(frozen=True, slots=True)
class Look:
    """How much `strop inspect` shows. rows: rows in full; max_length: tokens a row may have."""

    rows: int = 2
    max_length: int = 2048


def read(path: str, pairs: Sequence[str]) -> tuple[Dataset, Chat | None, Look]:
    """The data set, the model's way of tokenising it where `model=` is given, and how to show it.

    Raises: ValueError for settings that are not known, and for data that cannot be read.
    """
    given = dict(_pair(text) for text in pairs)
    model = given.pop("model", None)
    look = Look(*(_count(key, given.pop(key, None), default) for key, default in (("rows", 2), ("max_length", 2048))))
    return _dataset(path, given, {"model", "rows", "max_length"}), None if model is None else _chat(model), look


def read_data(path: str, pairs: Sequence[str]) -> Dataset:
    """The data set alone, with settings of `data` such as `columns.prompt=question`.

    Raises: ValueError for settings that are not known, and for data that cannot be read.
    """
    return _dataset(path, dict(_pair(text) for text in pairs), set())


def _dataset(path: str, given: Mapping[str, str], others: set[str]) -> Dataset:
    known = {f.name for f in fields(Data)} - {"path"}
    unknown = [key for key in given if key.partition(".")[0] not in known]
    if unknown:
        allowed = ", ".join(sorted(others | known))
        raise RecipeError([Problem("", key, f"unknown; allowed: {allowed}") for key in unknown])
    stage = resolve(
        {"kind": "sft", "name": "inspect", "data": path}, [f"data.{k}={v}" for k, v in given.items()]
    ).stages[0]
    assert isinstance(stage, SFTStage) and stage.data is not None
    data = stage.data
    return load_dataset(
        data.path, kind=data.kind, columns=data.columns, split=data.split, limit=data.limit, system=data.system
    )


def split_sampling(arguments: Sequence[str]) -> tuple[Sampling, list[str]]:
    """The sampling settings among the arguments (`temperature=0.7`), and the other texts.

    Raises: RecipeError for values that do not fit.
    """
    keys = {f.name for f in fields(Sampling)}
    pairs = [text for text in arguments if (m := re.match(r"(\w+)=", text)) and m[1] in keys]
    base = {"kind": "evaluate", "name": "sample"}
    stage = resolve(base, ["sampling.temperature=1.0", *(f"sampling.{pair}" for pair in pairs)]).stages[0]
    assert isinstance(stage, EvaluateStage)
    return stage.sampling, [text for text in arguments if text not in pairs]


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise RecipeError([Problem("", text, "a setting is key=value, as model=MODEL")])
    return key, value


def _count(key: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdigit():
        raise RecipeError([Problem("", key, f"expected a whole number, got {text}")])
    return int(text)


def _chat(model: str) -> Chat:
    require_model(model)
    from strop.data.chat import Chat
    from strop.model.load import load_tokenizer

    return Chat(load_tokenizer(model))
