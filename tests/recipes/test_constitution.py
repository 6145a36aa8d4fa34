"""Constitutions: those of the package, the user's own, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.recipes.constitution import constitution_names, load_constitution
from strop.recipes.sources import RecipeError

GOOD = """\
name: mine
principles:
  - id: brief
    critique: Point out words
      that do no work.
    revision: Rewrite it.
    comparison: The better one is shorter.
"""


def write(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(text)
    return str(file)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(RecipeError) as found:
        load_constitution(write(folder, text))
    return str(found.value).replace(f"{folder}/", "").splitlines()


def test_those_of_the_package_can_be_read() -> None:
    assert constitution_names() == ["assistant", "world"]
    assistant = load_constitution("assistant")
    assert len(assistant.principles) == 16 and len({p.id for p in assistant.principles}) == 16
    assert all(
        p.comparison.startswith(("The better response", "Where both are harmless")) for p in assistant.principles
    )
    assert [p.id for p in load_constitution("world").principles] == ["polite", "concise"]


def test_a_file_of_the_users(tmp_path: Path) -> None:
    found = load_constitution(write(tmp_path, GOOD))
    assert (found.name, found.principles[0].critique) == ("mine", "Point out words that do no work.")
    unnamed = load_constitution(write(tmp_path, GOOD.replace("name: mine\n", "")))
    assert unnamed.name == "mine"


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    text = (
        GOOD.replace("revision: Rewrite it.", "revison: Rewrite it.")
        + "  - id: brief\n    critique: 7\n  - just text\n"
    )
    told = problems(tmp_path, text)
    assert told == [
        "mine.yaml:6: principles.0.revison: unknown; did you mean revision?",
        "mine.yaml:3: principles.0: has no revision; a principle has id, critique, revision, comparison",
        "mine.yaml:9: principles.1.critique: must be a text, got 7; quote it",
        "mine.yaml:8: principles.1: has no revision; a principle has id, critique, revision, comparison",
        "mine.yaml:8: principles.1: has no comparison; a principle has id, critique, revision, comparison",
        "mine.yaml:8: principles.1.id: 'brief' is the id of principles[0] already; records name principles by it",
        "mine.yaml:10: principles.2: a principle is a mapping with id, critique, revision, comparison",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n", "mine.yaml:1: a constitution is a mapping with a list `principles:`"),
        ("name: x\n", "mine.yaml:1: principles must be a list with at least one principle"),
        ("name: x\nprinciples: []\n", "mine.yaml:2: principles: principles must be a list with at least one principle"),
        ("name: x\nname: y\n", "mine.yaml:2: the key 'name' stands twice, first in line 1"),
        (GOOD.replace("Rewrite it.", "x" * 2001), "mine.yaml:6: principles.0.revision: has 2001 characters, more than"),
        (GOOD.replace("Rewrite it.", '""'), "mine.yaml:6: principles.0.revision: is empty"),
    ],
)
def test_what_is_no_constitution(text: str, told: str, tmp_path: Path) -> None:
    assert problems(tmp_path, text)[0].startswith(told)


def test_an_unknown_name() -> None:
    with pytest.raises(RecipeError, match="asistant: no such constitution or file; did you mean assistant?"):
        load_constitution("asistant")
