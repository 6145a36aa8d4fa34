"""The layers hold: one total order, imports go left only, and the heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"

ORDER = (
    "lazy",
    "userfunction",
    "types",
    "dist",
    "batch",
    "credit",
    "token_credit",
    "objectives",
    # How groups become batches stands left of the model, whose probe packs a tiny batch;
    # how files become groups, with tokenizers and templates, stands right of it.
    "data.encoded",
    "data.pack",
    "data.source",
    "model",
    "data",
    # What samples from a model's modules stands left of the judges, which are models too.
    "rollout.transcript",
    "rollout.draw",
    "rollout.cache",
    "rollout.attention",
    "rollout.lean",
    "rollout.padded",
    "rollout.sampler",
    "judges",
    "rewards",
    "world",
    "rollout",
    "train",
    "evaluate",
    "monitor",
    "report",
    "recipes",
    "cli",
)
"""Each entry is a module or a package of `strop`; the longest that fits a module is its layer."""

ONLY_IN = {
    "transformers": ("model", "data.chat"),
    "peft": ("model",),
    "torch.distributed": ("dist",),
    "pydantic": ("recipes.config",),
    "httpx2": ("judges.connection", "judges.transport"),
    "tenacity": ("judges.transport",),
    "reasoning_gym": ("rewards.gym.worker",),
    "lm_eval": ("evaluate.harness",),
}
"""Where a library may be imported, lazily or not; a package stands for its modules."""

TORCH_FREE = (
    "strop",
    "strop.cli",
    "strop.types",
    "strop.dist",
    "strop.batch",
    "strop.credit",
    "strop.token_credit",
    "strop.objectives",
    "strop.data.formats",
    "strop.data.chat",
    "strop.data.pack",
    "strop.data.source",
    "strop.judges",
    "strop.rewards",
    "strop.world",
    "strop.model.adapter",
    "strop.train.optim",
    "strop.train.control",
    "strop.train.metrics",
    "strop.evaluate.statistics",
    "strop.monitor.judge",
    "strop.report",
    "strop.recipes.config",
    "strop.recipes.run",
    "strop.recipes.validate",
)
"""What `--help`, `ls`, `validate` and `report` import; none of it may bring torch or transformers."""


def modules() -> dict[str, Path]:
    """Every module of the package by its name below `strop` ("data.pack"; a package by its own name)."""
    names = {}
    for path in sorted(SRC.glob("strop/**/*.py")):
        parts = path.relative_to(SRC / "strop").with_suffix("").parts
        names[".".join(p for p in parts if p != "__init__")] = path
    return names


MODULES = modules()


def imports(source: str) -> set[str]:
    """The dotted names a module imports, at any depth and through `lazy_module`; not those for type checkers only."""
    tree = ast.parse(source)
    unseen: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            unseen.update(part for statement in node.body for part in ast.walk(statement))
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if called in ("lazy_module", "import_module") and node.args and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return found


def own(name: str) -> str | None:
    """The module of ours that an imported name comes from ("strop.data.pack.pack" -> "data.pack")."""
    if not name.startswith("strop."):
        return None
    parts = name.split(".")[1:]
    fitting = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return next((module for module in reversed(fitting) if module in MODULES), None)


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer(module: str) -> int:
    """Where a module stands in the order; raises ValueError for one that has no place."""
    places = [entry for entry in ORDER if inside(module, entry)]
    if not places:
        raise ValueError(f"strop.{module} has no place in ORDER of {Path(__file__).name}; give it one")
    return ORDER.index(max(places, key=len))


GRAPH = {name: imports(path.read_text()) for name, path in MODULES.items()}


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_go_left_only(module: str) -> None:
    for target in {own(name) for name in GRAPH[module]} - {None, ""}:
        assert layer(target) <= layer(module), f"strop.{module} imports strop.{target}, which stands to its right"


def test_no_module_imports_itself_through_others() -> None:
    """Within a layer too, modules have an order."""
    edges = {m: {own(n) for n in names} - {None, "", m} for m, names in GRAPH.items() if m}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for target in sorted(edges[module]):
                # A package stands for its __init__, which its own modules may precede.
                visit(target, (*above, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def test_the_order_names_only_what_is_there_and_each_once() -> None:
    assert len(set(ORDER)) == len(ORDER)
    assert [entry for entry in ORDER if entry not in MODULES and not (SRC / "strop" / entry).is_dir()] == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_where_it_belongs(library: str) -> None:
    users = {m for m, names in GRAPH.items() if any(n == library or n.startswith(library + ".") for n in names)}
    strays = {m for m in users if not any(inside(m, place) for place in ONLY_IN[library])}
    assert strays == set(), f"{library} may be imported only in {ONLY_IN[library]}"
    assert users, f"nothing imports {library}"


def test_a_lazy_import_is_seen() -> None:
    assert imports("torch = lazy_module('torch.distributed')") == {"torch.distributed"}
    assert imports("if TYPE_CHECKING:\n    import torch\nelse:\n    import json") == {"json"}
    assert imports("def f():\n    from strop.data.pack import pack") == {"strop.data.pack.pack"}
    assert own("strop.data.pack.pack") == "data.pack" and layer("data.pack") < layer("model") < layer("data.chat")
    with pytest.raises(ValueError, match="strop.nowhere has no place in ORDER"):
        layer("nowhere")


def test_what_the_command_line_imports_brings_no_torch() -> None:
    """One fresh process, one import after another, so the first that brings torch is named."""
    code = (
        "import importlib, sys\n"
        f"for name in {TORCH_FREE!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers', 'tokenizers', 'datasets'} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)\n"
        "known = {'strop.model', 'strop.model.adapter'}\n"
        "assert not [m for m in sys.modules if m.startswith('strop.model') and m not in known]\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
