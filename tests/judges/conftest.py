"""The misbehaving server as a module, and settings that make its tests take seconds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def web() -> ModuleType:
    """`server.py` beside this file."""
    spec = importlib.util.spec_from_file_location("strop_judge_server", Path(__file__).with_name("server.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def endpoint(tmp_path: Path) -> Any:
    """Makes an `Endpoint` for a server's url: quick waits, a cache of the test's own."""
    from strop.judges import Endpoint

    def make(url: str, **settings: Any) -> Endpoint:
        quick = {"backoff_s": 0.01, "max_wait_s": 0.3, "timeout_s": 5.0, "retries": 3, "cache": str(tmp_path / "cache")}
        return Endpoint(url=url, model="judge", **{**quick, **settings})

    return make
