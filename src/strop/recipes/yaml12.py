"""Safe YAML with the numbers and booleans of YAML 1.2, and the line of every value.

PyYAML alone reads YAML 1.1: `1e-5` is a text there and `no` is false. Here `1e-5` is a number, only
`true` and `false` are booleans, `0o17` is octal and `017` is 17. A plain text may start with `@`
(`model: @sft`). Refused, each with its line: duplicate keys, keys that are no text, tags, more
than one document, recursion, deep nesting, many aliases, large files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.emitter import Emitter
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.representer import SafeRepresenter
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner
from yaml.serializer import Serializer

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_ALIASES = 100
MAX_NODES = 100_000
"""Values a file may hold once its aliases are written out."""

Path = tuple[str | int, ...]
"""Keys and list places from the top to a value."""


class YAMLError(ValueError):
    """A text is not the YAML that is read here. `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed text: its value, and the line (from 1) of each key or list entry by path."""

    value: Any
    lines: Mapping[Path, int]


def parse(text: str) -> Document:
    """The value of a YAML text and where each part of it stands.

    Raises: YAMLError with the line.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise YAMLError(f"larger than {MAX_BYTES:,} bytes; a recipe is small, put data in files of its own", 1)
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YAMLError(_words(error), mark.line + 1 if mark else 1) from None
    except yaml.YAMLError as error:
        raise YAMLError(f"not readable as YAML: {error}", 1) from None
    builder = _Builder()
    value = None if node is None else builder.build(node, ())
    return Document(value, builder.lines)


def dump(value: Any) -> str:
    """YAML that `parse` reads back equal; texts that look like numbers or booleans are quoted."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _words(error: yaml.MarkedYAMLError) -> str:
    parts = [part for part in (error.problem, error.context) if part]
    return "not readable as YAML: " + ", ".join(parts)


_INT = re.compile(r"[-+]?[0-9]+$")
_OCTAL = re.compile(r"0o[0-7]+$")
_HEX = re.compile(r"0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)$")
_NAN = re.compile(r"\.(nan|NaN|NAN)$")
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"(~|null|Null|NULL|)$")

_TAG = "tag:yaml.org,2002:"


class _Resolver(BaseResolver):
    """The core schema of YAML 1.2, section 10.3.2."""


for _name, _pattern in (
    ("null", _NULL),
    ("bool", _BOOL),
    ("int", re.compile(f"{_INT.pattern}|{_OCTAL.pattern}|{_HEX.pattern}")),
    ("float", re.compile(f"{_FLOAT.pattern}|{_INFINITE.pattern}|{_NAN.pattern}")),
):
    _Resolver.add_implicit_resolver(_TAG + _name, _pattern, None)


def _scalar(tag: str, text: str) -> Any:
    if tag == "str":
        return text
    if tag == "null":
        return None
    if tag == "bool":
        return text[0] in "tT"
    if tag == "int":
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if _NAN.match(text):
        return math.nan
    if _INFINITE.match(text):
        return -math.inf if text.startswith("-") else math.inf
    return float(text)


class _Loader(Reader, Scanner, Parser, Composer, _Resolver):
    """Text to nodes; counts nesting and aliases on the way."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _Resolver.__init__(self)
        self._depth = 0
        self._aliases = 0

    def check_plain(self) -> bool:
        return bool(self.peek() == "@" or super().check_plain())

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise YAMLError(f"more than {MAX_ALIASES} aliases; write the values out", line)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise YAMLError(f"nested deeper than {MAX_DEPTH} levels", line)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Builder:
    """Nodes to plain values, with the line of each."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._count += 1
        if self._count > MAX_NODES:
            raise YAMLError(f"more than {MAX_NODES:,} values once aliases are written out", line)
        if id(node) in self._open:
            raise YAMLError("an alias inside the value it stands for", line)
        self._open.add(id(node))
        value = self._value(node, path, line)
        self._open.discard(id(node))
        return value

    def _value(self, node: Node, path: Path, line: int) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and kind == "seq":
            return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, ScalarNode) and kind in ("str", "null", "bool", "int", "float"):
            try:
                return _scalar(kind, node.value)
            except ValueError:
                raise YAMLError(f"{node.value!r} is not of the tag's kind, {kind}", line) from None
        raise YAMLError(f"the tag {node.tag!r} is not read; recipes are plain values", line)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._value(key_node, path, line)
            if not isinstance(key, str):
                raise YAMLError(f"the key {key!r} is not a text; quote it", line)
            if key in out:
                raise YAMLError(f"the key {key!r} stands twice, first in line {self.lines[(*path, key)]}", line)
            self.lines[(*path, key)] = line
            out[key] = self.build(value_node, (*path, key))
        return out


class _QuotingResolver(_Resolver):
    """Also takes YAML 1.1's booleans for no text, so that other readers of a dump see texts too."""


_QuotingResolver.add_implicit_resolver(_TAG + "bool", re.compile(r"(?i:y|n|yes|no|on|off)$"), None)


class _Dumper(Emitter, Serializer, SafeRepresenter, _QuotingResolver):
    """Values to text; an argument list that `yaml.dump` dictates."""

    def __init__(self, stream: Any, **options: Any) -> None:
        layout = ("canonical", "indent", "width", "allow_unicode", "line_break")
        markers = ("encoding", "explicit_start", "explicit_end", "version", "tags")
        Emitter.__init__(self, stream, **{k: options[k] for k in layout})
        Serializer.__init__(self, **{k: options[k] for k in markers})
        SafeRepresenter.__init__(self, default_style=None, default_flow_style=False, sort_keys=False)
        _QuotingResolver.__init__(self)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> Node:
    return dumper.represent_scalar(_TAG + "str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
