"""Heavy libraries, imported when they are first used.

`strop --help`, `ls`, `validate` and `report` answer in a fraction of a second because the
settings dataclasses they read stand in files whose torch is imported only when a formula runs:

    if TYPE_CHECKING:
        import torch
    else:
        torch = lazy_module("torch")
"""

from __future__ import annotations

import importlib
import types
from typing import Any


class LazyModule(types.ModuleType):
    """A stand-in that imports the real module at the first attribute taken from it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # inspection (dataclasses, pytest) must not import anything
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


def lazy_module(name: str) -> Any:
    """The module of that name, imported at its first use."""
    return LazyModule(name)
