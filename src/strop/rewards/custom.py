"""A user's own reward, by the place of its function.

    rewards: [{name: custom, function: my_rewards.py:polite, label: polite}]

The function is called as `f(completion: str, row: dict) -> float | bool | None`, or, marked with
`strop.rewards.on_groups`, as `f(groups) -> [[...], ...]`. Loading runs the user's file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from strop.rewards.protocol import OnGroups, lift, verdicts_of
from strop.types import Group, Reward, Verdict
from strop.userfunction import load_place


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """What the user's function returns: a number, a bool, or `None` for unscorable.

    An exception in it makes that completion unscorable, unless it never worked (`protocol.lift`).

    Attributes:
        function: `package.module:function`, or `file.py:function` relative to the working folder.
    """

    function: str
    name: Literal["custom"] = "custom"
    weight: float = 1.0
    label: str | None = None

    def __post_init__(self) -> None:
        module, _, function = self.function.rpartition(":")
        if not module or not function.isidentifier():
            raise ValueError(
                f"custom.function: {self.function!r}; write package.module:function or my_rewards.py:function"
            )

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        label = self.label or self.name
        return verdicts_of(_lifted(self.function, label), groups, label)


def load_function(place: str) -> Callable[..., Any]:
    """The user's function at `module:function` or `file.py:function`.

    Raises: ValueError naming the missing file, module or function (and the nearest), the user's
        line at fault where the file fails to load, or a signature that does not fit.
    """
    function = load_place(place, "custom.function")
    _check_signature(function, place)
    return function


@lru_cache(maxsize=64)
def _lifted(place: str, label: str) -> Reward:
    return lift(load_function(place), label)


def _check_signature(function: Callable[..., Any], place: str) -> None:
    arguments, form = ((None,), "f(groups)") if isinstance(function, OnGroups) else ((None, None), "f(completion, row)")
    target = function.function if isinstance(function, OnGroups) else function
    try:
        inspect.signature(target).bind(*arguments)
    except TypeError as error:
        raise ValueError(f"custom.function: {place} cannot be called as {form}: {error}") from None
    except ValueError:
        return  # a builtin that does not tell its signature
