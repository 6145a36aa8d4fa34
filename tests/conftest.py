"""One thread for every test, nothing fetched from anywhere, and the small helpers that many tests share."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is no folder fails at once

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """The module of helpers beside this file; tests take it as an argument, so no test imports another."""
    return _beside("toys")


@pytest.fixture(scope="session")
def small_runs() -> ModuleType:
    """Helpers for tests of whole runs."""
    return _beside("small_runs")


@pytest.fixture(scope="session")
def tiny(small_runs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`small_runs.Tiny`: an untrained model, a few rows of each kind, and stages over them."""
    tiny = small_runs.Tiny(tmp_path_factory.mktemp("tiny"))
    tiny.write()
    return tiny


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"strop_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    return module
