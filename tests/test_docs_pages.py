"""The pages as a whole: links lead somewhere, every page is found, what tables and lists say is what the code has."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strop.recipes.config import resolve
from strop.recipes.listing import recipes, text_of
from strop.recipes.settings import Written
from strop.recipes.shape import default_of, fields_of
from strop.recipes.yaml12 import parse

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/methods/*.md")])
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/api/*.md")]
LINKED = [*PAGES, *OTHERS]


# Links.


@pytest.mark.parametrize("page", LINKED, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists() and place.is_relative_to(ROOT), f"{page.name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", place.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in slugs, f"{page.name}: {target}"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_nothing_is_left_to_be_filled_in(page: Path) -> None:
    assert re.findall(r"^[A-Z_]{4,}$|\bTODO\b|\bTBD\b|\bXXX\b", page.read_text("utf-8"), re.MULTILINE) == []


def links(page: Path) -> set[Path]:
    """The pages that a page leads to."""
    targets = re.findall(r"\]\(([^)\s#]+\.md)[)#]", page.read_text("utf-8"))
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def test_every_page_is_reached_from_the_readme_and_named_by_the_index() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += links(page)
    assert [page.name for page in LINKED if page.is_relative_to(ROOT / "docs") and page not in reached] == []
    named = links(ROOT / "docs/README.md") | {ROOT / "docs/README.md", ROOT / "README.md"}
    assert [page.name for page in PAGES if page not in named] == []


def test_every_recipe_has_a_page_that_runs_it_and_stands_in_the_index() -> None:
    fence = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    commands = " ".join(text for page in PAGES for info, text in fence.findall(page.read_text("utf-8")) if not info)
    index = (ROOT / "docs/README.md").read_text("utf-8")
    shown = {name for name in recipes() if re.search(rf"strop (run )?{re.escape(name)}[ \n]", commands)}
    assert set(recipes()) - shown == set()
    assert [name for name in recipes() if f"`{name}`" not in index] == []


def test_each_method_s_page_has_its_parts() -> None:
    parts = ("## When", "## Data", "## What it computes", "## Settings", "## Pitfalls", "## Watch", "## Source")
    for page in ROOT.glob("docs/methods/*.md"):
        text = page.read_text("utf-8")
        if re.search(r"^Recipes?: `", text, re.MULTILINE):
            assert [part for part in parts if part not in text] == [], page.name
            assert "strop run " in text and "](https://arxiv.org" in text or page.name == "cdpo.md", page.name


def test_metrics_named_on_the_methods_pages_are_logged() -> None:
    """Names such as `rewards/chosen` or `best@k`: some text, or pattern of one, of the package makes each."""
    texts, patterns = made_by_the_package()
    metric = re.compile(r"(?:[a-z_]+/)+[\w@]+|[a-z_]+@[kn](?:/[a-z]+)?|[a-z]+(?:_[a-z]+)+")
    unknown = []
    for page in ROOT.glob("docs/methods/*.md"):
        watched = page.read_text("utf-8").partition("## Watch")[2].partition("\n## ")[0]
        for name in re.findall(r"`([^`]+)`", watched):
            said = re.sub("@[kn](?=$|/)", "@4", name)
            found = said in texts or any(p.fullmatch(s) for p in patterns for s in (said, f"{said}/x"))
            if metric.fullmatch(name) and not found:
                unknown.append(f"{page.name}: {name}")
    assert not unknown, unknown


def made_by_the_package() -> tuple[set[str], list[re.Pattern[str]]]:
    """Its texts, and patterns of those that are put together; a hole holds one name or number."""
    texts, patterns = set[str](), set[str]()
    for file in (ROOT / "src/strop").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
            if isinstance(node, ast.arg | ast.keyword) and node.arg:
                texts.add(node.arg)
            if isinstance(node, ast.AnnAssign):
                texts.add(ast.unparse(node.target))
            if isinstance(node, ast.JoinedStr) and 1 < len(node.values) < 6:
                parts = [re.escape(str(v.value)) if isinstance(v, ast.Constant) else r"[\w/]+" for v in node.values]
                patterns.add("".join(parts))
    return texts, [re.compile(text) for text in patterns if re.search(r"[/@_]", text)]


def test_ours_beside_the_papers_is_what_the_recipes_say() -> None:
    """Rows `| `recipe` | `setting` | the paper's | ours | where it was looked up |`."""
    text = (ROOT / "docs/recipes-papers.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w.-]+)` \| [^|]+ \| ([^|]+) \|", text, re.MULTILINE)
    assert len(rows) > 60
    wrong = [(name, key, ours) for name, key, ours in rows if (found := setting(name, key)) != ours]
    assert wrong == [], found


def test_defaults_in_the_tables_are_defaults_of_the_code() -> None:
    """Rows `| `objective.clip`, `dual_clip` | .2, null | ... |`: each value is that of a class or a built-in recipe."""
    known = defaults()
    wrong, count = [], 0
    for page in PAGES:
        for keys, values in table_rows(page):
            for key, value in zip(keys, values, strict=True):
                if key in known and (number := plain(value)) is not None:
                    count += 1
                    wrong += [f"{page.name}: {key} is not {value}"] if number not in known[key] else []
    assert wrong == [] and count > 60


def table_rows(page: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Settings with their defaults, of tables written by hand; a bare name has the block of the one before."""
    text = re.sub(r"<!-- settings .*?<!-- end -->", "", page.read_text("utf-8"), flags=re.DOTALL)
    for first, second in re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \| ([^|]+) \|", text, re.MULTILINE):
        keys = re.findall(r"`([\w.]+)`", first)
        block = keys[0].rpartition(".")[0]
        whole = [key if "." in key or not block else f"{block}.{key}" for key in keys]
        values = second.strip().split(", ")
        if len(whole) == len(values):
            yield whole, values


def plain(text: str) -> Any:
    """A value as a table has it; None for words."""
    bare = text.strip("` ")
    if bare in ("null", "true", "false"):
        return bare
    try:
        return float(bare)
    except ValueError:
        return None


def defaults() -> dict[str, set[Any]]:
    """Every setting's values: as classes declare them, through every variant, and as built-in recipes set them."""
    known: dict[str, set[Any]] = {}

    def note(path: str, value: Any) -> None:
        known.setdefault(path, set()).add(plain("null" if value is None else str(value).lower()))

    def walk(cls: type, prefix: str, instance: Any) -> None:
        for key, shape in fields_of(cls).items():
            value = default_of(cls, key, instance)
            note(prefix + key, value)
            for inner in shape.classes:
                walk(inner, f"{prefix}{key}.", value if isinstance(value, inner) else None)

    for cls in reached(Written):
        walk(cls, "", None)
    for name in recipes():
        for stage in resolve(name).stages:
            walk(type(stage), "", stage)
    return known


def setting(recipe: str, key: str) -> str:
    """A recipe's value at `key`, or at `stage.key` where it has several, as YAML has it."""
    if key == "rounds.times":
        return str(next(entry["times"] for entry in parse(text_of(recipe)[1]).value["stages"] if "times" in entry))
    stages = {stage.name.removesuffix("-1"): stage for stage in resolve(recipe).stages}
    first, _, rest = key.partition(".")
    value: Any = stages.get(first, next(iter(stages.values())))
    for name in (rest if first in stages and len(stages) > 1 else key).split("."):
        value = getattr(value, name)
    return re.sub(r"e-0(\d)", r"e-\1", str(value))


def reached(top: type) -> list[type]:
    """A settings class and all below it."""
    found, waiting = list[type](), [top]
    while waiting:
        cls = waiting.pop(0)
        if cls not in found:
            found.append(cls)
            waiting += [c for shape in fields_of(cls).values() for c in (shape.item or shape).classes]
    return found


# Lists that are written by hand.


def test_the_group_methods_of_the_table_are_the_recipes_that_there_are() -> None:
    """Rows such as `| [`dapo`](dapo.md) | the same, ... |` under the heading `recipe`."""
    text = (ROOT / "docs/methods/group.md").read_text("utf-8")
    table = text[text.index("| recipe |") :].split("\n\n")[0]
    named = re.findall(r"^\| \[`([^`]+)`\]", table, re.MULTILINE)
    sampled = {name for name in recipes() if resolve(name).stages[0].kind == "rl" and len(resolve(name).stages) == 1}
    assert set(named) == sampled - {"r1-zero"}, "r1-zero has a page with r1"


def test_the_layers_on_the_page_are_those_of_the_test() -> None:
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    told = next(
        text for text in re.findall(r"(?:^    [^\n]+\n)+", page, re.MULTILINE) if text.strip().startswith("lazy")
    )
    spec = importlib.util.spec_from_file_location("strop_layers", ROOT / "tests/test_layers.py")
    assert spec is not None and spec.loader is not None
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    assert tuple(told.replace("<", " ").split()) == layers.ORDER
