"""What models and data may be used for: the licence that a folder's own files state.

Read are the front matter of a README.md (`license:`, as Hugging Face has it) and the beginning of a LICENSE file,
beside the files or one folder above; of a hub's name, those in the local cache. Nothing is fetched. A model that a
run of ours left has the licence of the model that run began with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from strop.model.adapter import base_of, is_adapter
from strop.recipes import artifacts
from strop.recipes.settings import Recipe
from strop.rewards.gym import GYM

OWN = "apache-2.0"
"""Of the embedded world, whose rows and models this package makes."""
LICENCE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "LICENCE.md", "LICENCE.txt", "COPYING")
KNOWN = (
    (r"Apache License\s+Version 2\.0", "apache-2.0"),
    (r"\bMIT License\b|Permission is hereby granted, free of charge, to any person obtaining a copy", "mit"),
    (r"LLAMA 4 COMMUNITY LICENSE", "llama4"),
    (r"LLAMA 3\.3 COMMUNITY LICENSE", "llama3.3"),
    (r"LLAMA 3\.2 COMMUNITY LICENSE", "llama3.2"),
    (r"LLAMA 3\.1 COMMUNITY LICENSE", "llama3.1"),
    (r"META LLAMA 3 COMMUNITY LICENSE", "llama3"),
    (r"LLAMA 2 COMMUNITY LICENSE", "llama2"),
    (r"Gemma Terms of Use", "gemma"),
    (r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3", "agpl-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3", "lgpl-3.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 3", "gpl-3.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 2", "gpl-2.0"),
    (r"Attribution-NonCommercial-ShareAlike 4\.0", "cc-by-nc-sa-4.0"),
    (r"Attribution-NonCommercial 4\.0", "cc-by-nc-4.0"),
    (r"Attribution-ShareAlike 4\.0", "cc-by-sa-4.0"),
    (r"Attribution 4\.0 International", "cc-by-4.0"),
    (r"CC0 1\.0 Universal", "cc0-1.0"),
    (r"BSD 3-Clause|Neither the name of", "bsd-3-clause"),
    (r"BSD 2-Clause|Redistribution and use in source and binary forms", "bsd-2-clause"),
)
"""How licences begin, and what Hugging Face calls them; the narrower ones first."""
READ = 4000
"""Characters of a licence that are looked at."""
FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as it is stated; both null where nothing states one. source: the file that does."""

    licence: str | None = None
    source: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """Plain JSON values."""
        return {"licence": self.licence, "source": self.source}


def licences_of(recipe: Recipe) -> dict[str, Licence]:
    """The licence of every model and data path that a recipe names, by that name."""
    found: dict[str, Licence] = {}
    for stage in recipe.stages:
        models = artifacts.models_of(recipe, stage).values()
        data = [path for setting in artifacts.sources_of(stage).values() for path in artifacts.paths_of(setting)]
        found |= {text: of_model(text) for text in models if not text.startswith("@") and text not in found}
        found |= {text: of_data(text) for text in data if not text.startswith("@") and text not in found}
    return found


def of_model(name: str) -> Licence:
    """The licence of a model's folder or of a hub's model in the cache."""
    if name.startswith("world:"):
        return Licence(OWN, "made by strop")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return _of_cached("models", name)
    found = _stated(folder)
    if found.licence is None and is_adapter(str(folder)) and base_of(str(folder)) != name:
        return of_model(base_of(str(folder)))
    return found if found.licence is not None else _of_run(folder)


def of_data(name: str) -> Licence:
    """The licence of a data file or folder, or of a hub's data set in the cache."""
    if name.startswith("world:"):
        return Licence(OWN, "made by strop")
    if name.startswith(GYM):
        return Licence(None, None)
    path = Path(name).expanduser()
    if not path.exists():
        return _of_cached("datasets", name)
    return _stated(path if path.is_dir() else path.parent)


def front_matter(readme: Path) -> Mapping[str, Any]:
    """The YAML at the head of a README; empty where there is none that can be read."""
    try:
        match = FRONT.match(readme.read_text("utf-8", errors="replace"))
        found = yaml.safe_load(match[1]) if match else None
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def licence_files(folder: Path) -> list[Path]:
    """Files of a folder that must go with its content: the licence, notices, the policy of use."""
    wanted = ("license", "licence", "copying", "notice", "use_policy")
    found = (
        [p for p in folder.iterdir() if p.is_file() and p.name.lower().startswith(wanted)] if folder.is_dir() else []
    )
    return sorted(found)


def _stated(folder: Path) -> Licence:
    """What the folder's own files state, or those one above (data often stand in `data/`)."""
    for place in (folder, folder.parent):
        for found in _in(place):
            return found
        if (place / "config.json").is_file():
            break  # a model's folder speaks for itself
    return Licence()


def _in(folder: Path) -> Iterator[Licence]:
    said = front_matter(folder / "README.md")
    licence = said.get("license")
    names = licence if isinstance(licence, list) else [licence]
    told = ", ".join(str(name) for name in names if name)
    if told:
        named = str(said.get("license_name") or "") if told == "other" else ""
        yield Licence(named or told, str(folder / "README.md"))
    for name in LICENCE_FILES:
        text = _text(folder / name)
        for pattern, known in KNOWN if text else ():
            if re.search(pattern, text, re.IGNORECASE):
                yield Licence(known, str(folder / name))


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(READ)
    except OSError:
        return ""


def _of_run(folder: Path) -> Licence:
    """Of RUN/stages/NAME/model: what that run's summary says of the model it began with."""
    from strop.recipes.journal import read_json

    parts = folder.resolve().parts
    if len(parts) < 4 or parts[-3] != "stages":
        return Licence()
    summary = folder.resolve().parents[2] / "summary.json"
    try:
        said = read_json(summary) or {}
        bases = [entry["name"] for entry in said.get("lineage", ()) if entry.get("kind") == "base"]
        known = said.get("licences", {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return Licence()
    told = [known[base]["licence"] for base in bases if known.get(base, {}).get("licence")]
    return Licence(", ".join(dict.fromkeys(told)), str(summary)) if told else Licence()


def _of_cached(kind: str, name: str) -> Licence:
    """Of a hub's name: the README that the cache has of it."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return Licence()
    for readme in sorted(cache.glob(f"{kind}--{name.replace('/', '--')}/snapshots/*/README.md")):
        for found in _in(readme.parent):
            return Licence(found.licence, f"{name} (README.md of the hub)")
    return Licence()
