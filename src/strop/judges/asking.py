"""Questions to a backend, with one more try for replies that are malformed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from strop.judges.protocol import Backend, Reply, Request

Question = TypeVar("Question")

ATTEMPTS = 2
"""A malformed reply is asked for once more, with another code; then the judge abstains."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question came to: a value, or why there is none."""

    value: Any
    reason: str = ""


def ask(
    backend: Backend,
    questions: Sequence[Question],
    request_of: Callable[[Question, int], Request],
    read: Callable[[Request, Reply], Asked],
) -> list[Asked]:
    """Every question's value, in order.

    Args:
        request_of: the request of a question at an attempt (0, 1); another attempt has another code.
        read: a reply that has a text, as a value; a value of None is malformed and asked again.
    """
    out = [Asked(None, "not asked")] * len(questions)
    waiting = list(range(len(questions)))
    for attempt in range(ATTEMPTS):
        requests = [request_of(questions[i], attempt) for i in waiting]
        again = []
        for i, request, reply in zip(waiting, requests, backend(requests) if requests else [], strict=True):
            if reply.text is None:
                out[i] = Asked(None, reply.reason or "no reply could be had")
                again += [i] if reply.malformed else []
                continue
            out[i] = read(request, reply)
            if out[i].value is None:
                again.append(i)
        waiting = again
    return out
