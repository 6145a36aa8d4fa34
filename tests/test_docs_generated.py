"""The pages that are made from the code are as they would be made now, and all that is public is told."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src/strop").rglob("*.py"))
PUBLIC = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """The script that writes the pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        from tools.docs import __main__ as script
    return script


def test_the_pages_are_as_the_code_says(made: ModuleType) -> None:
    stale = [str(page.relative_to(ROOT)) for page, text in made.written().items() if not _same(page, text)]
    gone = set((ROOT / "docs/api").glob("*.md")) - set(made.written())
    assert stale == [] and not gone, "run `make docs` and commit what it writes"


def _same(page: Path, text: str) -> bool:
    return page.exists() and page.read_text("utf-8") == text


def test_a_table_has_the_recipe_s_own_values_and_what_its_loss_says(made: ModuleType) -> None:
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*?) \|", made.tables.recipe_table("dpop"), re.MULTILINE))
    assert (rows["objective.beta"], rows["objective.penalty"], rows["optimizer.lr"]) == ("0.3", "50.0", "5e-7")
    assert "objective.name" not in rows
    step = dict(re.findall(r"^\| `([^`]+)` \| (.*?) \|", made.tables.recipe_table("raft.sample"), re.MULTILINE))
    assert step["num_samples"] == "16"


def test_a_table_of_a_stage_that_there_is_not_is_refused(made: ModuleType) -> None:
    with pytest.raises(ValueError, match="raft.smaple: name one stage of sample, score, select, sft"):
        made.tables.recipe_table("raft.smaple")


def test_every_setting_says_what_it_does(made: ModuleType) -> None:
    """In its class's docstring, as `name: what it does`, or in `tools/docs/meanings.py` where many share it."""
    from strop.recipes.settings import Written
    from strop.recipes.shape import fields_of

    settings = [(cls, field) for cls in made.tables.reached(Written) for field in fields_of(cls)]
    untold = [f"{cls.__module__}.{cls.__name__}.{f}" for cls, f in settings if not made.tables.meaning(cls, f)]
    assert untold == [], "add `name: what it does` to the Attributes of its docstring, then run `make docs`"


def test_a_docstring_is_read_by_its_fields_names(made: ModuleType) -> None:
    from strop.objectives import DPO, GRPO, GSPOToken, RobustDPO
    from strop.rewards.shape import Overlong

    meaning = made.tables.meaning
    assert meaning(DPO, "beta") == "strength of the pull to the reference"
    assert meaning(GRPO, "clip_low") == meaning(GRPO, "clip_high")  # `clip_low, clip_high: ...`
    assert meaning(RobustDPO, "nll_weight") == meaning(DPO, "nll_weight")  # `Others as in `DPO``
    assert meaning(GSPOToken, "kl")  # by way of GSPO, whose is as GRPO's
    assert meaning(Overlong, "weight") == "of this reward in the sum; 0 is watched, not trained on"


def test_every_public_name_has_a_docstring() -> None:
    bare = []
    for file in MODULES:
        tree = ast.parse(file.read_text("utf-8"))
        found = [node for node in tree.body if isinstance(node, PUBLIC) and not node.name.startswith("_")]
        bare += [f"{file.relative_to(ROOT)}: {n.name}" for n in found if not ast.get_docstring(n)]
        bare += [str(file.relative_to(ROOT))] * (not ast.get_docstring(tree) and bool(tree.body))
    assert bare == []


def test_the_reference_has_every_name_that_the_package_exports(made: ModuleType) -> None:
    import strop

    page = (ROOT / "docs/api/strop.md").read_text("utf-8")
    named = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    assert named == {name for name in strop.__all__ if not name.startswith("_")}


def test_a_docstring_becomes_markdown_that_shows_what_it_says(made: ModuleType) -> None:
    text = "A loss <per pair>.\n\n    x * y\n\nArgs:\n    a, b: first\n        and more.\n    c: |c|.\nReturns: [G]."
    shown = made.names.prose(text)
    assert "A loss \\<per pair>." in shown and "    x * y\n" in shown
    assert "- `a, b`: first and more.\n- `c`: \\|c\\|." in shown and "**Returns**: [G]." in shown


def test_a_signature_is_what_is_called(made: ModuleType) -> None:
    node = ast.parse("def f(a: int, *, b: dict[str, int] = {'x': 1}) -> str: ...").body[0]
    assert made.names.signature(node) == "f(a: int, *, b: dict[str, int] = {'x': 1}) -> str"
    node = ast.parse("@dataclass(frozen=True, kw_only=True)\nclass C:\n    k: ClassVar[int] = 1\n    a: int = 2").body[
        0
    ]
    assert made.names.signature(node) == "class C(*, a: int = 2)"
