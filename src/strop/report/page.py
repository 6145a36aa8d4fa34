"""Values and a template to one HTML page: everything escaped, no request, under 2 MB."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from strop.report import text
from strop.report.samples import question

MAX_BYTES = 2_000_000

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a report shows: points a curve, plots a stage, prompts, characters of a text, stages with plots."""

    points: int
    plots: int
    prompts: int
    characters: int
    stages: int = 40


LADDER = (
    Limits(points=400, plots=32, prompts=50, characters=2400),
    Limits(points=240, plots=18, prompts=50, characters=1200),
    Limits(points=160, plots=12, prompts=50, characters=600),
    Limits(points=80, plots=12, prompts=50, characters=300),
    Limits(points=40, plots=6, prompts=20, characters=300, stages=20),
    Limits(points=20, plots=1, prompts=3, characters=200, stages=8),
)
"""Tried in order until the file is under 2 MB."""


def fitted(template: str, context: Callable[[Limits], Mapping[str, Any]]) -> bytes:
    """The page in UTF-8, with the most generous limits that keep it under 2 MB."""
    for limits in LADDER:
        page = render(template, {**context(limits), "limits": limits}).encode("utf-8", "replace")
        if len(page) < MAX_BYTES:
            break
    return page


def render(template: str, values: Mapping[str, Any]) -> str:
    """The page as text, with our style and our script, the only ones that its policy lets through."""
    style, script = (Markup((_HERE / name).read_text(encoding="utf-8")) for name in ("report.css", "report.js"))
    assets = {"style": style, "script": script, "style_hash": _hash(style), "script_hash": _hash(script)}
    return _environment().get_template(template).render(values, **assets).lstrip()


@cache
def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {
        "number": text.number,
        "short": text.short,
        "signed": text.signed,
        "fixed": text.fixed,
        "duration": text.duration,
        "moment": text.moment,
        "visible": text.visible,
        "first_line": text.first_line,
        "clip": text.clip,
        "question": question,
    }
    return env


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")


def write(path: Path, page: bytes) -> Path:
    """Replace a file at once, so that a reader sees all of the old page or all of the new; its path.

    Raises: ValueError if its folder is not there, or the path is a folder itself.
    """
    if path.is_dir():
        raise ValueError(f"--to {path}: a folder; name a file in it, as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ValueError(f"--to {path}: {path.parent} is no folder; make it first")
    part = path.with_name(path.name + ".part")
    part.write_bytes(page)
    os.replace(part, path)
    return path
