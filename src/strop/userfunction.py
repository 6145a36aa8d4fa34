"""A user's function by its place: `package.module:function` or `file.py:function`. Loading runs the user's file."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def check_place(place: str, setting: str) -> None:
    """Raises ValueError, under the setting's name, for a text that names no function."""
    module, _, function = place.rpartition(":")
    if not module or not function.isidentifier():
        raise ValueError(f"{setting}: {place!r}; write package.module:function or my_file.py:function")


def load_place(place: str, setting: str) -> Callable[..., Any]:
    """The function at `module:function` or `file.py:function`, relative to the working folder.

    Args: setting: what an error calls the place.
    Raises: ValueError naming the missing file, module or function (and the nearest), or the user's
        line at fault where the file fails to load.
    """
    module_name, _, name = place.rpartition(":")
    module = _load(module_name, setting)
    if name not in vars(module):
        near = difflib.get_close_matches(name, vars(module), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{setting}: {module_name} has no {name!r}{hint}")
    function: Callable[..., Any] = vars(module)[name]
    if not callable(function):
        raise ValueError(f"{setting}: {place} is a {type(function).__name__}, not a function")
    return function


def _load(module_name: str, setting: str) -> ModuleType:
    try:
        if not module_name.endswith(".py"):
            return importlib.import_module(module_name)
        return _load_file(Path(module_name))
    except Exception as error:  # the user's module may raise anything
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f" at {frame.filename}:{frame.lineno}: {frame.line}" if frame.filename.endswith(".py") else ""
        raise ValueError(
            f"{setting}: {module_name} cannot be loaded: {type(error).__name__}: {error}{place}"
        ) from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path.resolve()}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
