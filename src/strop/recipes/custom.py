"""A user's own function by the name it can be imported by: `module:name` or `file.py:name`.

A recipe is text, so that a run can be repeated from its directory; a function stands in it by name.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def importable(function: Callable[..., Any]) -> str:
    """The name under which a function can be imported again.

    Raises: ValueError for lambdas, functions inside functions, and those typed at a prompt.
    """
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None)
    if name is None or module is None:
        raise ValueError(f"{function!r} has no importable name; give a plain function of a module")
    if "<" in name or "." in name:
        what = "a lambda" if "<lambda>" in name else "defined inside another function or class"
        raise ValueError(f"{name} is {what}; a recipe names functions, so define it with `def` at a module's top level")
    if getattr(sys.modules.get(module), name, None) is not function:
        raise ValueError(f"{module}:{name} is another object than the one given; give a plain function")
    return f"{_file(function, name)}:{name}" if module == "__main__" else f"{module}:{name}"


def _file(function: Callable[..., Any], name: str) -> str:
    try:
        path = inspect.getsourcefile(function)
    except TypeError:
        path = None
    if path is None or not Path(path).is_file():
        raise ValueError(f"{name} was typed at a prompt; put it in a file, as rewards.py, and name rewards.py:{name}")
    return str(Path(path).resolve())
