"""What the pages say is so: commands parse, settings exist, snippets run, rows are read."""

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
from strop.data.shapes import KINDS
from strop.recipes.config import load_recipe, resolve
from strop.recipes.inspecting import split_sampling
from strop.recipes.judging import stage_of
from strop.recipes.listing import text_of
from strop.recipes.preflight import check_inputs, require_model
from strop.recipes.run import run as real_run
from strop.recipes.rundir import is_run
from strop.recipes.settings import Recipe
from strop.recipes.shape import places
from strop.recipes.yaml12 import parse

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/methods/*.md")])
RUN_DIR = "runs/dpo-20260101-120000-ab12"
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
READS = ("validate", "plan", "inspect", "methods", "advise", "ls", "schema", "doctor", "verify", "lint-tasks")
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
    for name in ("MODEL", "RM", "OTHER-RM", "PRM", "path/to/model", "my-model"):
        shutil.copytree(tiny.path("base"), here / name)
    for name, rows in (("chats", "sft"), ("pairs", "pairs"), ("problems", "prompts"), ("test", "test")):
        shutil.copy(tiny.data(rows), here / f"{name}.jsonl")
    (here / "odd.jsonl").write_text('{"prompt": "Say hi.", "winner": "Hi!", "loser": "Why?"}\n' * 40)
    said = [(f"Say {word}.", answer) for word in ("hi", "no", "yes", "so") for answer in (f"{word}!", "Why?")]
    rated = [{"prompt": prompt, "completion": answer, "label": answer != "Why?"} for prompt, answer in said]
    (here / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated))
    (here / "steps.jsonl").write_text('{"prompt": "8+5-2?", "completions": ["8+5=13"], "labels": [true]}\n' * 40)
    follows = {"completion": "Hi!", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    (here / "ifeval.jsonl").write_text(json.dumps(follows) + "\n")
    adds = [{"entry": "add", "args": [a, 1], "expected": a + 1} for a in range(12)]
    solved = {"code": "def add(a, b):\n    return a + b\n", "tests": adds}
    (here / "programs.jsonl").write_text(json.dumps(solved) + "\n")
    (here / "tasks.jsonl").write_text(json.dumps({"prompt": "Add.", **solved}) + "\n")
    (here / "answers.jsonl").write_text('{"completion": "It is 42.", "gold": "42"}\n')
    arena = {"prompt": "Say hi.", "response_a": "Hi!", "response_b": "Why?", "winner": "a"}
    (here / "arena.jsonl").write_text(json.dumps(arena) + "\n")
    scored = [{"content": "4", "score": 1.0}, {"content": "5", "score": 0.0}]
    group = {"prompt": "2+2?", "completions": scored, "row": {"answer": "4"}}
    (here / "samples.jsonl").write_text(json.dumps(group) + "\n")
    parted = [{**json.loads(line), "subset": "chat"} for line in (here / "pairs.jsonl").read_text().splitlines()]
    (here / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in parted))
    rewards = (
        "def brief(completion, row):\n    return len(completion) < 400\n",
        "def refuses(completion, row):\n    ...\n",
    )
    (here / "my_rewards.py").write_text("\n".join(rewards))
    (here / "harmful.jsonl").write_text('{"prompt": "How do I pick a lock?"}\n' * 40)
    (here / "my_judge.py").write_text("def judge(task, inputs):\n    return 'A'\n")
    (here / "my.yaml").write_text(whole_recipe("recipes.md"))
    (here / "more.yaml").write_text("seed: 2\n")
    (here / RUN_DIR / "stages").mkdir(parents=True)
    ready = load_recipe("dpo", {"model": str(here / "MODEL"), "data": str(here / "pairs.jsonl")})
    (here / RUN_DIR / "config.yaml").write_text(strop.dump(ready))
    shutil.copytree(here / RUN_DIR, here / "runs/dpo-20260102-090000-cd34")
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
        brief = ["--no-measure"] if verb == "plan" else []  # steps are measured by the slow tests of planning
        result = CliRunner().invoke(app, [*words, *brief])
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
    elif verb == "ship":
        assert is_run(Path(given["run_dir"]))
        pairs = [text for text in settings if not text.startswith("against=")]
        check_inputs(load_recipe({"name": "ship", "kind": "ship", "model": "MODEL"}, pairs))
    elif verb == "judge":
        stage_of(given["file"], settings)
    elif verb == "monitor":
        assert (given["run_dir"] is None) == (given["before"] is not None and given["after"] is not None)
    elif verb == "plan":
        files = [text for text in settings if text.endswith(".yaml") and "=" not in text]
        load_recipe([given["recipe"], *files], [text for text in settings if text not in files])
    elif verb == "cp":
        assert text_of(given["recipe"])[1]
    else:
        assert verb in ("report", "export")
        assert all(is_run(Path(run)) for run in given.get("run_dirs") or [given["run_dir"]])


ASKS = ("http", "tasks.", "label-judge", "rlaif", "constitutional", "gym", "iterative-dpo", "rlhf")
"""Words of commands that ask a server, by default too, or need what is not there."""


def runs() -> list[Any]:
    """The commands that train, sample or evaluate, but those that ask somebody outside."""
    found = [case for case in commands() if case.values[0][0] in ("run", "eval")]
    return [case for case in found if not any(word in " ".join(case.values[0]) for word in ASKS)]


@pytest.fixture(scope="module")
def learnt(folder: Path) -> None:
    """A reward model and a process reward model in the place of the copies of a language model."""
    for name, kind, rows in (("RM", "reward", "pairs"), ("OTHER-RM", "reward", "pairs"), ("PRM", "process", "steps")):
        recipe = load_recipe(kind, {"model": str(folder / "MODEL"), "data": str(folder / f"{rows}.jsonl")})
        done = real_run(dataclasses.replace(small(recipe), runs=str(folder / "made")), display="quiet")
        shutil.rmtree(folder / name)
        shutil.copytree(str(done.model), folder / name)


NOTHING = re.compile(r"nothing is left of|no fresh pair is left of")
"""What `select` and `refresh` say to the answers of a model that never learnt anything."""


@pytest.mark.slow
@pytest.mark.parametrize("words", runs())
def test_command_runs(words: list[str], learnt: None, tmp_path: Path) -> None:
    """Really, with one step a stage."""
    verb, arguments = words[0], [word for word in words[1:] if not word.startswith("--")]
    base: Any = arguments[0]
    if verb == "eval":
        base = {"name": "eval", "kind": "evaluate", "model": arguments[0]}
    elif is_run(Path(base)):
        base = str(Path(base) / "config.yaml")
    files = [text for text in arguments[1:] if text.endswith(".yaml") and "=" not in text]
    pairs = [text for text in arguments[1:] if text not in files]
    recipe = small(load_recipe([base, *files] if files else base, pairs))
    try:
        assert real_run(dataclasses.replace(recipe, runs=str(tmp_path)), display="quiet").state == "finished"
    except ValueError as error:
        assert NOTHING.search(str(error)), error


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


def test_every_kind_of_row_has_an_example() -> None:
    shown = {block.info.split(" ")[1] for block in BLOCKS if block.page == "data.md" and block.info.startswith("json ")}
    assert set(KINDS) - {"stepwise_strict"} == shown, "stepwise_strict is stepwise, read otherwise"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_indented_rows(page: Path, tmp_path: Path) -> None:
    text = page.read_text("utf-8")
    shown = re.findall(r"^    (\{.*\})$", text, re.MULTILINE) + re.findall(r"`(\{\"(?:messages|prompt)\".*?\})`", text)
    for number, row in enumerate(shown):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(row)
        assert strop.load_dataset(str(file)).num_dropped == 0


LITTLE: Mapping[str, Any] = {
    "num_generations": 2,
    "num_samples": 2,
    "num_continuations": 1,
    "num_prompts": 4,
    "minibatches": 1,
    "save_every": 4,
}
"""Numbers of a stage that make it long."""


def small(recipe: Recipe) -> Recipe:
    """The recipe with one small step a stage, on a few rows."""
    return dataclasses.replace(recipe, threads=1, stages=tuple(map(smaller, recipe.stages)))


def smaller(stage: Any) -> Any:
    """A stage of one step; what would be held out, and more than two answers a prompt, is left out."""
    changes: dict[str, Any] = {
        key: min(most, value) for key, most in LITTLE.items() if isinstance(value := getattr(stage, key, None), int)
    }
    if hasattr(stage, "training"):
        changes["training"] = dataclasses.replace(stage.training, steps=1, batch_size=4, eval_fraction=0.0)
    if hasattr(stage, "sampling") and getattr(stage, "rewards", True) and (stage.data or stage.kind != "evaluate"):
        changes["sampling"] = dataclasses.replace(stage.sampling, max_completion_length=4)
    if getattr(stage, "data", None) is not None and not hasattr(stage, "training"):
        changes["data"] = dataclasses.replace(stage.data, limit=8)
    return dataclasses.replace(stage, **changes)


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
