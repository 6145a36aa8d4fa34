"""The one idea, as data: a group is one prompt and K completions, with what is known of them.

SFT has K = 1, a preference pair K = 2 (best first), GRPO K = G, a ranking K = n (best first).
Groups are what sources give, what rewards score, and what stages hand to each other as JSONL:
one group a line, `{"prompt": ..., "completions": [{"content": ...}, ...], "row": {...}}`.

No torch here: these are host types. Token tensors live in `batch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


Content = str | tuple[Message, ...]
"""A text, or turns of a conversation."""

Fact = str | float
"""Something measured beside a score."""

Finish = Literal["stop", "length"]
"""Why a sampled completion ended: a stop token or string, or the length limit."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer to a prompt, with what is known of it.

    Attributes:
        content: the text, or the turns that follow the prompt (user and tool turns among them
            are read, never trained).
        label: desirable or not (unpaired feedback).
        score: one number for the whole answer; for sampled groups the weighted sum of `rewards`.
        rewards: each named reward; `None` is unscorable, never zero.
        reasons: why a reward came out as it did, by the reward's name.
        facts: what else a reward measured, by the reward's name: plain values by their names
            (`{"code": {"tier": "A", "visible": 1.0, "hidden": 0.0}}`).
        steps, step_labels: a solution cut into steps, and whether each is right (a number in
            [0, 1] is how likely); `None` is unlabelled.
        step_scores: what a process reward model gives each of `steps`.
        token_ids, logprobs: what the sampler emitted and its log-probs (nats), never re-encoded.
        finish: why sampling ended; `None` for given completions.
        advantage: credit from the group, set before packing.
        version: how many updates the policy had made when it was sampled.
    """

    content: Content
    label: bool | None = None
    score: float | None = None
    rewards: Mapping[str, float | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Fact]] = field(default_factory=dict)
    steps: tuple[str, ...] = ()
    step_labels: tuple[bool | float | None, ...] = ()
    step_scores: tuple[float | None, ...] = ()
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    finish: Finish | None = None
    advantage: float | None = None
    version: int | None = None

    @property
    def text(self) -> str:
        """The words of the answer: the text itself, or the last assistant turn's content."""
        if isinstance(self.content, str):
            return self.content
        turns = [m.content for m in self.content if m.role == "assistant"]
        return turns[-1] if turns else ""


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt and its completions; `row` holds the source row's other columns."""

    prompt: Content
    completions: tuple[Completion, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    prompt_ids: tuple[int, ...] | None = None

    @property
    def prompt_text(self) -> str:
        """The prompt as one text: its own, or the last user turn's content."""
        if isinstance(self.prompt, str):
            return self.prompt
        turns = [m.content for m in self.prompt if m.role == "user"]
        return turns[-1] if turns else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one completion: a score (`None`: unscorable) and why.

    Attributes: steps, step_scores: the completion cut into pieces (joined they are its text), and
        each one's score, from a process reward.
        facts: what else was measured, plain values by name; they stay with the completion.
        applies: whether the reward is for such rows at all; where it is not, it is no part of the score.
    """

    score: float | None
    reason: str = ""
    extracted: str | None = None
    steps: tuple[str, ...] = ()
    step_scores: tuple[float | None, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    applies: bool = True


Scores = Sequence[Verdict | float | None]
"""One entry a completion of a group."""

Reward = Callable[[Sequence[Group]], Sequence[Scores]]
"""Scores every completion of every group; sees siblings, so judges can rank and models batch."""


class Source(Protocol):
    """The groups of optimizer step t, a pure function of (seed, t) and the current policy."""

    def groups(self, step: int) -> Sequence[Group]: ...


def content_to_json(content: Content) -> Any:
    """A text stays a text; turns become a list of role/content objects."""
    if isinstance(content, str):
        return content
    return [{"role": m.role, "content": m.content} for m in content]


def content_from_json(value: Any) -> Content:
    """The inverse of `content_to_json`.

    Raises: ValueError if the value is neither a text nor a list of role/content objects.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a text or a list of messages, got {type(value).__name__}")
    return tuple(_message(turn) for turn in value)


def _message(turn: Any) -> Message:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        raise ValueError("expected a message with a text 'role' and a text 'content'")
    if not isinstance(turn.get("content"), str):
        raise ValueError(f"the {turn['role']} message has no text 'content'")
    return Message(turn["role"], turn["content"])


def group_to_json(group: Group) -> dict[str, Any]:
    """A group as plain JSON values; fields that say nothing are left out."""
    out: dict[str, Any] = {"prompt": content_to_json(group.prompt)}
    out["completions"] = [_completion_to_json(c) for c in group.completions]
    if group.row:
        out["row"] = dict(group.row)
    if group.origin:
        out["origin"] = group.origin
    if group.prompt_ids is not None:
        out["prompt_ids"] = list(group.prompt_ids)
    return out


def group_from_json(value: Mapping[str, Any]) -> Group:
    """The inverse of `group_to_json`.

    Raises: ValueError naming the key that is missing, unknown or of the wrong type.
    """
    _known(value, {f.name for f in fields(Group)}, "group")
    if "prompt" not in value or not isinstance(value.get("completions"), list | tuple):
        raise ValueError("a group needs 'prompt' and a list 'completions'")
    _check_types(value)
    ids = value.get("prompt_ids")
    return Group(
        prompt=content_from_json(value["prompt"]),
        completions=tuple(_completion_from_json(c) for c in value["completions"]),
        row=dict(value.get("row") or {}),
        origin=value.get("origin") or "",
        prompt_ids=None if ids is None else tuple(ids),
    )


def _completion_to_json(completion: Completion) -> dict[str, Any]:
    out: dict[str, Any] = {"content": content_to_json(completion.content)}
    for f in fields(Completion)[1:]:
        value = getattr(completion, f.name)
        if value is None or (isinstance(value, tuple | Mapping) and not value and f.name not in _IDS):
            continue
        out[f.name] = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
    return out


_IDS = ("token_ids", "logprobs")
_TUPLES = ("steps", "step_labels", "step_scores", *_IDS)


def _completion_from_json(value: Any) -> Completion:
    if not isinstance(value, Mapping) or "content" not in value:
        raise ValueError("each completion needs 'content'")
    _known(value, {f.name for f in fields(Completion)}, "completion")
    _check_types(value)
    known: dict[str, Any] = {k: tuple(v) if k in _TUPLES else v for k, v in value.items() if v is not None}
    known["content"] = content_from_json(value["content"])
    return Completion(**known)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_facts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(f, str) or _is_number(f) for f in value.values())


def _is_list(value: Any, entry: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(entry(v) for v in value)


_TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "label": ("true or false", lambda v: isinstance(v, bool)),
    "score": ("a number", _is_number),
    "rewards": (
        "an object of numbers or nulls",
        lambda v: isinstance(v, Mapping) and all(r is None or _is_number(r) for r in v.values()),
    ),
    "reasons": (
        "an object of texts",
        lambda v: isinstance(v, Mapping) and all(isinstance(r, str) for r in v.values()),
    ),
    "facts": (
        "an object of objects of texts or numbers",
        lambda v: isinstance(v, Mapping) and all(_is_facts(f) for f in v.values()),
    ),
    "steps": ("a list of texts", lambda v: _is_list(v, lambda s: isinstance(s, str))),
    "step_labels": (
        "a list of true, false, numbers from 0 to 1, or null",
        lambda v: _is_list(v, lambda s: s is None or isinstance(s, bool) or (_is_number(s) and 0 <= s <= 1)),
    ),
    "step_scores": ("a list of numbers or nulls", lambda v: _is_list(v, lambda s: s is None or _is_number(s))),
    "token_ids": ("a list of whole numbers", lambda v: _is_list(v, lambda i: type(i) is int)),
    "logprobs": ("a list of numbers", lambda v: _is_list(v, _is_number)),
    "finish": ('"stop" or "length"', lambda v: v in ("stop", "length")),
    "advantage": ("a number", _is_number),
    "version": ("a whole number", lambda v: type(v) is int),
    "row": ("an object", lambda v: isinstance(v, Mapping)),
    "origin": ("a text", lambda v: isinstance(v, str)),
    "prompt_ids": ("a list of whole numbers", lambda v: _is_list(v, lambda i: type(i) is int)),
}
"""What a key may hold besides null, in words and as a test."""


def _check_types(value: Mapping[str, Any]) -> None:
    for key, (words, fits) in _TYPES.items():
        if value.get(key) is not None and not fits(value[key]):
            raise ValueError(f"{key!r} must be {words}, got {value[key]!r:.60}")


def _known(value: Mapping[str, Any], names: set[str], what: str) -> None:
    unknown = sorted(set(value) - names)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r} in a {what}; known: {', '.join(sorted(names))}")
