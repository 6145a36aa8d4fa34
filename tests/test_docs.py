"""What the pages say is so: commands parse, settings exist, snippets run, rows are read, links lead somewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import strop
from strop.cli import app
from strop.recipes.config import load_recipe, resolve
from strop.recipes.inspecting import split_sampling
from strop.recipes.judging import stage_of
from strop.recipes.listing import recipes, text_of
from strop.recipes.preflight import check_inputs, require_model
from strop.recipes.run import run as real_run
from strop.recipes.rundir import is_run
from strop.recipes.settings import Recipe, RLStage
from strop.recipes.shape import places
from strop.recipes.yaml12 import parse

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/methods/*.md")])
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("benchmarks/*.md")]
RUN_DIR = "runs/dpo-20260101-120000-ab12"
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
READS = ("validate", "inspect", "methods", "advise", "ls", "schema", "doctor", "verify", "lint-tasks")
"""Verbs that only look; they really run."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the words behind its fence, and what stands in it."""

    page: str
    line: int
    info: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for match in found:
        yield Block(page.name, match.string[: match.start()].count("\n") + 1, match[1].strip(), match[2])


BLOCKS = [block for page in PAGES for block in blocks(page)]


def of(info: str) -> list[Any]:
    return [pytest.param(b, id=b.place) for b in BLOCKS if b.info.split(" ")[0] == info]


def inline(page: Path) -> list[str]:
    """What stands between single backticks outside of fenced blocks."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


# Commands.


def commands() -> list[Any]:
    """Whole command lines, from blocks."""
    found = []
    for block in BLOCKS:
        for number, line in enumerate(block.text.splitlines(), block.line + 1):
            if not block.info and line.startswith("strop "):
                found.append(pytest.param(shlex.split(line, comments=True)[1:], id=f"{block.page}:{number}"))
    return found


def mentions() -> list[Any]:
    """Commands in running text, which may leave out what the sentence is not about."""
    found = []
    for page in PAGES:
        for code in inline(page):
            words = shlex.split(code.removesuffix(" ...")) if code.startswith("strop ") else []
            if len(words) > 1 and not words[1].startswith("-"):
                found.append(pytest.param(words[1:], id=f"{page.name}: {code}"))
    return found


@pytest.fixture(scope="module")
def folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder that has every file the pages name."""
    here = tmp_path_factory.mktemp("docs")
    for name in ("MODEL", "path/to/model", "my-model"):
        shutil.copytree(tiny.path("base"), here / name)
    for name, rows in (("chats", "sft"), ("pairs", "pairs"), ("problems", "prompts"), ("test", "test")):
        shutil.copy(tiny.data(rows), here / f"{name}.jsonl")
    (here / "odd.jsonl").write_text('{"prompt": "Say hi.", "winner": "Hi!", "loser": "Why?"}\n' * 40)
    rated = [{"prompt": "Say hi.", "completion": said, "label": said == "Hi!"} for said in ("Hi!", "Why?")]
    (here / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated))
    (here / "steps.jsonl").write_text('{"prompt": "8+5-2?", "completions": ["8+5=13"], "labels": [true]}\n' * 40)
    follows = {"completion": "Hi!", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    (here / "ifeval.jsonl").write_text(json.dumps(follows) + "\n")
    adds = [{"entry": "add", "args": [a, 1], "expected": a + 1} for a in range(12)]
    solved = {"code": "def add(a, b):\n    return a + b\n", "tests": adds}
    (here / "programs.jsonl").write_text(json.dumps(solved) + "\n")
    (here / "tasks.jsonl").write_text(json.dumps({"prompt": "Add.", **solved}) + "\n")
    (here / "answers.jsonl").write_text('{"completion": "It is 42.", "gold": "42"}\n')
    (here / "my_rewards.py").write_text("def brief(completion, row):\n    return len(completion) < 400\n")
    (here / "my_judge.py").write_text("def judge(task, inputs):\n    return 'A'\n")
    (here / "my.yaml").write_text(whole_recipe("recipes.md"))
    (here / "more.yaml").write_text("seed: 2\n")
    (here / RUN_DIR / "stages").mkdir(parents=True)
    ready = load_recipe("dpo", {"model": str(here / "MODEL"), "data": str(here / "pairs.jsonl")})
    (here / RUN_DIR / "config.yaml").write_text(strop.dump(ready))
    return here


@pytest.fixture(autouse=True)
def at_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def whole_recipe(page: str) -> str:
    return next(b.text for b in BLOCKS if b.page == page and b.info == "yaml" and "stages:" in b.text)


@pytest.mark.parametrize("words", commands())
def test_command(words: list[str]) -> None:
    verb, arguments = words[0], words[1:]
    assert verb in VERBS, f"no verb {verb}"
    given = VERBS[verb].make_context(verb, list(arguments)).params  # refuses options that are not there
    settings: Sequence[str] = given.get("settings") or []
    if verb in READS:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    elif verb == "run" and is_run(Path(given["recipe"])):
        check_inputs(load_recipe(given["recipe"]))
    elif verb in ("run", "quickstart"):
        files = [text for text in settings if text.endswith(".yaml") and "=" not in text]
        pairs = [text for text in settings if text not in files]
        check_inputs(load_recipe([given.get("recipe", verb), *files], pairs))
    elif verb == "eval":
        check_inputs(load_recipe({"name": "eval", "kind": "evaluate", "model": given["model"]}, settings))
    elif verb in ("sample", "chat"):
        require_model(given["model"])
        _, rest = split_sampling(given["prompts"] if verb == "sample" else settings)
        assert bool(rest) == (verb == "sample")
    elif verb == "judge":
        stage_of(given["file"], settings)
    elif verb == "monitor":
        assert (given["run_dir"] is None) == (given["before"] is not None and given["after"] is not None)
    elif verb == "cp":
        assert text_of(given["recipe"])[1]
    else:
        assert verb in ("report", "export") and is_run(Path(given["run_dir"]))


@pytest.mark.parametrize("words", mentions())
def test_mention(words: list[str]) -> None:
    """Their verb exists, and so does every setting they name of a built-in recipe."""
    verb, pairs = words[0], [word for word in words[1:] if "=" in word]
    assert verb in VERBS, f"no verb {verb}"
    if pairs and verb in ("run", "validate"):
        resolve(words[1], pairs)
    if pairs and verb == "eval":
        resolve({"name": "eval", "kind": "evaluate"}, pairs)


def test_settings_named_in_the_text_exist() -> None:
    known = {".".join(path[2:]) for path in places(Recipe) if path[:2] == ("stages", "0")}
    modules = {".".join(p.relative_to(ROOT / "src/strop").with_suffix("").parts) for p in ROOT.glob("src/strop/*/*.py")}
    begins = re.compile(r"((?:training|objective|sampling|optimizer|schedule|advantage|data)\.\w+)(?![\w.:])")
    for page in PAGES:
        for word in (word for code in inline(page) for word in code.split()):
            match = begins.match(word)
            assert match is None or match[1] in known | modules, f"{page.name}: {word}"


def test_the_group_methods_of_the_table_are_the_recipes_that_there_are() -> None:
    """Rows such as `| `dapo` | the same, ... |` under the heading `recipe`."""
    text = (ROOT / "docs/methods/group.md").read_text("utf-8")
    table = text[text.index("| recipe |") :].split("\n\n")[0]
    named = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    sampled = {name for name in recipes() if resolve(name).stages[0].kind == "rl" and len(resolve(name).stages) == 1}
    assert set(named) == sampled - {"grpo-process"}, "grpo-process stands on the page of process rewards"


# Snippets.


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml(block: Block) -> None:
    value = parse(block.text).value
    assert isinstance(value, dict)
    if "stages" in value or "kind" in value:
        load_recipe(value)
        return
    (key,) = value
    kind = {"data": "preference", "rewards": "rl"}[key]
    load_recipe({"name": "x", "kind": kind, "model": "MODEL", "data": "problems.jsonl", **value})


@pytest.mark.parametrize("block", of("json"))
def test_rows(block: Block, tmp_path: Path) -> None:
    """Rows are read as the kind that stands behind the fence, none dropped."""
    file = tmp_path / "rows.jsonl"
    file.write_text(block.text)
    found = strop.load_dataset(str(file))
    assert (found.kind, dict(found.dropped)) == (block.info.split(" ")[1], {})
    assert found.num_rows == len(block.text.splitlines()) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_indented_rows(page: Path, tmp_path: Path) -> None:
    for number, row in enumerate(re.findall(r"^    (\{.*\})$", page.read_text("utf-8"), re.MULTILINE)):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(row)
        assert strop.load_dataset(str(file)).num_dropped == 0


def small(recipe: Recipe) -> Recipe:
    """The recipe with one small step a stage."""
    stages = []
    for stage in recipe.stages:
        training = dataclasses.replace(stage.training, steps=1, batch_size=4, eval_fraction=0.0)  # type: ignore[union-attr]
        stage = dataclasses.replace(stage, training=training)  # type: ignore[call-arg]
        if isinstance(stage, RLStage):
            sampling = dataclasses.replace(stage.sampling, max_completion_length=4)
            stage = dataclasses.replace(stage, num_generations=2, sampling=sampling)
        stages.append(stage)
    return dataclasses.replace(recipe, threads=1, stages=tuple(stages))


def small_run(ref: Any, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Any:
    recipe = ref if isinstance(ref, Recipe) else load_recipe(ref, overrides)
    return real_run(small(recipe), display="quiet")


@pytest.mark.parametrize("block", of("python"))
def test_python(block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each block is a module of its own; whatever it trains takes one step."""
    monkeypatch.setattr(strop, "run", small_run, raising=False)
    name = re.sub(r"\W", "_", f"snippet_{block.place}")
    file = tmp_path / f"{name}.py"
    file.write_text(block.text)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)


def test_every_block_says_what_it_is() -> None:
    assert {block.info.split(" ")[0] for block in BLOCKS} <= {"", "text", "python", "yaml", "json"}


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


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    missing = [page.name for page in PAGES if page.parent.name == "docs" and f"docs/{page.name}" not in text]
    assert missing == []


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
