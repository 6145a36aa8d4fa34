"""Texts and turns out of a row's cells, checked: what every row shape is made of.

A cell that cannot be used raises `BadRow` with a short reason to count by, and what was found.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from strop.types import Content, Message

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
# What a message may carry beside its words and would be lost without a trace if it were ignored.
_UNREAD = ("tool_calls", "function_call", "reasoning_content", "thinking", "images")


class BadRow(Exception):
    """A row that cannot be used: `reason` is counted, `detail` is shown once."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def content(value: Any, name: str) -> Content:
    """A cell that is a text or a list of messages; `name` is the column's, for the reason."""
    if isinstance(value, str):
        return turns(value, name) if value.startswith("[{") and '"role"' in value[:200] else value
    return turns(value, name)


def text(value: Any, name: str) -> str:
    """A cell that is a text with something in it."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, str):
        raise BadRow(f"empty {name}")
    raise _wrong_type(value, name, "a text")


def listed(value: Any, name: str) -> list[Any]:
    """A cell that is a list; in a CSV file it is written as JSON."""
    found = value
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRow(f"wrong type of {name}", f"a text that is no JSON list: {error}") from error
    if not isinstance(found, list | tuple):
        raise _wrong_type(found, name, "a list")
    return list(found)


def turns(value: Any, name: str) -> tuple[Message, ...]:
    """A cell that is a list of role/content messages, none of them empty."""
    return tuple(_message(turn, name) for turn in listed(value, name))


def sharegpt_turns(value: Any, name: str) -> tuple[Message, ...]:
    """A cell that is a list of from/value turns, by ShareGPT's names for the roles."""
    out = []
    for turn in listed(value, name):
        if isinstance(turn, Mapping) and "role" in turn:
            out.append(_message(turn, name))
            continue
        if not isinstance(turn, Mapping) or "from" not in turn:
            raise BadRow(f"wrong type of {name}", "a turn needs 'from' and 'value'")
        role = _SHAREGPT_ROLES.get(str(turn["from"]))
        if role is None:
            raise BadRow("unknown role", f"{turn['from']!r}; known: {', '.join(sorted(_SHAREGPT_ROLES))}")
        out.append(_said(role, turn.get("value"), name))
    return tuple(out)


def boolean(value: Any, name: str) -> bool:
    """A cell that is true or false, or 1 or 0, also written out as a text."""
    if value is None or value == "":
        raise BadRow(f"null {name}")
    if isinstance(value, str):
        known = {"true": True, "false": False, "1": True, "0": False}
        value = known.get(value.strip().lower(), value)
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise BadRow(f"wrong type of {name}", f"expected true or false, got {value!r}"[:200])


def dialogue(value: str) -> tuple[Message, ...] | None:
    r"""The turns of a text of the HH-RLHF form, `\n\nHuman: ... \n\nAssistant: ...`, if it is one."""
    whole = "\n\n" + value.lstrip()
    if not _HH_TURN.match(whole):
        return None
    parts = _HH_TURN.split(whole)
    roles = ("user" if who == "Human" else "assistant" for who in parts[1::2])
    return tuple(Message(role, said.strip()) for role, said in zip(roles, parts[2::2], strict=True))


def shared_turns(sides: Sequence[Sequence[Message]]) -> int:
    """How many leading turns make the prompt of whole dialogues: shared, and ending in a user or tool turn."""
    shortest = min(len(side) for side in sides)
    num = next((k for k in range(shortest) if any(s[k] != sides[0][k] for s in sides)), shortest)
    while num > 0 and (num == shortest or sides[0][num - 1].role not in ("user", "tool")):
        num -= 1
    return num


def shared_characters(sides: Sequence[str]) -> int:
    """Length of the shared prefix, cut back so that every rest begins with the blank before a word.

    Tokenisers join a blank to the word that follows it, so this boundary also stands between the
    tokens of the whole text. 0 if there is none.
    """
    common = len(os.path.commonprefix(list(sides)))
    shortest = min(len(side) for side in sides)
    for at in range(min(common, shortest - 1), 0, -1):
        here_blank = all(side[at].isspace() for side in sides)
        if here_blank and not sides[0][at - 1].isspace():
            return at
    return 0


def checked_dialogue(found: tuple[Message, ...]) -> tuple[Message, ...]:
    """Turns that end in an assistant turn with words in every turn."""
    if not found or found[-1].role != "assistant":
        raise BadRow("last turn not assistant", f"it is {found[-1].role}" if found else "there is no turn")
    if not found[-1].content.strip():
        raise BadRow("empty completion")
    empty = next((k for k, m in enumerate(found, start=1) if not m.content.strip() and m.role != "system"), None)
    if empty is not None:
        raise BadRow("empty turn", f"turn {empty} ({found[empty - 1].role})")
    return found


def checked_prompt(prompt: Content) -> Content:
    """A prompt with something in it that an answer may follow."""
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        raise BadRow("empty prompt")
    if isinstance(prompt, tuple):
        if prompt[-1].role == "assistant":
            raise BadRow("prompt ends with an assistant turn")
        if not any(m.content.strip() for m in prompt):
            raise BadRow("empty prompt")
    return prompt


def _message(turn: Any, name: str) -> Message:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        raise BadRow(f"wrong type of {name}", "a message needs a text 'role' and a text 'content'")
    unread = next((key for key in _UNREAD if turn.get(key)), None)
    if unread:
        raise BadRow(f"message with {unread}", "which is not supported and would be lost")
    if turn["role"] not in _ROLES:
        raise BadRow("unknown role", f"{turn['role']!r}; known: {', '.join(sorted(_ROLES))}")
    return _said(turn["role"], turn.get("content"), name)


def _said(role: str, said: Any, name: str) -> Message:
    if isinstance(said, list | tuple):
        said = "".join(_text_part(part, name) for part in said)
    if not isinstance(said, str):
        raise BadRow(f"wrong type of {name}", f"the {role} turn's content is {type(said).__name__}, not a text")
    return Message(role, said)


def _text_part(part: Any, name: str) -> str:
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise BadRow("content that is not text", f"a part of type {kind!r} in {name}")


def _wrong_type(value: Any, name: str, wanted: str) -> BadRow:
    if value is None:
        return BadRow(f"null {name}")
    return BadRow(f"wrong type of {name}", f"expected {wanted}, got {type(value).__name__}")
