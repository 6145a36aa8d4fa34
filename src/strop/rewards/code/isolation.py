"""The sandbox that programs run in: the best tier that holds here, or the one asked for; found once a process."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass

from strop.rewards.code.battery import Report, examine
from strop.rewards.code.grade import Local, Sandbox
from strop.rewards.code.runner import Remote
from strop.rewards.code.worker import Tier

BANNER = """
************************************************************************************
*  UNSAFE: programs written by a model run on this machine WITHOUT isolation.      *
*  They can read and change your files, reach the network, and end your processes. *
*  Every reward record says tier "D".                                              *
************************************************************************************
"""

_lock = threading.Lock()
_reports: dict[tuple[str, str | None], Report] = {}
_warned: list[bool] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which isolation is asked for: a tier or "auto", the runner of tier C, and whether none will do."""

    tier: str = "auto"
    runner: str | None = None
    unsafe: bool = False


def report(tier: Tier, runner: str | None = None) -> Report:
    """What the battery says of a tier on this machine; each is attacked once a process."""
    with _lock:
        key = (tier, runner)
        if key not in _reports:
            _reports[key] = examine(Remote(runner) if runner is not None else Local(tier))
        return _reports[key]


def sandbox_of(wanted: Wanted) -> Sandbox:
    """The sandbox to run programs in.

    Raises: ValueError saying what failed in each tier, where none holds and `unsafe` is not set.
    """
    tried = []
    for tier in _candidates(wanted):
        found = report(tier, wanted.runner if tier == "C" else None)
        if found.holds:
            return Remote(wanted.runner) if tier == "C" and wanted.runner else Local(tier)
        tried.append(found)
    if wanted.unsafe:
        _warn()
        return Local("D")
    raise ValueError(_refusal(tried))


def summary() -> str:
    """The best tier that holds on this machine, in words; where none does, why."""
    tried = []
    for tier in _candidates(Wanted()):
        found = report(tier)
        if found.holds:
            return f"tier {tier}, which withstood all attacks"
        tried.append(f"{tier}: {found.broken[0]}")
    return f"none ({'; '.join(tried) or 'tiers A and B need Linux'}); the code reward needs a runner here"


def _candidates(wanted: Wanted) -> tuple[Tier, ...]:
    if wanted.tier == "A":
        return ("A",)
    if wanted.tier == "B":
        return ("B",)
    if wanted.runner is not None:
        return ("C",)
    return ("A", "B") if sys.platform == "linux" else ()


def _refusal(tried: list[Report]) -> str:
    """Why nothing is run, tier by tier, and what to do."""
    lines = ["no isolation holds on this machine, so no program is run (tier D):"]
    for found in tried:
        more = f" (and {len(found.broken) - 3} more)" if len(found.broken) > 3 else ""
        lines.append(f"  tier {found.tier}: {'; '.join(found.broken[:3])}{more}")
    if not tried:
        lines.append(f"  tiers A and B need Linux; this is {sys.platform}")
    lines.append(
        "give a container as runner='docker run --rm -i --network none --read-only --tmpfs /tmp --pids-limit 128"
        " python:3.12-slim python -'; only unsafe_exec=true runs programs without isolation"
    )
    return "\n".join(lines)


def _warn() -> None:
    if not _warned:
        _warned.append(True)
        print(BANNER, file=sys.stderr, flush=True)
