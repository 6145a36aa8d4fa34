"""A constitution: a YAML list of principles, one that comes with the package or the user's own.

    name: mine
    principles:
      - id: brief
        critique: Point out words that do no work.
        revision: Rewrite the answer with everything it needs and nothing else.
        comparison: The better response says as much in fewer words.

Every mistake is told with its file and line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from strop.recipes import yaml12
from strop.recipes.sources import Problem, RecipeError
from strop.rollout.principles import Principle

FOLDER = Path(__file__).with_name("constitutions")
"""Where the constitutions that come with the package stand."""
KEYS = ("name", "description", "principles")
TEXTS = tuple(field.name for field in fields(Principle))
MAX_CHARS = 2000
"""Of one text; a principle is a sentence or two, not an essay that a judge has to read for each pair."""


@dataclass(frozen=True, slots=True)
class Constitution:
    """Principles in their order, and where they were read."""

    name: str
    principles: tuple[Principle, ...]
    file: Path


def constitution_names() -> list[str]:
    """Names of the constitutions that come with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def file_of(ref: str) -> Path:
    """The file of a constitution that is named, or is a file.

    Raises: RecipeError if there is none.
    """
    if ref in constitution_names():
        return FOLDER / f"{ref}.yaml"
    path = Path(ref).expanduser()
    if path.is_file():
        return path
    near = difflib.get_close_matches(ref, constitution_names(), 1)
    hint = f"did you mean {near[0]}? " if near else ""
    known = ", ".join(constitution_names())
    raise _wrong(ref, f"no such constitution or file; {hint}there are {known}, and any YAML file of yours")


def load_constitution(ref: str) -> Constitution:
    """The constitution of a name or file.

    Raises: RecipeError naming every mistake with its line.
    """
    file = file_of(ref)
    try:
        document = yaml12.parse(file.read_text("utf-8"))
    except yaml12.YAMLError as error:
        raise _wrong(f"{ref}:{error.line}", str(error)) from None
    except UnicodeDecodeError as error:
        raise _wrong(ref, f"not UTF-8 text ({error.reason} at byte {error.start})") from None
    found = [Problem(f"{ref}:{document.lines.get(path, 1)}", _dotted(path), text) for path, text in _problems(document)]
    if found:
        raise RecipeError(found)
    value = document.value
    principles = tuple(
        Principle(**{key: " ".join(entry[key].split()) for key in TEXTS}) for entry in value["principles"]
    )
    return Constitution(str(value.get("name", file.stem)), principles, file)


def _problems(document: yaml12.Document) -> Iterator[tuple[yaml12.Path, str]]:
    """Everything wrong with a parsed constitution, as (path, what and how to mend it)."""
    value = document.value
    if not isinstance(value, Mapping):
        yield (), "a constitution is a mapping with a list `principles:`"
        return
    yield from _unknown(value, KEYS, ())
    entries = value.get("principles")
    if not isinstance(entries, list) or not entries:
        yield ("principles",) if "principles" in value else (), "principles must be a list with at least one principle"
        return
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        path: yaml12.Path = ("principles", index)
        if not isinstance(entry, Mapping):
            yield path, f"a principle is a mapping with {', '.join(TEXTS)}"
            continue
        yield from _unknown(entry, TEXTS, path)
        yield from _texts(entry, path)
        name = entry.get("id")
        if isinstance(name, str) and name in seen:
            yield (
                (*path, "id"),
                f"{name!r} is the id of principles[{seen[name]}] already; records name principles by it",
            )
        elif isinstance(name, str):
            seen[name] = index


def _texts(entry: Mapping[str, Any], path: yaml12.Path) -> Iterator[tuple[yaml12.Path, str]]:
    for key in TEXTS:
        text = entry.get(key)
        if key not in entry:
            yield path, f"has no {key}; a principle has {', '.join(TEXTS)}"
        elif not isinstance(text, str):
            yield (*path, key), f"must be a text, got {text!r}; quote it"
        elif not text.strip():
            yield (*path, key), "is empty"
        elif len(text) > MAX_CHARS:
            yield (*path, key), f"has {len(text)} characters, more than {MAX_CHARS}; part it into several principles"


def _unknown(value: Mapping[str, Any], known: tuple[str, ...], path: yaml12.Path) -> Iterator[tuple[yaml12.Path, str]]:
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            yield (*path, key), f"unknown; {hint}"


def _dotted(path: yaml12.Path) -> str:
    return ".".join(map(str, path))


def _wrong(where: str, text: str) -> RecipeError:
    return RecipeError([Problem(where, "", text)])
