"""What a judge or a critic is asked, and what comes back; the one thing that every backend does.

A backend is a settings dataclass whose `__call__` answers requests: over HTTP, by a model in this
process, or by a function (a rule-based stand-in). It never raises for a single request: what could
not be had is a `Reply` without text, with the reason, and counts as an abstention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from strop.types import Message

Task = Literal["compare", "rank", "rate", "critique", "revise"]
"""What is asked; a stand-in tells requests apart by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question.

    Attributes:
        task: what is asked.
        messages: the words a language model reads.
        inputs: what the messages were made of, by name (`prompt`, `responses`, `principle`,
            `reference`, `critique`); a function reads these instead of the messages.
        max_tokens: of the reply.
        temperature, seed: how the reply is drawn.
        options: answers whose probabilities are wanted ("A", "B"; "1" ... "10"); empty asks for none.
        nonce: the code that a verdict must repeat; empty where no verdict is asked for.
        begin, end: what a verdict's line holds before and behind its option. A backend that decides
            its own tokens writes them itself; others leave that to the model.
        think: whether the model is to write something before its verdict.
    """

    task: Task
    messages: tuple[Message, ...]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    options: tuple[str, ...] = ()
    nonce: str = ""
    begin: str = ""
    end: str = ""
    think: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer.

    Attributes:
        text: the whole reply; `None` if none could be had.
        reason: why there is none, or a remark.
        logprobs: log-probability (nats) of candidate tokens at each position of the reply, as far
            as the backend gives them: one mapping of token text to log-probability a position.
        tokens: the reply's own tokens, as many as `logprobs`.
        option_logprobs: of whole options, from a backend that scores each of them; it needs no search.
        cached: whether it was answered without asking again.
        malformed: whether something came that is no reply; asking in other words may help.
    """

    text: str | None
    reason: str = ""
    logprobs: tuple[Mapping[str, float], ...] = ()
    tokens: tuple[str, ...] = ()
    option_logprobs: Mapping[str, float] = field(default_factory=dict)
    cached: bool = False
    malformed: bool = False

    def to_json(self) -> dict[str, Any]:
        """What a cache keeps of a reply with a text."""
        return {"text": self.text, "tokens": list(self.tokens), "logprobs": [dict(place) for place in self.logprobs]}

    @staticmethod
    def from_json(value: Mapping[str, Any] | None) -> Reply | None:
        """The inverse of `to_json`, as a cached reply; None for what is none."""
        if value is None or not isinstance(value.get("text"), str):
            return None
        tokens, logprobs = tuple(value.get("tokens", ())), tuple(value.get("logprobs", ()))
        return Reply(text=value["text"], tokens=tokens, logprobs=logprobs, cached=True)


class Backend(Protocol):
    """Answers requests in order, one reply each."""

    @property
    def name(self) -> str: ...
    def __call__(self, requests: Sequence[Request]) -> list[Reply]: ...
