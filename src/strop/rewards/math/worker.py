"""The process that works expressions out, one request a line, until its parent kills it or goes away.

Requests and replies are JSON lines on the pipes that were its standard input and output; anything
a library prints goes nowhere. The kernel bounds its memory and, for each request, its processor
time; it dies with its parent.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import signal
import sys
from typing import Any

MAX_BYTES = 2 * 2**30
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer requests until the input ends."""
    parent, memory = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    logging.disable(logging.CRITICAL)
    _say(replies, _prepared())
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        _bound_time(request["seconds"])
        _say(replies, _answered(request))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; the parent may already have."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)


def _bound_time(seconds: int) -> None:
    """End this process once the request has used so much processor time, whatever runs then."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _say(replies: Any, value: dict[str, Any]) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()


def _prepared() -> dict[str, Any]:
    """Import what is needed, so that no request pays for it; what went wrong, if anything."""
    try:
        import math_verify  # noqa: F401

        from strop.rewards.math import numeric, peer

        peer.compare("x+1", "1+x")
        return {"ready": numeric.NUM_POINTS > 0}
    except Exception as error:
        return {"fault": f"{type(error).__name__}: {error}"[:300]}


def _answered(request: dict[str, Any]) -> dict[str, Any]:
    from strop.rewards.math.decide import BadGold
    from strop.rewards.math.peer import work_out, work_out_alone

    try:
        if request["answer"] is None:
            decision = work_out_alone(request["gold"])
        else:
            decision = work_out(request["gold"], request["answer"])
    except BadGold as error:
        return {"fault": str(error)}
    except (MemoryError, RecursionError) as error:
        return {"equal": False, "reason": f"working it out ended in {type(error).__name__}", "failed": True}
    except Exception as error:
        return {"equal": False, "reason": f"cannot be worked out: {type(error).__name__}", "failed": True}
    return {"equal": decision.equal, "reason": decision.reason, "by": decision.by}
