"""What a judge's reply says: one strict JSON object with this call's code at the end of it, or nothing.

    {"nonce": "4f1c...", "better": "A"}

Only the reply is read, never the question. The object must end the reply (a closing code fence may
follow), have exactly these keys, and carry the code of this very question, which the judged texts
cannot know: it is a hash over them. A reply that repeats a judged text, a turn that a text forged,
or a verdict of another question holds no such object.

Left out: verdicts in prose ("[[A]]", "Score: 10"), which a judged text could contain.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from strop.judges.protocol import Reply

Key = str
"""The field of a verdict's object: `better`, `order` or `score`."""

_LAST_OBJECT = re.compile(r"\{[^{}]*\}(?=\s*(?:```)?\s*\Z)")
_OBJECT = re.compile(r"\{[^{}]*\}")
_AROUND = " \t\r\n\"'`*_.,:;()[]{}<>\u2581\u0120\u010a"
"""What a token holds around its word: spaces (SentencePiece and byte-level BPE write them so), quotes, brackets."""
TAIL = 100_000
"""Characters of a reply that are searched, from its end."""


def nonce_of(*parts: object) -> str:
    """This question's code: 16 hex digits of SHA-256 over all it is made of, the judged texts among it.

    The same question has the same code, so an answer in the cache still fits; a text that holds its
    own question's code would be a 64-bit partial preimage of itself.
    """
    text = json.dumps(parts, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def begin_of(nonce: str, key: Key, *, quoted: bool) -> str:
    """A verdict's line up to its value."""
    return f'{{"nonce": "{nonce}", "{key}": ' + ('"' if quoted else "")


def end_of(*, quoted: bool) -> str:
    """A verdict's line behind its value."""
    return '"}' if quoted else "}"


def verdict_line(nonce: str, key: Key, value: Any) -> str:
    """A verdict's whole line."""
    return json.dumps({"nonce": nonce, key: value})


def read_verdict(reply: Reply, nonce: str, key: Key, valid: Callable[[Any], bool]) -> tuple[Any, str]:
    """The value of the verdict that ends the reply.

    Args: valid: whether a value is one that may be given; it sees any JSON value.
    Returns: (value, "") or (None, why the reply is malformed).
    """
    text = (reply.text or "")[-TAIL:]
    found = _LAST_OBJECT.search(text)
    if found is None:
        return None, "the reply does not end with a verdict"
    value = _object(found.group())
    if value is None:
        return None, "the verdict is no JSON object, or repeats a key"
    if set(value) != {"nonce", key}:
        return None, f"the verdict must have the keys nonce and {key} and no other"
    if value["nonce"] != nonce:
        return None, "the verdict carries another question's code"
    if not valid(value[key]):
        return None, f"the verdict's {key} is not one of the allowed values"
    if any(other[key] != value[key] for other in _verdicts(text, nonce, key)):
        return None, "the reply contradicts itself: it holds two verdicts"
    return value[key], ""


def _verdicts(text: str, nonce: str, key: Key) -> list[dict[str, Any]]:
    objects = (_object(found) for found in _OBJECT.findall(text) if nonce in found)
    return [value for value in objects if value is not None and value.get("nonce") == nonce and key in value]


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


# Probabilities.


def option_weights(reply: Reply, options: Sequence[str], chosen: str) -> dict[str, float] | None:
    """Probability mass of each option at the token where the verdict names `chosen`; None if not told.

    An option's mass is the sum over its surface variants: tokens that are the option once spaces,
    quotes and brackets around it are taken off. Masses are not normalised.
    """
    if reply.option_logprobs:
        known = {o: _mass(v) for o, v in reply.option_logprobs.items() if o in options}
        return known if len(known) == len(options) and sum(known.values()) > 0 else None
    place = answer_position(reply, chosen)
    if place is None:
        return None
    return masses(reply.logprobs[place], options)


def answer_position(reply: Reply, chosen: str) -> int | None:
    """The last of the reply's tokens that spells the chosen option; None if the tokens are not told."""
    if len(reply.tokens) != len(reply.logprobs):
        return None
    places = range(len(reply.tokens) - 1, -1, -1)
    return next((i for i in places if surface(reply.tokens[i]) == chosen), None)


def masses(logprobs: Mapping[str, float], options: Sequence[str]) -> dict[str, float] | None:
    """The summed probability of each option's surface variants; None where no option has any."""
    out = dict.fromkeys(options, 0.0)
    for token, value in logprobs.items():
        word = surface(token)
        if word in out:
            out[word] += _mass(value)
    return out if sum(out.values()) > 0 else None


def surface(token: str) -> str:
    """A token without what stands around its word."""
    return token.strip(_AROUND)


def _mass(logprob: float) -> float:
    """exp, with what is no log-probability (NaN, above 0 by more than rounding) as no mass."""
    return 0.0 if math.isnan(logprob) or logprob > 1e-3 else math.exp(min(logprob, 0.0))
