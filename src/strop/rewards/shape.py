"""Rewards for the shape of a completion: a pattern, tags in order, length, JSON of a schema.

They look at the whole completion, thinking included (`JsonSchema` at what follows it). `None` is
kept for what cannot be judged at all: no token ids to count, or a text beyond a length cap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from strop.rewards.answers import compiled
from strop.rewards.extract import after_think
from strop.rewards.protocol import each
from strop.types import Completion, Group, Verdict

# --- a pattern ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Regex:
    """1 where the pattern is found, else 0.

    Python's matcher can take exponential time and cannot be stopped, so a repeated repeat such as
    `(a+)+` is refused, and texts over `max_chars` are unscorable. Neither catches every slow
    pattern: prefer possessive and atomic forms (`a++`, `(?>...)`) in patterns with nested repeats.

    Attributes:
        pattern: of the `re` module; flags inline, as in `(?is)`.
        mode: `search` finds it anywhere, `full` wants it to be the whole completion.
        max_chars: longer completions are unscorable.
    """

    pattern: str
    name: Literal["regex"] = "regex"
    weight: float = 1.0
    label: str | None = None
    mode: Literal["search", "full"] = "search"
    max_chars: int = 20_000

    def __post_init__(self) -> None:
        compiled(self.pattern, "regex.pattern")
        if _REPEATED_REPEAT.search(self.pattern):
            raise ValueError(
                f"regex.pattern: {self.pattern!r} repeats a repeat, which can take exponential time; repeat once,"
                " or write the inner one possessive (a++)"
            )

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        return each(groups, lambda c, _: verify_regex(c.text, self.pattern, mode=self.mode, max_chars=self.max_chars))


_REPEATED_REPEAT = re.compile(r"(?<!\\)\((?:\?:)?(?:\\.|\[[^\]]*\]|[^()\\])[+*]\)[+*]")


def verify_regex(
    text: str, pattern: str, *, mode: Literal["search", "full"] = "search", max_chars: int = 20_000
) -> Verdict:
    """Whether the text has the pattern: 1 or 0; `None` for a text of more than max_chars characters."""
    if len(text) > max_chars:
        return Verdict(None, f"{len(text)} characters, more than the {max_chars} that a pattern is tried on")
    match = re.search(pattern, text) if mode == "search" else re.fullmatch(pattern, text)
    if match is None:
        return Verdict(0.0, "the pattern is not found")
    return Verdict(1.0, "the pattern is found", match[0][:80])


# --- tags ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """1 if the completion is exactly one pair of each tag, in order, none empty; else 0.

    Attributes:
        tags: names in order; `[think, answer]` is <think>...</think><answer>...</answer>.
        anchored: only white space may stand before the first tag and between pairs.
        text_after: text may follow the last pair.
        opened: the prompt's template already wrote the first opening tag.
    """

    name: Literal["tags"] = "tags"
    weight: float = 1.0
    label: str | None = None
    tags: tuple[str, ...] = ("think", "answer")
    anchored: bool = True
    text_after: bool = False
    opened: bool = False

    def __post_init__(self) -> None:
        bad = next((t for t in self.tags if not re.fullmatch(r"\w[\w.-]*", t)), None)
        if bad is not None or not self.tags or len(set(self.tags)) < len(self.tags):
            raise ValueError(f"tags.tags: {list(self.tags)} must be different names without brackets, at least one")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        return each(
            groups,
            lambda c, _: verify_tags(
                c.text, self.tags, anchored=self.anchored, text_after=self.text_after, opened=self.opened
            ),
        )


def verify_tags(
    text: str,
    tags: Sequence[str] = ("think", "answer"),
    *,
    anchored: bool = True,
    text_after: bool = False,
    opened: bool = False,
) -> Verdict:
    """Whether the text is one non-empty pair of each tag in order: 1 or 0, never `None`. See `Tags`."""
    text = f"<{tags[0]}>{text}" if opened else text
    marks = list(re.finditer(f"</?(?:{'|'.join(map(re.escape, tags))})>", text))
    wanted = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    if [m[0] for m in marks] != wanted:
        return Verdict(0.0, f"expected {''.join(wanted)}, found {''.join(m[0] for m in marks[:12]) or 'no tags'}")
    ends = [0, *(m.end() for m in marks)]
    gaps = [text[end : m.start()].strip() for end, m in zip(ends, marks, strict=False)]
    empty = next((tag for tag, inside in zip(tags, gaps[1::2], strict=True) if not inside), None)
    if empty is not None:
        return Verdict(0.0, f"<{empty}> is empty")
    if anchored and any(gaps[::2]):
        return Verdict(0.0, "text stands outside the tags")
    if not text_after and text[ends[-1] :].strip():
        return Verdict(0.0, f"text stands after </{tags[-1]}>")
    return Verdict(1.0, "one of each, in order")


# --- length ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """0 up to `target`, falling linearly to -1 at `limit`.

    Attributes: unit: what is counted; `tokens` needs sampled completions, others are unscorable.
    """

    target: int
    limit: int
    name: Literal["length"] = "length"
    weight: float = 1.0
    label: str | None = None
    unit: Literal["characters", "words", "tokens"] = "tokens"

    def __post_init__(self) -> None:
        if not 0 <= self.target < self.limit:
            raise ValueError(f"length: target {self.target} must be at least 0 and below limit {self.limit}")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        return each(groups, lambda c, _: verify_length(size_of(c, self.unit), self.target, self.limit, unit=self.unit))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlong:
    """DAPO's soft overlong punishment, on sampled tokens.

    With L = max_length and Lc = cache: 0 if |y| <= L - Lc; (L - Lc - |y|) / Lc up to L; -1 beyond.
    Set L to the sampling's `max_completion_length`. Yu et al. 2025, arXiv:2503.14476, eq. 13.
    """

    max_length: int
    cache: int
    name: Literal["overlong"] = "overlong"
    weight: float = 1.0
    label: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.cache <= self.max_length:
            raise ValueError(f"overlong: cache {self.cache} must be above 0 and at most max_length {self.max_length}")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        start = self.max_length - self.cache
        return each(groups, lambda c, _: verify_length(size_of(c, "tokens"), start, self.max_length, unit="tokens"))


def verify_length(size: int | None, target: int, limit: int, *, unit: str = "tokens") -> Verdict:
    """The soft length penalty -clip((size - target) / (limit - target), 0, 1).

    Returns: a score in [-1, 0]; `None` if the size is not known.
    """
    if size is None:
        return Verdict(None, f"the number of {unit} is not known: the completion was not sampled")
    excess = (size - target) / (limit - target)
    return Verdict(-min(max(excess, 0.0), 1.0) or 0.0, f"{size} {unit}, free up to {target}")


def size_of(completion: Completion, unit: str) -> int | None:
    """How long a completion is; `None` for the tokens of one that was not sampled."""
    if unit == "tokens":
        return None if completion.token_ids is None else len(completion.token_ids)
    return len(completion.text) if unit == "characters" else len(completion.text.split())


# --- JSON ---

_MAX_JSON_CHARS = 20_000
_MAX_JSON_VALUES = 2_000  # uniqueItems compares mixed items pairwise
_FENCE = re.compile(r"^```[ \t]*(?:json)?[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """1 if the completion is JSON that the schema allows, else 0.

    Read is the whole text after the thinking, or else its last ``` or ```json block. Keys given
    twice, NaN and infinities are no JSON. References may only point inside the schema: nothing is
    fetched. Needs the `jsonschema` package.

    Attributes:
        schema: a JSON schema, inline. path: a file with one. Exactly one of them is given.
    """

    name: Literal["json_schema"] = "json_schema"
    weight: float = 1.0
    label: str | None = None
    schema: Mapping[str, Any] | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if (self.schema is None) == (self.path is None):
            raise ValueError("json_schema: give either schema (inline) or path (a file)")
        if self.schema is not None:
            _refuse_remote(self.schema, "json_schema.schema")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        validator = _validator(_read_schema(self.path) if self.schema is None else json.dumps(self.schema))
        return each(groups, lambda c, _: _verdict(c.text, validator))


def verify_json(text: str, schema: Mapping[str, Any]) -> Verdict:
    """Whether the text, or its last fenced block, is JSON that the schema allows.

    Returns: 1 or 0; `None` if it is too long or has too many values to be checked in bounded time.
    Raises: ValueError for a schema that is none, or refers to another document.
    """
    return _verdict(text, _validator(json.dumps(schema)))


def _verdict(text: str, validator: Any) -> Verdict:
    text = after_think(text).strip()
    if len(text) > _MAX_JSON_CHARS:
        return Verdict(None, f"{len(text)} characters, more than the {_MAX_JSON_CHARS} that are read as JSON")
    parsed = _parsed(text)
    if isinstance(parsed, _NoJson):
        blocks = _FENCE.findall(text)
        parsed = _parsed(blocks[-1]) if blocks else parsed
    if isinstance(parsed, _NoJson):
        return Verdict(0.0, f"no JSON: {parsed.reason}")
    if _num_values(parsed) > _MAX_JSON_VALUES:
        return Verdict(None, f"more than the {_MAX_JSON_VALUES} values that are checked")
    try:
        error = next(validator.iter_errors(parsed), None)
    except RecursionError:
        return Verdict(0.0, "nested too deeply")
    if error is None:
        return Verdict(1.0, "valid", text[:80])
    return Verdict(0.0, f"{error.json_path}: {error.message}"[:200], text[:80])


def read_json(text: str) -> tuple[Any, str]:
    """A JSON value and "", or `None` and why the text is none: keys given twice, NaN and infinities are no JSON."""
    parsed = _parsed(text)
    return (None, parsed.reason) if isinstance(parsed, _NoJson) else (parsed, "")


@dataclass(frozen=True, slots=True)
class _NoJson:
    reason: str


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        return _NoJson(str(error)[:100] or type(error).__name__)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is given twice")
    return value


def _num_values(value: Any) -> int:
    """How many values there are, counted without recursion."""
    stack, num = [value], 0
    while stack:
        value = stack.pop()
        num += 1
        if isinstance(value, dict | list):
            stack.extend(value.values() if isinstance(value, dict) else value)
    return num


@lru_cache(maxsize=32)
def _read_schema(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"json_schema.path: {path} cannot be read as a JSON schema: {error}") from None
    return text


@lru_cache(maxsize=32)
def _validator(schema_text: str) -> Any:
    """A validator of the newest draft or the one `$schema` names, which can fetch nothing."""
    try:
        import jsonschema
        import referencing
    except ImportError:
        raise ValueError("json_schema: needs the jsonschema package; install it with: pip install jsonschema") from None
    schema = json.loads(schema_text)
    _refuse_remote(schema, "json_schema")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"json_schema: at {error.json_path}: {error.message}") from None
    return kind(schema, registry=referencing.Registry())


def _refuse_remote(schema: Any, where: str) -> None:
    """Raises ValueError for a reference that leaves the schema's own document."""
    stack = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            for key in ("$ref", "$dynamicRef", "$recursiveRef"):
                if isinstance(value.get(key), str) and not value[key].startswith("#"):
                    raise ValueError(
                        f"{where}: {key} {value[key]!r} leaves the schema; nothing is fetched, so copy that part into"
                        " $defs and refer to it as '#/$defs/...'"
                    )
            stack.extend(value.values())
        elif isinstance(value, list | tuple):
            stack.extend(value)
