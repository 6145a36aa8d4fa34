"""The public names, in one list: a name that comes or goes is a decision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import strop

PUBLIC = [
    "Completion",
    "Dataset",
    "Group",
    "Message",
    "Recipe",
    "RecipeError",
    "RunResult",
    "Verdict",
    "__version__",
    "dump",
    "load_dataset",
    "load_recipe",
    "run",
    "write_report",
]


def test_the_public_names_are_these() -> None:
    assert strop.__all__ == PUBLIC
    assert dir(strop) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_can_be_had(name: str) -> None:
    assert getattr(strop, name) is not None


def test_others_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        strop.rum  # noqa: B018


def test_import_strop_imports_nothing_else_of_weight() -> None:
    code = (
        "import strop, sys; print(sorted({'torch', 'numpy', 'pydantic', 'yaml', 'rich', 'typer'} & set(sys.modules)))"
    )
    src = str(Path(__file__).parents[1] / "src")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": src})
    assert out.stdout.strip() == "[]", out.stderr
