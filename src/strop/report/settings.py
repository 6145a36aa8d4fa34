"""What the settings of several runs differ in: their resolved configs, flattened and laid side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import yaml

from strop.report.records import Run

Loader: Any
try:
    Loader = yaml.CBaseLoader  # six times as fast, where PyYAML was built with it
except AttributeError:
    Loader = yaml.BaseLoader

MOST_KEYS = 20_000
"""Settings of one config; what stands behind them is not compared."""
NAMELESS = frozenset({"runs", "description", "reuse"})
"""Settings that say nothing of what was done."""
ABSENT = "–"

NOTHING = frozenset({ABSENT, "null", ""})
"""Values that say the same: a setting that is not there, and one that is empty."""

Row = tuple[str, tuple[str, ...]]


def differences(runs: Sequence[Run]) -> list[Row]:
    """Settings that are not the same in all runs, by their path; the stages that some lack stand in one row."""
    flat = [flat_of(run.config) for run in runs]
    stages = [{key.split(".")[1] for key in one if key.startswith("stages.")} for one in flat]
    missing = [
        name for name in dict.fromkeys(n for one in stages for n in sorted(one)) if not all(name in s for s in stages)
    ]
    only = tuple(", ".join(name for name in missing if name in s) or ABSENT for s in stages)
    rows: list[Row] = [("stages that not all have", only)] if missing else []
    for key in dict.fromkeys(key for one in flat for key in one):
        values = tuple(one.get(key, ABSENT) for one in flat)
        top, name, *_ = (*key.split("."), "")
        if _differ(values) and top not in NAMELESS and not (top == "stages" and name in missing):
            rows.append((key, values))
    return sorted(_rounds_as_one(rows), key=lambda row: row[0].startswith("stages."))


def _rounds_as_one(rows: Sequence[Row]) -> list[Row]:
    """Rows that say the same of several rounds of a stage as one: stages.dpo-*.objective.beta."""
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for key, values in rows:
        found.setdefault((re.sub(r"^(stages\..+?)-\d+\.", r"\1-*.", key), values), []).append(key)
    return [(shared if len(keys) > 1 else keys[0], values) for (shared, values), keys in found.items()]


def _differ(values: Sequence[str]) -> bool:
    return len({ABSENT if value in NOTHING else value for value in values}) > 1


def flat_of(config: str) -> dict[str, str]:
    """Every setting by its path, values as they are written; nothing where the config cannot be read."""
    try:
        value = yaml.load(config, Loader)  # every scalar stays a text: nothing is built
    except (yaml.YAMLError, RecursionError):
        return {}
    return dict(islice(_walk(value, ""), MOST_KEYS)) if isinstance(value, dict) else {}


def _walk(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _walk(entry, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(entry, Mapping | list) for entry in value):
        for place, entry in enumerate(value):
            name = entry.get("name") if path == "stages" and isinstance(entry, Mapping) else None
            yield from _walk(entry, f"{path}.{name or place}")
    else:
        yield path, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
