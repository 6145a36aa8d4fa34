"""One run in this process, stopped as `job` says; started by the `in_child` fixture, never imported.

job: ref: recipe or run directory. signal: sent to this very process. at: when it is sent:
    ["step", stage, k]   after step k of the stage was recorded
    ["event", kind, stage]   when an event of that kind was recorded of the stage, as ["event", "finish", "sft"]
    ["phase", name, k]   when that phase begins for the k-th time
    ["inside", stage, k] when the k-th phase of that stage begins
    ["call", name, k]    before the k-th call of `os.<name>` that touches a checkpoint
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from strop.recipes.context import Context
from strop.recipes.display import make
from strop.recipes.journal import Journal
from strop.recipes.run import start
from strop.train.metrics import Kind

torch.set_num_threads(1)
at = job.get("at")  # type: ignore[name-defined]  # noqa: F821
count = 0


def hit(kind: str, *what: object) -> None:
    global count
    if at is None or [kind, *what] != at[: 1 + len(what)]:
        return
    if len(what) == 2 or count == at[2]:
        os.kill(os.getpid(), job["signal"])  # type: ignore[name-defined]  # noqa: F821
    count += 1


def step(self: Context, number: int, steps: int, metrics: dict[str, float]) -> None:
    recorded(self, number, steps, metrics)
    hit("step", self.name, number)


def phase(self: Context, name: str) -> None:
    hit("phase", name)
    hit("inside", self.name)
    shown(self, name)


def event(self: Journal, kind: Kind, text: str, *, stage: str | None, step: int | None = None, **extra: Any) -> None:
    told(self, kind, text, stage=stage, step=step, **extra)
    hit("event", kind, stage)


recorded, shown, told = Context.step, Context.phase, Journal.event
Context.step, Context.phase, Journal.event = step, phase, event  # type: ignore[method-assign]
if at is not None and at[0] == "call":
    name, original = at[1], getattr(os, at[1])

    def called(*arguments: object, **named: object) -> object:
        where = os.readlink(f"/proc/self/fd/{arguments[0]}") if isinstance(arguments[0], int) else str(arguments[0])
        if "checkpoints" in Path(where).parts:
            hit("call", name)
        return original(*arguments, **named)

    setattr(os, name, called)

result = start(job["ref"], [], display=make("quiet"), command="strop run test")  # type: ignore[name-defined]  # noqa: F821
if result.error is not None:
    print(result.error, file=sys.stderr)
os._exit(result.exit_code)  # a fork: the parent's exit handlers are not ours
