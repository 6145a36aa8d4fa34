"""Requests and replies in the form of OpenAI's chat completions, which vLLM, Ollama and others speak.

A server may send anything: whatever is not a whole, well-formed reply is said to be so, in words, and
never raises.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.judges.protocol import Request
from strop.judges.verdict import surface

KEPT = 64
"""Tokens at a reply's end whose probabilities are kept; the verdict stands there."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A well-formed reply. `usage`: (prompt, completion) tokens, None where the server does not say."""

    text: str
    tokens: tuple[str, ...] = ()
    logprobs: tuple[dict[str, float], ...] = ()
    usage: tuple[int, int] | None = None


def body_of(
    request: Request,
    model: str,
    *,
    top_logprobs: int,
    tokens_field: str,
    omit: Collection[str],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of one request."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "temperature": request.temperature,
        tokens_field: request.max_tokens,
        "stream": False,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.options and top_logprobs:
        body |= {"logprobs": True, "top_logprobs": top_logprobs}
    return {**{key: value for key, value in body.items() if key not in omit}, **extra}


def read_body(data: bytes, options: Sequence[str]) -> Parsed | str:
    """A reply from a body's bytes, or what is wrong with it."""
    value = _json(data)
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return "the body is no JSON object"
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        error = error_text(value)
        return f"the body holds an error: {error}" if error else "the body has no choices"
    choice = next((c for c in choices if isinstance(c, dict) and c.get("index") == 0), choices[0])
    message = choice.get("message") if isinstance(choice, dict) else None
    text = _content(message.get("content")) if isinstance(message, dict) else None
    if not text:
        return "the reply has no text"
    tokens, logprobs = _logprobs(choice.get("logprobs"), options)
    return Parsed(_whole(text), tokens, logprobs, _usage(value.get("usage")))


def error_text(value: Any) -> str:
    """What an error body says, at most 300 characters; empty if it says nothing."""
    for key in ("error", "message", "detail"):
        if isinstance(value, Mapping) and key in value:
            inner = value[key]
            return (error_text(inner) or str(inner)[:300]) if isinstance(inner, Mapping) else _line(str(inner))
    return ""


def error_of(data: bytes) -> str:
    """What the body of a failed request says, in a line."""
    value = _json(data)
    said = error_text(value) if isinstance(value, Mapping) else ""
    return said or _line(data[:2000].decode("utf-8", "replace"))


def _line(text: str) -> str:
    return " ".join(_whole(text).split())[:300]


def _json(data: bytes) -> Any:
    """The value, or a text that says why there is none (a JSON text is wrapped, so the two differ)."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError:
        return "the body is not UTF-8"
    except _Twice as error:
        return f"the body repeats the key {str(error)[:60]!r}"
    except (ValueError, RecursionError):
        page = data[:200].lstrip()[:1] == b"<"
        return "the body is a web page, not JSON; is the url right?" if page else "the body is no JSON"
    return [value] if isinstance(value, str) else value


class _Twice(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key)
        found[key] = value
    return found


def _content(value: Any) -> str | None:
    """A message's words: a text, or the text parts of a list."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return None
    parts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(part for part in parts if isinstance(part, str))


def _whole(text: str) -> str:
    """The text with halves of characters replaced, which could not be written down."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _logprobs(value: Any, options: Sequence[str]) -> tuple[tuple[str, ...], tuple[dict[str, float], ...]]:
    """The last tokens and, at each, the log-probabilities of those that spell an option; empty if not well-formed."""
    content = value.get("content") if isinstance(value, dict) else None
    if not options or not isinstance(content, list) or not content:
        return (), ()
    places = content[-KEPT:]
    if not all(isinstance(place, dict) and isinstance(place.get("token"), str) for place in places):
        return (), ()
    return tuple(_whole(p["token"]) for p in places), tuple(_place(p, options) for p in places)


def _place(place: Mapping[str, Any], options: Sequence[str]) -> dict[str, float]:
    known: dict[str, float] = {}
    others = place.get("top_logprobs")
    for entry in (place, *(others if isinstance(others, list) else ())):
        token, value = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if isinstance(token, str) and surface(token) in (*options, "0") and (number := _logprob(value)) is not None:
            known[_whole(token)] = number
    return known


def _logprob(value: Any) -> float | None:
    """The number, if it is a log-probability: finite, and not above 0 by more than rounding."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -1e6 < value <= 1e-3 else None  # a huge int compares without becoming a float


def _usage(value: Any) -> tuple[int, int] | None:
    if not isinstance(value, dict):
        return None
    counts = value.get("prompt_tokens"), value.get("completion_tokens", 0)
    good = all(type(count) is int and 0 <= count < 10**9 for count in counts)
    return (int(counts[0] or 0), int(counts[1])) if good else None
