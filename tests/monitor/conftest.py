"""The made-up runs, for the tests of this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def streams() -> ModuleType:
    """The module `streams`: runs to judge."""
    path = Path(__file__).with_name("streams.py")
    spec = importlib.util.spec_from_file_location("monitor_streams", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
